"""The image decoder (eq 12) and text decoder (eq 13), which are used in pretraining only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention of (B, Q, width) queries on (B, K, source) keys and values, by PyTorch's fused kernel."""

    def __init__(self, width: int, heads: int, source: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source or width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask`: (B, 1, Q, K) bool, True = may be attended; None: all."""
        batch, length, width = queries.shape

        def heads(x: Tensor) -> Tensor:
            return x.reshape(batch, -1, self.heads, width // self.heads).transpose(1, 2)

        key, value = self.key_value(source).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(heads(self.query(queries)), heads(key), heads(value), attn_mask=mask)
        return self.out(attended.transpose(1, 2).reshape(batch, length, width))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, cross-attention where `source` is given (CoCa), MLP of four times the width."""

    def __init__(self, width: int, heads: int, source: int | None = None) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width) if source else None
        self.cross_attention = Attention(width, heads, source) if source else None
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """`x`: (B, L, width); `source`: (B, K, source width); `mask`: (B, 1, L, L) of the self-attention."""
        normed = self.self_norm(x)
        x = x + self.self_attention(normed, normed, mask)
        if self.cross_attention is not None and self.cross_norm is not None:
            x = x + self.cross_attention(self.cross_norm(x), source)
        return x + self.mlp(self.mlp_norm(x))  # type: ignore[no-any-return]


def sincos_positions(grid: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions of a square grid, (grid * grid, width): half for the row, half for the column (as MAE)."""
    if width % 4:
        raise ValueError(f"width {width} is no multiple of 4")
    frequency = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float32)[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)  # (grid, width / 2)
    rows, columns = axis[:, None].expand(grid, grid, -1), axis[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=-1).reshape(grid * grid, width)


class ImageDecoder(nn.Module):
    """Predicts every patch's pixels from the encoder's tokens of the visible patches (eqs 9, 12)."""

    def __init__(self, source: int, grid: int, patch: int, *, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(source, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Buffer(sincos_positions(grid, width), persistent=False)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.pixels = nn.Linear(width, patch * patch)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """(B, N, source) encoder tokens and the (B, N) mask, True = hidden -> (B, N, patch * patch).

        The values of `tokens` at hidden places are not used: the learned mask token replaces them.
        """
        x = torch.where(hidden[..., None], self.mask_token.to(tokens.dtype), self.embed(tokens)) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.pixels(self.norm(x))  # type: ignore[no-any-return]


class TextDecoder(nn.Module):
    """Predicts the next token from the text encoder's tokens and the image's (eq 13); output weights are the token embedding's."""

    def __init__(self, width: int, source: int, *, layers: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, heads, source) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, image_tokens: Tensor, mask: Tensor, token_embedding: Tensor) -> Tensor:
        """(B, T, width), (B, N, source), (B, 1, T, T), (V, width) -> logits (B, T, V)."""
        for block in self.blocks:
            tokens = block(tokens, image_tokens, mask)
        return F.linear(self.norm(tokens), token_embedding)
