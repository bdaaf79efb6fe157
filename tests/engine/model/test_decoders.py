"""The decoders: attention against PyTorch's own, and what each output may depend on."""

import math

import pytest
import torch
from torch import Tensor, nn

from engine.model.decoders import Attention, Block, ImageDecoder, TextDecoder, sincos_positions
from engine.model.entmlm import attention_mask


def vectors(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("source", [None, 12])
def test_attention_agrees_with_pytorch(source: int | None) -> None:
    ours = Attention(8, 2, source)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True, kdim=source or 8, vdim=source or 8)
    key, value = ours.key_value.weight.chunk(2)
    with torch.no_grad():
        if source is None:
            theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, key, value]))
        else:
            for theirs_, ours_ in ((theirs.q_proj_weight, ours.query.weight), (theirs.k_proj_weight, key), (theirs.v_proj_weight, value)):
                theirs_.copy_(ours_)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    queries, keys = vectors(3, 5, 8, seed=1), vectors(3, 7, source or 8, seed=2)
    allowed = torch.rand(3, 5, 7) < 0.6
    allowed[..., 0] = True
    expected, _ = theirs(queries, keys, keys, attn_mask=~allowed.repeat_interleave(2, 0))
    torch.testing.assert_close(ours(queries, keys, allowed[:, None]), expected)
    expected, _ = theirs(queries, keys, keys)
    torch.testing.assert_close(ours(queries, keys), expected)


def test_a_block_adds_to_what_it_is_given() -> None:
    block, x = Block(8, 2, 12), vectors(2, 5, 8, seed=1)
    for last in (block.self_attention.out, block.cross_attention.out, block.mlp[2]):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    assert torch.equal(block(x, vectors(2, 3, 12, seed=2)), x)


def test_positions_are_sines_and_cosines_of_row_and_column() -> None:
    grid, width = 3, 8
    positions = sincos_positions(grid, width)
    assert positions.shape == (9, 8)
    for number in range(9):
        expected = []
        for place in divmod(number, grid):
            frequencies = [10_000 ** (-k / (width // 4)) for k in range(width // 4)]
            expected += [math.sin(place * f) for f in frequencies] + [math.cos(place * f) for f in frequencies]
        assert positions[number].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_positions(3, 6)


# ---- patches from patches --------------------------------------------------------------------------------------------------


@pytest.fixture
def image_decoder() -> ImageDecoder:
    return ImageDecoder(12, grid=3, patch=4, width=16, layers=2, heads=4)


@pytest.fixture
def hidden() -> Tensor:
    return torch.tensor([[1, 0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 1, 1, 1, 0]], dtype=torch.bool)


def test_what_stands_at_hidden_places_is_never_read(image_decoder: ImageDecoder, hidden: Tensor) -> None:
    tokens = vectors(2, 9, 12, seed=1)
    predicted = image_decoder(tokens, hidden)
    assert predicted.shape == (2, 9, 16)
    other = torch.where(hidden[..., None], torch.full_like(tokens, 1e4), tokens)
    assert torch.equal(image_decoder(other, hidden), predicted)
    for place in (~hidden[0]).nonzero().flatten().tolist():
        other = tokens.clone()
        other[0, place] += 1
        assert not torch.allclose(image_decoder(other, hidden)[0, hidden[0]], predicted[0, hidden[0]])


def test_hidden_patches_are_told_apart_by_position_alone(image_decoder: ImageDecoder) -> None:
    predicted = image_decoder(vectors(1, 9, 12, seed=1), torch.ones(1, 9, dtype=torch.bool))
    assert torch.pdist(predicted[0]).min() > 1e-3
    image_decoder.positions.zero_()
    predicted = image_decoder(vectors(1, 9, 12, seed=1), torch.ones(1, 9, dtype=torch.bool))
    torch.testing.assert_close(predicted[0], predicted[0, :1].expand(9, -1))


def test_positions_are_neither_learned_nor_stored(image_decoder: ImageDecoder) -> None:
    assert "positions" not in dict(image_decoder.named_parameters())
    assert "positions" not in image_decoder.state_dict()


# ---- words from words and image --------------------------------------------------------------------------------------------


@pytest.fixture
def text_decoder() -> TextDecoder:
    return TextDecoder(16, 12, layers=3, heads=4)


def logits(decoder: TextDecoder, tokens: Tensor, mask: Tensor, image: Tensor | None = None) -> Tensor:
    image = vectors(1, 5, 12, seed=2) if image is None else image
    answer: Tensor = decoder(tokens, image, mask, vectors(30, 16, seed=3))
    return answer


def changed_places(decoder: TextDecoder, place: int, mask: Tensor) -> list[int]:
    """The positions whose logits change with the token at `place`."""
    tokens = vectors(1, 8, 16, seed=1)
    other = tokens.clone()
    other[0, place] = vectors(16, seed=4)
    differs = (logits(decoder, other, mask) - logits(decoder, tokens, mask)).abs().amax(-1)[0] > 0
    return differs.nonzero().flatten().tolist()


NONE = torch.zeros(1, 8, dtype=torch.bool)


def test_a_position_sees_itself_and_what_came_before(text_decoder: TextDecoder) -> None:
    mask = attention_mask(NONE, NONE)
    for place in range(8):
        assert changed_places(text_decoder, place, mask) == list(range(place, 8))


def test_hidden_entities_are_not_attended(text_decoder: TextDecoder) -> None:
    hidden = NONE.clone()
    hidden[0, [2, 3, 5]] = True
    mask = attention_mask(hidden, NONE)
    for place in (2, 3, 5):
        assert changed_places(text_decoder, place, mask) == [place]
    assert changed_places(text_decoder, 4, mask) == [4, 5, 6, 7]


def test_padding_is_not_attended(text_decoder: TextDecoder) -> None:
    padding = torch.arange(8)[None] >= 5
    mask = attention_mask(NONE, padding)
    for place in (5, 6, 7):
        assert changed_places(text_decoder, place, mask) == [place]


def test_every_word_sees_the_image(text_decoder: TextDecoder) -> None:
    tokens, mask = vectors(1, 8, 16, seed=1), attention_mask(NONE, NONE)
    differs = logits(text_decoder, tokens, mask) - logits(text_decoder, tokens, mask, vectors(1, 5, 12, seed=8))
    assert (differs.abs().amax(-1) > 1e-3).all()
    assert logits(text_decoder, tokens, mask).shape == (1, 8, 30)
