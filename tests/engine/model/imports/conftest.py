"""OpenAI's CLIP written down a second time, with its own parameter names: what imported weights are compared with."""

import os
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

TEXTS = ("a photo of a cat", "No pleural effusion.", "", "lungs are clear " * 40)


class QuickGELU(nn.Module):
    """The sigmoid that stands for a Gaussian's integral in OpenAI's models."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """Attention, then an MLP, each behind a layer norm and beside a shortcut."""

    def __init__(self, width: int, heads: int, act: nn.Module, mask: Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        parts = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", act), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(parts))
        self.ln_2 = nn.LayerNorm(width)
        self.attn_mask = torch.zeros(0, 0) if mask is None else mask  # an attribute, not a buffer: an archive holds it all the same

    def forward(self, x: Tensor) -> Tensor:
        mask: Tensor | None = None
        if self.attn_mask.numel():
            mask = self.attn_mask.to(x.dtype)
        normal = self.ln_1(x)
        x = x + self.attn(normal, normal, normal, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, act: nn.Module, mask: Tensor | None) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(Block(width, heads, act, mask) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x.permute(1, 0, 2)).permute(1, 0, 2)


class Eye(nn.Module):
    def __init__(self, size: int, patch: int, width: int, layers: int, heads: int, out: int, act: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn((size // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Blocks(width, heads, layers, act, None)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.randn(width, out) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).permute(0, 2, 1)
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0, :]) @ self.proj


class OpenAIClip(nn.Module):
    """CLIP as OpenAI released it: `encode_image` and `encode_text` before normalisation, three facts beside the weights."""

    def __init__(self, *, act: str = "quick_gelu", size: int = 24, patch: int = 8, width: int = 128, context: int = 77) -> None:
        super().__init__()
        self.visual = Eye(size, patch, width, 2, width // 64, 48, self._act(act))
        mask = torch.full((context, context), float("-inf")).triu_(1)
        self.transformer = Blocks(64, 1, 2, self._act(act), mask)
        self.token_embedding = nn.Embedding(49408, 64)
        self.positional_embedding = nn.Parameter(torch.randn(context, 64))
        self.ln_final = nn.LayerNorm(64)
        self.text_projection = nn.Parameter(torch.randn(64, 48) / 8)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))
        for name, value in (("input_resolution", size), ("context_length", context), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))

    @staticmethod
    def _act(act: str) -> nn.Module:
        return QuickGELU() if act == "quick_gelu" else nn.GELU()

    @torch.jit.export
    def encode_image(self, image: Tensor) -> Tensor:
        return self.visual(image)

    @torch.jit.export
    def encode_text(self, text: Tensor) -> Tensor:
        x = self.token_embedding(text) + self.positional_embedding[: text.shape[1]]
        x = self.ln_final(self.transformer(x))
        return x[torch.arange(x.shape[0]), text.argmax(dim=-1)] @ self.text_projection

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_image(image), self.encode_text(text)


def _reference(seed: int = 0, **changes: Any) -> OpenAIClip:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = OpenAIClip(**changes).eval()
        with torch.no_grad():  # far enough from the initial weights that everything depends on everything
            for parameter in module.parameters():
                if parameter.ndim:
                    parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return module.requires_grad_(False)


@pytest.fixture(scope="session")
def make_reference() -> Callable[..., OpenAIClip]:
    return _reference


@pytest.fixture(scope="session")
def reference() -> OpenAIClip:
    """One small CLIP of OpenAI's kind, 24 pixels, 3 x 3 patches."""
    return _reference()


@pytest.fixture
def weights(reference: OpenAIClip) -> dict[str, Tensor]:
    """Its weights alone, without the three facts: what fine-tuning scripts save."""
    return {name: value for name, value in reference.state_dict().items() if value.is_floating_point()}


@pytest.fixture(scope="session")
def save_script() -> Callable[[nn.Module, Path], Path]:
    def save(module: nn.Module, path: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather have torch.export; OpenAI's files are TorchScript
            torch.jit.script(module).save(str(path))
        return path

    return save


@pytest.fixture(scope="session")
def repacked() -> Callable[..., Path]:
    """Copy a checkpoint's zip with some records changed, added or (None) left out; by record name without the root folder."""

    def repack(source: Path, target: Path, changes: Mapping[str, bytes | None], compress: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compress) as new:
            root = old.namelist()[0].split("/")[0]
            records = {name.removeprefix(f"{root}/"): old.read(name) for name in old.namelist()} | dict(changes)
            for name, content in records.items():
                if content is not None:
                    new.writestr(f"{root}/{name}", content)
        return target

    return repack


class Canary:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(tmp_path / "the canary sang")
