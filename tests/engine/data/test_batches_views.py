"""Stored pictures become what the image tower takes."""

import pytest
import torch

from engine.data.batches import normalised_views
from engine.recipe.pretraining import Augmentation

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)


def uniform(rows: int, columns: int) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(rows))


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    pixels = torch.randint(0, 256, (5, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"images": pixels[:3], "unpaired_images": pixels[3:], "input_ids": torch.ones(3, 4)}


def test_every_channel_is_the_grey_normalised_in_its_own_way(batch: dict[str, torch.Tensor]) -> None:
    seen = normalised_views(batch, Augmentation(), 16, MEAN, STD, uniform)
    assert seen["images"].shape == (3, 3, 16, 16)
    assert seen["unpaired_images"].shape == (2, 3, 16, 16)
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        torch.testing.assert_close(seen["images"][:, channel] * std + mean, batch["images"] / 255)


def test_the_rest_of_the_batch_passes_through_and_the_batch_stays_as_it_was(batch: dict[str, torch.Tensor]) -> None:
    seen = normalised_views(batch, Augmentation(), 16, MEAN, STD, uniform)
    assert seen["input_ids"] is batch["input_ids"]
    assert batch["images"].dtype == torch.uint8


def test_the_numbers_given_decide_the_views(batch: dict[str, torch.Tensor]) -> None:
    cropped = Augmentation(scale=(0.5, 0.9), contrast=0.2)
    one, same = (normalised_views(batch, cropped, 12, MEAN, STD, uniform)["images"] for _ in range(2))
    other = normalised_views(batch, cropped, 12, MEAN, STD, lambda rows, columns: 1 - uniform(rows, columns))["images"]
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_a_batch_without_one_half_has_none_of_it(batch: dict[str, torch.Tensor]) -> None:
    assert normalised_views({"images": batch["images"]}, Augmentation(), 16, MEAN, STD, uniform).keys() == {"images"}
