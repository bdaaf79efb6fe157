from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.data.batches import Pool, TrainingBatches, augment
from engine.data.build_store import build_store
from engine.data.store import PixelStore
from engine.data.texts import TextBank, text_bank
from engine.errors import ConfigError
from engine.model.preprocessing import resized
from engine.model.tokenizer import train_tokenizer
from engine.recipe.pretraining import Augmentation

SIDE = 40


def smooth(seed: int, side: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))


def table() -> pl.DataFrame:
    """Six paired studies (the first of three images, the last met twice an epoch), three unpaired ones, and one held out."""
    studies = ["s0", "s0", "s0", "s1", "s2", "s3", "s4", "s5", "u0", "u1", "u2", "h0"]
    paired = [study.startswith(("s", "h")) for study in studies]
    keys = [{"s": "A", "u": "", "h": "H"}[study[0]] if study in ("s0", "s1") or study[0] != "s" else "B" for study in studies]
    return pl.DataFrame(
        {
            "image": [f"i{n}" for n in range(len(studies))],
            "study": studies,
            "paired": paired,
            "held_out": [study == "h0" for study in studies],
            "report_key": keys,
            "report_group": keys,
            "repeat": [2 if study == "s5" else 1 for study in studies],
            "source": ["one" if study in ("s0", "s1", "s2") else "two" for study in studies],
        }
    )


TEXTS = {"A": [f"effusion {word}" for word in ("is present", "seen", "noted")], "B": ["clear lungs"], "H": ["never to be read"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PixelStore:
    folder = tmp_path_factory.mktemp("pictures")
    frame = table()
    files = []
    for seed in range(len(frame)):
        Image.fromarray(smooth(seed)).save(folder / f"{seed}.png")
        files.append(str(folder / f"{seed}.png"))
    return build_store(frame.with_columns(file=pl.Series(files)), folder / "store", SIDE)


@pytest.fixture(scope="module")
def bank() -> TextBank:
    return text_bank(TEXTS, train_tokenizer([text for texts in TEXTS.values() for text in texts], 300, 16), None, 16)


def batches(store: PixelStore, bank: TextBank, paired: int = 3, unpaired: int = 2, **keys: int) -> TrainingBatches:
    return TrainingBatches(table(), store, bank, paired=paired, unpaired=unpaired, **{"seed": 0, **keys})


def image_of(store: PixelStore, picture: torch.Tensor) -> int:
    """The number of the image whose picture this is."""
    hits = [n for n in range(12) if np.array_equal(store.picture(f"i{n}"), picture.numpy())]
    assert len(hits) == 1
    return hits[0]


def test_a_batch_has_the_shapes_and_types_that_the_model_takes(store: PixelStore, bank: TextBank) -> None:
    batch = batches(store, bank).at(0)
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "images": ((3, SIDE, SIDE), torch.uint8),
        "input_ids": ((3, 16), torch.int64),
        "padding_mask": ((3, 16), torch.bool),
        "entity_ids": ((3, 16), torch.int64),
        "report_group": ((3,), torch.int64),
        "unpaired_images": ((2, SIDE, SIDE), torch.uint8),
    }
    assert not batch["padding_mask"][:, 0].any() and batch["padding_mask"][:, -1].all()


def test_what_the_recipe_asks_none_of_is_absent(store: PixelStore, bank: TextBank) -> None:
    assert set(batches(store, bank, unpaired=0).at(0)) == {"images", "input_ids", "padding_mask", "entity_ids", "report_group"}
    assert set(batches(store, bank, paired=0).at(0)) == {"unpaired_images"}


def test_a_step_hangs_on_seed_and_step_alone(store: PixelStore, bank: TextBank) -> None:
    run, resumed = batches(store, bank), batches(store, bank)
    unbroken = [run.at(step) for step in range(9)]
    for step in (7, 2, 8, 2):
        again = resumed.at(step)
        assert all(torch.equal(again[name], unbroken[step][name]) for name in again)
    other = [batches(store, bank, seed=1).at(step)["images"] for step in range(9)]
    assert not all(torch.equal(mine["images"], theirs) for mine, theirs in zip(unbroken, other, strict=True))


def test_an_epoch_meets_each_study_once_through_one_of_its_images(store: PixelStore, bank: TextBank) -> None:
    run = batches(store, bank, paired=7, unpaired=3)  # six studies, one of them twice: an epoch a step
    views = set()
    for step in range(30):
        batch = run.at(step)
        images = [image_of(store, picture) for picture in batch["images"]]
        studies = sorted(table()["study"][image] for image in images)
        assert studies == ["s0", "s1", "s2", "s3", "s4", "s5", "s5"]
        views |= {image for image in images if image < 3}
        assert sorted(image_of(store, picture) for picture in batch["unpaired_images"]) == [8, 9, 10]
    assert views == {0, 1, 2}


def test_each_image_comes_with_a_wording_of_its_own_report(store: PixelStore, bank: TextBank) -> None:
    run = batches(store, bank)
    wordings: dict[str, set[bytes]] = {"A": set(), "B": set()}
    groups: dict[str, set[int]] = {"A": set(), "B": set()}
    for step in range(40):
        batch = run.at(step)
        for picture, ids, group in zip(batch["images"], batch["input_ids"], batch["report_group"], strict=True):
            key = table()["report_key"][image_of(store, picture)]
            wordings[key].add(ids.numpy().tobytes())
            groups[key].add(int(group))
    for key in ("A", "B"):
        assert wordings[key] == {bank.input_ids[place].astype(np.int64).tobytes() for place in bank.places[key]}
    assert len(groups["A"]) == len(groups["B"]) == 1 and groups["A"] != groups["B"]


def test_images_without_a_picture_are_left_alone(store: PixelStore, bank: TextBank) -> None:
    more = pl.concat([table(), table().head(1).with_columns(image=pl.lit("no such picture"), study=pl.lit("s9"))])
    run = TrainingBatches(more, store, bank, paired=7, unpaired=0, seed=0)
    assert len(run.pairs) == 7


def test_processes_share_a_step_between_them(store: PixelStore, bank: TextBank) -> None:
    alone = batches(store, bank, paired=4, unpaired=2)
    parts = [batches(store, bank, paired=2, unpaired=1, rank=rank, world=2) for rank in (0, 1)]
    for step in range(5):
        for name, value in alone.at(step).items():
            assert torch.equal(torch.cat([part.at(step)[name] for part in parts]), value)


def test_an_empty_pool_is_an_error_before_the_first_step(store: PixelStore, bank: TextBank) -> None:
    for column, kept, size in (("paired", False, {"paired": 1, "unpaired": 0}), ("paired", True, {"paired": 0, "unpaired": 1})):
        with pytest.raises(ConfigError, match="report is left"):
            TrainingBatches(table().filter(pl.col(column) == kept), store, bank, seed=0, **size)


def test_a_step_of_one_source_still_meets_every_study(store: PixelStore, bank: TextBank) -> None:
    run = TrainingBatches(table(), store, bank, paired=3, unpaired=0, seed=0, one_source=True)
    assert len(run.pairs) == 6  # three turns of source one, four of source two: one waits
    met = set()
    for step in range(20):
        images = [image_of(store, picture) for picture in run.at(step)["images"]]
        assert len({table()["source"][image] for image in images}) == 1
        met |= {table()["study"][image] for image in images}
    assert met == {"s0", "s1", "s2", "s3", "s4", "s5"}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any), st.integers(1, 7))
def test_blocks_hold_one_source_while_it_lasts(counts: list[int], block: int) -> None:
    sources = [str(source) for source, count in enumerate(counts) for _ in range(count)]
    pool = Pool([np.array([n]) for n in range(len(sources))], [1] * len(sources), 0, 0, sources, block)
    drawn = pool.epoch(1).images
    assert len(set(drawn.tolist())) == len(drawn) == len(pool)
    if len(sources) < block:
        assert len(pool) == len(sources)
        return
    assert len(sources) - len(pool) < block
    pure = sum(len({sources[image] for image in part}) == 1 for part in drawn.reshape(-1, block))
    assert pure >= sum(count // block for count in counts)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=8), st.integers(0, 60), st.integers(1, 60))
def test_the_stream_is_the_same_however_it_is_cut(studies: list[tuple[int, int]], first: int, count: int) -> None:
    ends = np.cumsum([images for images, _ in studies])
    groups = [np.arange(end - images, end) for end, (images, _) in zip(ends, studies, strict=True)]
    pool = Pool(groups, [repeat for _, repeat in studies], seed=3, salt=0)
    together = pool.draw(first, count)
    one_by_one = [pool.draw(first + n, 1) for n in range(count)]
    assert together.images.tolist() == [int(draw.images[0]) for draw in one_by_one]
    assert together.wording.tolist() == [float(draw.wording[0]) for draw in one_by_one]
    epoch = pool.epoch(5)
    seen = np.searchsorted(ends, epoch.images, side="right")
    assert np.bincount(seen, minlength=len(studies)).tolist() == [repeat for _, repeat in studies]


# ---- augmentation ----------------------------------------------------------------------------------------------------------------


def views(pictures: np.ndarray, size: int, seed: int = 0, **keys: object) -> torch.Tensor:
    return augment(torch.from_numpy(pictures), Augmentation.model_validate(keys), size, torch.Generator().manual_seed(seed))


PICTURES = np.stack([smooth(seed, 144) for seed in range(6)])


def test_nothing_to_draw_is_what_evaluation_does() -> None:
    evaluated = np.stack([resized(picture, 112, "squash") for picture in PICTURES])
    seen = views(PICTURES, 112)
    assert seen.shape == (6, 1, 112, 112) and seen.dtype == torch.float32
    assert np.abs(seen[:, 0].numpy() * 255 - evaluated).max() < 3
    assert np.abs(seen[:, 0].numpy() * 255 - evaluated).mean() < 0.5
    same = views(PICTURES, 144)
    assert np.array_equal((same[:, 0] * 255).round().numpy().astype(np.uint8), PICTURES)


def test_the_widest_crop_without_a_turn_is_what_evaluation_does_too() -> None:
    seen = views(PICTURES, 112, scale=(1.0, 1.0), rotate=1e-9)
    assert (seen - views(PICTURES, 112)).abs().mean() < 2 / 255


@given(st.integers(0, 1000))
def test_views_are_finite_in_range_and_drawn_by_the_generator(seed: int) -> None:
    keys = {"scale": (0.5, 1.0), "aspect": 1.2, "rotate": 15, "contrast": 0.4, "flip": True}
    seen = views(PICTURES, 32, seed, **keys)
    assert seen.shape == (6, 1, 32, 32)
    assert torch.isfinite(seen).all() and seen.min() >= 0 and seen.max() <= 1
    assert torch.equal(seen, views(PICTURES, 32, seed, **keys))
    assert not torch.equal(seen, views(PICTURES, 32, seed + 1, **keys))


def test_a_crop_shows_a_part_of_the_picture_at_the_promised_scale() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 128).astype(np.uint8), (64, 128, 128))
    seen = views(np.ascontiguousarray(ramp), 64, scale=(0.5, 0.5))
    spans = (seen[:, 0, 0, -1] - seen[:, 0, 0, 0]) * 255
    assert ((spans - 0.5 * 255 * 63 / 64).abs() < 3).all()
    assert seen[:, 0, 0, 0].std() > 0.05  # from different places


def test_a_turn_moves_what_is_not_round_and_keeps_what_is() -> None:
    rows, columns = np.mgrid[:129, :129] - 64
    disc = np.clip(255 * (40 - np.hypot(rows, columns)) / 4 + 128, 0, 255).astype(np.uint8)
    bar = np.where(np.abs(rows) < 6, disc, 0).astype(np.uint8)
    turned = views(np.stack([disc, bar]), 129, rotate=45)[:, 0]
    moved = (turned - torch.from_numpy(np.stack([disc, bar])) / 255).abs()
    assert moved[0].max() < 0.1
    assert moved[1].max() > 0.9
    assert abs(turned[1].sum() / (bar / 255).sum() - 1) < 0.02  # neither stretched nor shrunk


def test_left_stays_left_unless_flip_is_asked_for() -> None:
    half = np.zeros((40, 64, 64), np.uint8)
    half[:, :, :32] = 200
    kept = views(half, 32, scale=(0.9, 1.0), rotate=5)
    assert (kept[:, 0, :, :8].mean((1, 2)) > kept[:, 0, :, -8:].mean((1, 2))).all()
    flipped = views(half, 32, scale=(0.9, 1.0), flip=True)
    share = (flipped[:, 0, :, :8].mean((1, 2)) < flipped[:, 0, :, -8:].mean((1, 2))).float().mean()
    assert 0.2 < share < 0.8


def test_a_fine_pattern_does_not_alias_when_pictures_are_much_larger_than_views() -> None:
    stripes = np.zeros((2, 256, 256), np.uint8)
    stripes[:, :, ::2] = 255
    for keys in ({}, {"scale": (0.9, 1.0)}, {"rotate": 5.0}):
        assert views(stripes, 64, **keys)[:, :, 8:-8, 8:-8].std() < 0.1


def test_contrast_keeps_the_mean_close() -> None:
    seen, plain = views(PICTURES, 112, contrast=0.2), views(PICTURES, 112)
    assert not torch.equal(seen, plain)
    assert ((seen - plain).abs().mean((1, 2, 3)) < 0.3).all()


def test_the_training_path_imports_neither_tables_nor_dicom() -> None:
    import subprocess
    import sys

    code = (
        "import sys, engine.data.batches, engine.data.store, engine.data.texts\n"
        "print([name for name in ('polars', 'pydantic', 'pydicom', 'imagecodecs', 'spacy') if name in sys.modules])"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
