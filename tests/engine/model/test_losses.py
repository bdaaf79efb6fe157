"""Each loss against its formula, written out; and what it must not see."""

import math

import pytest
import torch
from torch import Tensor

from engine.model.losses import align_loss, mim_loss, mlm_loss, patchify


def vectors(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- MIM (eq 12) -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hidden() -> Tensor:
    return torch.tensor([[1, 0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 0, 1, 1, 1, 0]], dtype=torch.bool)


def test_patches_are_numbered_row_by_row() -> None:
    images = vectors(2, 3, 6, 6, seed=1)
    patches = patchify(images, 2)
    for number in range(9):
        row, column = divmod(number, 3)
        block = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(1).flatten(1)
        torch.testing.assert_close(patches[:, number], block)


def literal_mim(predicted: Tensor, images: Tensor, hidden: Tensor, norm_pix: bool) -> float:
    target = patchify(images, 2).tolist()
    squares = []
    for row, number in hidden.nonzero().tolist():
        pixels = target[row][number]
        if norm_pix:
            mean = sum(pixels) / 4
            deviation = math.sqrt(sum((pixel - mean) ** 2 for pixel in pixels) / 3 + 1e-6)
            pixels = [(pixel - mean) / deviation for pixel in pixels]
        squares += [(a - b) ** 2 for a, b in zip(predicted[row, number].tolist(), pixels, strict=True)]
    return sum(squares) / len(squares)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_mim_is_the_mean_squared_error_of_hidden_patches(hidden: Tensor, norm_pix: bool) -> None:
    predicted, images = vectors(2, 9, 4, seed=2), vectors(2, 3, 6, 6, seed=1)
    loss = mim_loss(predicted, images, hidden, norm_pix=norm_pix)
    assert loss.item() == pytest.approx(literal_mim(predicted, images, hidden, norm_pix), rel=1e-5)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_only_hidden_patches_enter_the_mim_loss(hidden: Tensor, norm_pix: bool) -> None:
    predicted, images = vectors(2, 9, 4, seed=2).requires_grad_(), vectors(2, 3, 6, 6, seed=1)
    loss = mim_loss(predicted, images, hidden, norm_pix=norm_pix)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert (gradient[~hidden] == 0).all()
    assert (gradient[hidden].abs().sum(-1) > 0).all()

    visible_pixels = (~hidden).reshape(2, 1, 3, 3).repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 3, -1, -1)
    other = torch.where(visible_pixels, vectors(2, 3, 6, 6, seed=9), images)
    assert mim_loss(predicted, other, hidden, norm_pix=norm_pix).item() == loss.item()
    other = torch.where(visible_pixels, images, vectors(2, 3, 6, 6, seed=9))
    assert mim_loss(predicted, other, hidden, norm_pix=norm_pix).item() != loss.item()


def test_black_borders_and_empty_masks_give_finite_losses(hidden: Tensor) -> None:
    predicted = vectors(2, 9, 4, seed=2)
    assert math.isfinite(mim_loss(predicted, torch.zeros(2, 3, 6, 6), hidden, norm_pix=True))
    assert mim_loss(predicted, torch.zeros(2, 3, 6, 6), torch.zeros_like(hidden), norm_pix=True) == 0


# ---- MLM (eq 13) -----------------------------------------------------------------------------------------------------------


def test_mlm_is_the_mean_cross_entropy_of_the_next_token() -> None:
    logits, input_ids = vectors(2, 5, 7, seed=1), torch.tensor([[0, 4, 2, 1, 1], [0, 3, 6, 5, 1]])
    counted = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    surprises = []
    for row in range(2):
        for place in range(4):
            if counted[row, place + 1]:
                scores = logits[row, place].tolist()
                surprises.append(math.log(sum(math.exp(score) for score in scores)) - scores[int(input_ids[row, place + 1])])
    assert len(surprises) == 7
    assert mlm_loss(logits, input_ids, counted).item() == pytest.approx(sum(surprises) / 7, rel=1e-5)


def test_mlm_ignores_padding_and_the_first_token() -> None:
    logits, input_ids = vectors(1, 5, 7, seed=1).requires_grad_(), torch.tensor([[0, 4, 1, 1, 1]])
    counted = torch.tensor([[1, 1, 1, 0, 0]], dtype=torch.bool)
    loss = mlm_loss(logits, input_ids, counted)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[0].abs().sum(-1) > 0).tolist() == [True, True, False, False, False], "SOT and the word predict; EOT is the last target"
    for place, token in ((0, 5), (3, 6), (4, 2)):
        other = input_ids.clone()
        other[0, place] = token
        assert mlm_loss(logits, other, counted).item() == loss.item()


def test_mlm_without_targets_is_zero() -> None:
    assert mlm_loss(vectors(2, 5, 7, seed=1), torch.ones(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.bool)) == 0


# ---- alignment (eqs 14, 15) ------------------------------------------------------------------------------------------------


def literal_align(image: Tensor, text: Tensor, scale: float, group: list[int]) -> float:
    """Both directions; the target is shared out evenly among the rows of equal group."""
    size = len(group)
    cosines = [[float(torch.dot(a, b) / (a.norm() * b.norm())) for b in text] for a in image]
    loss = 0.0
    for rows in (cosines, [list(column) for column in zip(*cosines, strict=True)]):
        for i in range(size):
            scores = [scale * cosine for cosine in rows[i]]
            normaliser = math.log(sum(math.exp(score) for score in scores))
            right = [j for j in range(size) if group[j] == group[i]]
            loss += sum(normaliser - scores[j] for j in right) / len(right) / size
    return loss


def test_align_is_the_symmetric_infonce() -> None:
    image, text, scale = vectors(5, 8, seed=1), vectors(5, 8, seed=2), torch.tensor(14.3)
    expected = literal_align(image, text, 14.3, [0, 1, 2, 3, 4])
    assert align_loss(image, text, scale, half=False).item() == pytest.approx(expected, rel=1e-5)
    assert align_loss(image, text, scale, half=True).item() == pytest.approx(expected / 2, rel=1e-5)


def test_a_group_shares_what_is_right() -> None:
    image, text, scale = vectors(5, 8, seed=1), vectors(5, 8, seed=2), torch.tensor(5.0)
    group = [7, 3, 7, 7, 3]
    loss = align_loss(image, text, scale, half=False, group=torch.tensor(group))
    assert loss.item() == pytest.approx(literal_align(image, text, 5.0, group), rel=1e-5)


def test_the_losses_of_slices_add_up_to_the_batch_s_with_groups() -> None:
    image, text, scale = vectors(5, 8, seed=1), vectors(5, 8, seed=2), torch.tensor(5.0)
    group = torch.tensor([7, 3, 7, 7, 3])
    whole = align_loss(image, text, scale, half=True, group=group)
    slices = [align_loss(image, text, scale, half=True, group=group, rows=rows) for rows in (slice(0, 2), slice(2, 5))]
    assert sum(each.item() for each in slices) == pytest.approx(whole.item(), rel=1e-5)


def test_groups_of_one_change_nothing() -> None:
    image, text, scale = vectors(5, 8, seed=1), vectors(5, 8, seed=2), torch.tensor(5.0)
    alone = align_loss(image, text, scale, half=False, group=torch.tensor([4, 0, 9, 2, 5]))
    torch.testing.assert_close(alone, align_loss(image, text, scale, half=False))


def test_a_repeated_report_is_no_error_within_its_group() -> None:
    text = torch.eye(3)[[0, 0, 1]]
    group = torch.tensor([0, 0, 1])
    best = align_loss(text, text, torch.tensor(50.0), half=False, group=group).item()
    assert best == pytest.approx(2 * 2 / 3 * math.log(2), abs=1e-5), "the entropy of two equal answers, and nothing more"
    assert align_loss(text, text, torch.tensor(50.0), half=False).item() == pytest.approx(best, abs=1e-5)
    pulled = text.clone().requires_grad_()
    align_loss(pulled, text, torch.tensor(50.0), half=False, group=group).backward()
    assert pulled.grad is not None
    assert pulled.grad.abs().max() < 1e-5


def test_the_length_of_an_embedding_does_not_matter() -> None:
    image, text, scale = vectors(4, 8, seed=1), vectors(4, 8, seed=2), torch.tensor(10.0)
    torch.testing.assert_close(align_loss(3 * image, text / 7, scale, half=False), align_loss(image, text, scale, half=False))


def test_autocast_does_not_coarsen_the_logits() -> None:
    image, text, scale = vectors(16, 32, seed=1), vectors(16, 32, seed=2), torch.tensor(100.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = align_loss(image, text, scale, half=False)
    assert loss.dtype == torch.float32
    assert loss.item() == align_loss(image, text, scale, half=False).item()
