"""What train_picture_checks.py learns from beside real radiographs: radiographs computed from a chest CT, and pictures of other things.

All are squares of 128 x 128 float32 in [0, 1], bone bright, as `square_of` makes them from any picture.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE = 128
Square = NDArray[np.float32]
_DOWN, _RIGHT = np.mgrid[0:SIDE, 0:SIDE] / SIDE


def square_of(picture: NDArray[np.generic]) -> Square:
    """Means of a grey picture (H, W) on 128 x 128 fields, its sides squashed to one length; interpolated where it is smaller."""
    grey = picture.astype(np.float32)
    if min(grey.shape) < SIDE:
        wanted = tuple(max(SIDE, side) / side for side in grey.shape)
        grey = ndimage.zoom(grey, wanted, order=1, grid_mode=True, mode="nearest")
    rows, columns = (np.linspace(0, side, SIDE + 1).astype(int) for side in grey.shape)
    sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], 0), columns[:-1], 1)
    return stretched(sums / np.outer(np.diff(rows), np.diff(columns)))


def stretched(square: NDArray[np.generic]) -> Square:
    """The grey values between the percentiles 0.5 and 99.5 spread over [0, 1]."""
    low, high = np.percentile(square, (0.5, 99.5))
    return np.asarray(np.clip((square - low) / max(high - low, 1e-6), 0, 1), np.float32)


def read_ct(path: Path, step: float = 3.2) -> NDArray[np.float32]:
    """Hounsfield units (down, front to back, right to left) of a NIfTI-1 file (.nii.gz), voxels of `step` mm, -1000 outside of the body."""
    with gzip.open(path) as file:
        data = file.read()
    columns, rows, slices = (int(n) for n in np.frombuffer(data, "<i2", 3, 42))
    across, deep, up = np.frombuffer(data, "<f4", 3, 80)
    start, slope, intercept = np.frombuffer(data, "<f4", 3, 108)
    stored = np.frombuffer(data, "<i2", slices * rows * columns, int(start)).reshape(slices, rows, columns)
    ct = ndimage.zoom(stored.astype(np.float32) * slope + intercept, (up / step, deep / step, across / step), order=1)[::-1]
    for level in ct:
        parts, number = ndimage.label(ndimage.binary_opening(level > -400, iterations=2))
        sizes = np.bincount(parts.ravel(), minlength=number + 1)
        body = ndimage.binary_fill_holes(parts == 1 + sizes[1:].argmax()) if number else np.zeros(level.shape, bool)
        level[~ndimage.binary_dilation(body, iterations=2)] = -1000  # the table, and the air around
    return np.clip(ct, -1000, 2000)


def radiograph_of(ct: NDArray[np.float32], angle: float, rng: np.random.Generator) -> Square:
    """The CT's body turned by `angle` degrees about its long axis (0: frontal, 90 and 270: lateral), projected, as one of many bodies.

    Its size in three directions, its tilt, the densities of its lungs, soft parts and bones, the field and the exposure are drawn.
    """
    density = np.clip((ct + 1000) / 1000, 0, None)
    lung, soft, bone = rng.uniform(0.7, 1.5), rng.uniform(0.75, 1.25), rng.uniform(0.8, 2.2)
    density = np.where(density > 1.15, 1.15 + (density - 1.15) * bone, density * np.where(density > 0.6, soft, lung))
    a, t = np.deg2rad(angle), np.deg2rad(rng.uniform(-6, 6))
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    tilt = np.array([[np.cos(t), 0, -np.sin(t)], [0, 1, 0], [np.sin(t), 0, np.cos(t)]])
    matrix = np.diag(1 / rng.uniform((0.9, 0.8, 0.88), (1.1, 1.2, 1.12))) @ turn @ tilt
    centre = (np.array(density.shape) - 1) / 2
    shadow = ndimage.affine_transform(density, matrix, centre - matrix @ centre, order=1).sum(1)
    wide = np.flatnonzero(shadow.max(0) > 0.15 * shadow.max())
    left, right = (int(rng.uniform(-0.08, 0.08) * len(wide)) for _ in range(2))
    top, bottom = (int(len(shadow) * rng.uniform(*share)) for share in ((0, 0.08), (0.68, 0.98)))
    shadow = shadow[top:bottom, max(wide[0] - left, 0) : wide[-1] + 1 + right]
    exposure = rng.uniform(-1.5, 2)
    return stretched((1 - np.exp(-exposure * square_of(shadow))) / exposure)


def ct_picture(ct: NDArray[np.float32], rng: np.random.Generator) -> Square:
    """A slice of the CT in one of three planes and five windows, or a slab seen from above, or the belly alone."""
    kind = rng.integers(5)
    if kind == 0:
        density = (ct + 1000) / 1000
        if rng.random() < 0.5:
            top = int(rng.integers(0, len(ct) - 15))
            return square_of(density[top : int(rng.integers(top + 15, len(ct) + 1))].sum(0))
        belly = density[int(len(ct) * rng.uniform(0.66, 0.75)) :]
        return square_of(ndimage.rotate(belly, rng.uniform(0, 180), axes=(1, 2), reshape=False, order=1).sum(1))
    axis = int(rng.integers(3))
    level = np.take(ct, int(ct.shape[axis] * rng.uniform(0.15, 0.85)), axis)
    centre, width = ((-600, 1500), (40, 400), (40, 900), (300, 1500), (-200, 2000))[rng.integers(5)]
    window = np.clip((level - centre) / width + 0.5, 0, 1)
    rows, columns = (np.flatnonzero((level > -900).any(side)) for side in (1, 0))
    if rng.random() < 0.6 and min(len(rows), len(columns)) > 20:
        window = window[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return square_of(window)


def part_of(picture: NDArray[np.generic], rng: np.random.Generator, least: float, most: float) -> Square:
    """A part of the picture whose sides are these shares of its own."""
    height, width = (max(8, int(side * rng.uniform(least, most))) for side in picture.shape)
    top, left = (int(rng.integers(0, side - own + 1)) for side, own in zip(picture.shape, (height, width), strict=True))
    return square_of(picture[top : top + height, left : left + width])


def in_disorder(square: Square, rng: np.random.Generator) -> Square:
    """The square cut into 4, 16 or 64 pieces that are laid out anew."""
    number = int(rng.choice([2, 4, 8]))
    pieces = square.reshape(number, SIDE // number, number, SIDE // number).swapaxes(1, 2).reshape(number**2, SIDE // number, -1)
    order = rng.permutation(number**2)
    laid = pieces[order if (order != np.arange(number**2)).any() else order[::-1]]
    return laid.reshape(number, number, SIDE // number, -1).swapaxes(1, 2).reshape(SIDE, SIDE)


def limb(rng: np.random.Generator) -> Square:
    """Shafts of bone in soft tissue (long bones, a hand, scattered pieces), or shells (a skull, a pelvis, a breast), drawn."""
    canvas, kind = np.zeros((SIDE, SIDE)), rng.integers(4)
    if kind == 0:
        for _ in range(rng.integers(1, 4)):
            ends = (rng.uniform(-0.1, 0.3), rng.uniform(0.2, 0.8)), (rng.uniform(0.7, 1.1), rng.uniform(0.2, 0.8))
            canvas += rng.uniform(0.5, 1.2) * _shaft(*ends, rng.uniform(0.04, 0.15), rng.uniform(0.3, 1))
    elif kind == 1:
        y, x = rng.uniform(0.6, 0.85), rng.uniform(0.35, 0.65)
        for finger in np.linspace(-0.9, 0.9, rng.integers(4, 6)):
            long, turned = rng.uniform(0.5, 0.65), finger * rng.uniform(0.5, 0.9)
            tip = (y - long * np.cos(turned), x + finger * 0.12 + long * np.sin(turned))
            canvas += _shaft((y, x + finger * 0.1), tip, rng.uniform(0.02, 0.04), rng.uniform(0.3, 1))
        canvas += _shaft((y, x), (1.1, x), rng.uniform(0.06, 0.1), 0.6)
    elif kind == 2:
        for _ in range(rng.integers(1, 4)):
            radius = np.hypot(
                (_DOWN - rng.uniform(0.2, 0.8)) / rng.uniform(0.15, 0.6), (_RIGHT - rng.uniform(0.1, 0.9)) / rng.uniform(0.15, 0.6)
            )
            hollow = rng.uniform(0, 1) * _ball(radius, rng.uniform(0.7, 0.97))
            canvas += rng.uniform(0.4, 1) * np.clip(_ball(radius) - hollow, 0, None)
    else:
        for _ in range(rng.integers(5, 20)):
            (y, x), turned, long = rng.uniform(0, 1, 2), rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.3)
            end = (y + long * np.sin(turned), x + long * np.cos(turned))
            canvas += rng.uniform(0.3, 1) * _shaft((y, x), end, rng.uniform(0.01, 0.06), rng.uniform(0, 1))
    return stretched(canvas + rng.uniform(0, 0.25) * cloud(rng))


def _ball(radius: NDArray[np.float64], size: float = 1.0) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.clip(size**2 - radius**2, 0, None)))


def _shaft(start: tuple[float, float], end: tuple[float, float], width: float, hollow: float) -> NDArray[np.float64]:
    along = np.subtract(end, start)
    place = np.clip(((_DOWN - start[0]) * along[0] + (_RIGHT - start[1]) * along[1]) / (along @ along), 0, 1)
    radius = np.hypot(_DOWN - start[0] - place * along[0], _RIGHT - start[1] - place * along[1]) / width
    return np.asarray(0.5 * _ball(radius / 2.2) + np.clip(_ball(radius) - hollow * _ball(radius, 0.84), 0, None))


def cloud(rng: np.random.Generator) -> Square:
    """Noise whose spectrum falls with a power of the frequency, from white to smooth."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = np.inf
    waves = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
    return stretched(np.fft.irfft2(waves * frequency ** -rng.uniform(0, 3), (SIDE, SIDE)))


def pattern(rng: np.random.Generator) -> Square:
    """Blocks, checks, stripes, a disc, a wedge, rectangles, or lines as of text; sharp or blurred, clean or noisy."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    turn, kind = rng.uniform(0, 2 * np.pi), rng.integers(7)
    grey = np.zeros((SIDE, SIDE))
    if kind == 0:
        grain = 2 ** int(rng.integers(0, 6))
        grey = np.kron(rng.random((SIDE // grain, SIDE // grain)), np.ones((grain, grain)))
    elif kind == 1:
        step = int(rng.integers(4, 40))
        grey = ((x // step + y // step) % 2).astype(float)
    elif kind == 2:
        grey = np.sin((x * np.cos(turn) + y * np.sin(turn)) / rng.uniform(2, 14))
    elif kind == 3:
        centre = rng.uniform(30, 98, 2)
        grey = (np.hypot(y - centre[0], (x - centre[1]) * rng.uniform(0.6, 1.6)) < rng.uniform(12, 70)).astype(float)
    elif kind == 4:
        grey = x * np.cos(turn) + y * np.sin(turn)
    elif kind == 5:
        for _ in range(rng.integers(2, 15)):
            (top, bottom), (left, right) = np.sort(rng.integers(0, SIDE, (2, 2)))
            grey[top : bottom + 1, left : right + 1] = rng.random()
    else:
        for top in range(int(rng.integers(2, 8)), SIDE - 6, int(rng.integers(6, 14))):
            letters = np.repeat(rng.random(SIDE // 2) < rng.uniform(0.3, 0.7), 2) & (np.arange(SIDE) < rng.uniform(40, SIDE))
            grey[top : top + int(rng.integers(2, 6))] = letters
    if rng.random() < 0.5:
        grey = ndimage.gaussian_filter(grey, rng.uniform(0, 6))
    return stretched(stretched(grey) + (rng.random() < 0.4) * rng.uniform(0, 0.3) * rng.random((SIDE, SIDE)))
