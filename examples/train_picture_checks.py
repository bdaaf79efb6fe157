"""Train what engine/dicom/likeness.py ships: chests as a space of few dimensions, and which of eight ways to hang a picture is upright.

    python examples/train_picture_checks.py MANIFEST.csv --out engine/dicom/likeness.npz

MANIFEST.csv has the columns `file` (PNG or JPEG, relative to the table), `set`, `patient_id`, `view` and `license`. Only rows of the sets
named in SETS are used: children of Kermany et al. (CC BY 4.0) and adults of NIH ChestX-ray14 (free use with attribution), each group with
half of the weight in the space of chests. By a hash of the patient six tenths train, two tenths choose the thresholds and two tenths are
left for tests/benchmarks/dicom_picture_checks.py. Takes about two minutes on two cores; the seed is fixed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from engine.dicom.likeness import Likeness, eight_ways, look_of, small_copy
from engine.dicom.reader import read_file

SETS = {"kermany-224": 3, "nih14-subset": 24}
"""Set -> copies of each of its pictures: adults are few."""
AXES, HIDDEN, EPOCHS, BATCH = 40, 24, 8, 128
FALSE_ALARMS = {"strange": 0.002, "turned": 0.003, "mirrored": 0.003}
"""Shares of the pictures that thresholds are chosen on: below the 0.5 % that is aimed at, as other sets alarm
two to four times as often."""


def part_of(patient: str) -> str:
    """'train', 'thresholds' or 'measure': tests/benchmarks/dicom_picture_checks.py splits by the same hash."""
    place = int(hashlib.sha256(f"picture checks:{patient}".encode()).hexdigest(), 16) % 10
    return "train" if place < 6 else "thresholds" if place < 8 else "measure"


def varied(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """A small copy of the picture tilted a little, cropped, with black borders, lighter or darker, with bars as of text burned in."""
    if rng.random() < 0.5:
        picture = ndimage.rotate(picture, rng.uniform(-8, 8), reshape=False, order=1, mode="nearest")
    height, width = (int(side * rng.uniform(0.82, 1)) for side in picture.shape)
    top, left = (int(rng.integers(0, full - kept + 1)) for full, kept in zip(picture.shape, (height, width), strict=True))
    picture = picture[top : top + height, left : left + width]
    if rng.random() < 0.3:
        borders = [[int(rng.uniform(0, 0.12) * side * (rng.random() < 0.5)) for _ in range(2)] for side in picture.shape]
        picture = np.pad(picture, borders)
    picture = np.rint(255 * (picture / 255.0) ** rng.uniform(0.6, 1.6)).astype(np.uint8)
    for _ in range(int(rng.integers(1, 3)) if rng.random() < 0.35 else 0):
        tall, wide = (int(side * rng.uniform(0.03, most)) for side, most in zip(picture.shape, (0.16, 0.7), strict=True))
        top, left = (int(rng.integers(0, side - own)) for side, own in zip(picture.shape, (tall, wide), strict=True))
        text = rng.choice([0, 255], (tall, wide), p=(share := rng.choice([0.0, 0.5, 1.0]), 1 - share))
        picture[top : top + tall, left : left + wide] = text
    return small_copy(picture)


def space_of(pictures: NDArray[np.float32], weights: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Probabilistic PCA of pictures (N, 1024) with weights (N,) that add up to 1."""
    mean = weights @ pictures
    moved = pictures - mean
    variance, axes = np.linalg.eigh((moved * weights[:, None]).T @ moved)
    largest = slice(None, -AXES - 1, -1)
    return {"mean": mean, "axes": axes[:, largest].T, "variance": variance[largest], "rest": np.maximum(variance[:-AXES], 0).mean()}


def uprightness_of(pictures: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """A linear score and a hidden layer, shared by the eight ways, so that softmax over them picks the upright one."""
    torch.manual_seed(0)
    line, hidden, out = torch.nn.Linear(1024, 1, bias=False), torch.nn.Linear(1024, HIDDEN), torch.nn.Linear(HIDDEN, 1, bias=False)
    torch.nn.init.zeros_(line.weight)
    parameters = [*line.parameters(), *hidden.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.05)
    batches = len(pictures) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(pictures))[: batches * BATCH].view(-1, BATCH):
            ways = torch.from_numpy(eight_ways(pictures[batch.numpy()].reshape(-1, 32, 32)).reshape(BATCH, 8, -1))
            scores = line(ways)[..., 0] / 10 + out(torch.relu(hidden(ways)))[..., 0]
            loss = torch.nn.functional.cross_entropy(scores, torch.zeros(BATCH, dtype=torch.long), label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    return {
        "line": line.weight.detach().numpy()[0] / 10,
        "hidden": hidden.weight.detach().numpy(),
        "bias": hidden.bias.detach().numpy(),
        "out": out.weight.detach().numpy()[0],
    }


def rounded(arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Large arrays as float16: half of the file, and thresholds are chosen on what is stored."""
    return {name: np.asarray(value, np.float16 if np.ndim(value) == 2 else np.float32) for name, value in arrays.items()}


def main() -> None:
    """Read, train, choose thresholds, write."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    rng = np.random.default_rng(0)
    copies: list[NDArray[np.float32]] = []
    sources: list[str] = []
    others: list[NDArray[np.uint8]] = []
    with given.manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] in SETS and part_of(row["patient_id"]) != "measure"]
    for row in rows:
        picture = read_file(given.manifest.parent / row["file"], size=96, pictures=True).picture
        if picture is None:
            continue
        if part_of(row["patient_id"]) == "thresholds":
            others.append(picture)
            continue
        number = SETS[row["set"]]
        copies += [small_copy(picture)] + [varied(picture, rng) for _ in range(number - 1)]
        sources += [row["set"]] * number
    print(f"{len(copies)} copies to learn from, {len(others)} pictures to choose thresholds on", flush=True)
    pictures = np.stack(copies).reshape(len(copies), -1)
    counts = {name: sources.count(name) for name in SETS}
    weights = np.array([1 / (len(SETS) * counts[name]) for name in sources], np.float32)
    arrays = rounded(space_of(pictures, weights) | uprightness_of(pictures))
    plain = {name: value.astype(np.float32) if value.ndim else float(value) for name, value in arrays.items()}
    likeness = Likeness(**plain, strange=np.inf, turned=1.0, mirrored=1.0)  # type: ignore[arg-type]
    looks = [look_of(picture, likeness) for picture in others]
    for name, attribute in (("strange", "strangeness"), ("turned", "turned"), ("mirrored", "mirrored")):
        values = sorted((float(getattr(look, attribute)) for look in looks), reverse=True)
        threshold = values[int(FALSE_ALARMS[name] * len(values))]  # as many lie above it
        arrays[name] = np.array(threshold if name == "strange" else max(threshold, 0.5), np.float32)
        print(f"{name}: alarm above {float(arrays[name]):.4f}")
    np.savez(given.out, **arrays)


if __name__ == "__main__":
    main()
