"""Whether text is burnt into the pixels of an image: names, dates, numbers, the lines of an institution. A flag, for all to see.

What counts is a line of about four letters or digits and more, whatever it says, for it is not read: PORTABLE and SEMI ERECT are
lines like any name. What does not count is what every radiograph carries and no name fits into: a lone side marker, with the initials
of who took it, an arrow, a word of two letters (AP). Letters of lead that are upright in a row are text as well.

Text is where an image goes up and down again within a few pixels, along rows and down columns, many times side by side, and is quiet
above and below. Steps in both directions and along both axes are counted in cells of 4 x 8 pixels, at half the contrast of faint print
and well above the noise; cells that hold many, with their neighbours, are shown to a small network which examples/train_text_check.py
made. It sees counts, no letters, so neither white on black nor black on white matters, nor the font.
tests/benchmarks/dicom_burned_in.py measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEARCHED_SIDE = 448
"""Shorter side, in pixels, of the image that is looked at where the file has so many: print of 0.8 % of the height is 4 pixels high."""

CELL = (4, 8)
"""Pixels, rows and columns, in which steps are counted."""
WINDOW = (11, 15)
"""Cells around a candidate that the network sees: 44 x 120 pixels, four lines of small print or one of large."""
_RUN, _MANY, _MOST = 4, 16, 64
"""A window is asked where this many cells side by side hold so many steps together (those down the columns count twice), at most so many
windows of an image: with 24 steps every fifth line of large print went unasked."""
_SOME = 4
"""Nothing is asked above or below the lines of cells where four side by side have so many steps along every other row: in the half of the
patients that trained 88 % of the images have such a line, they reach over 36 % of the height, and no text that was found was lost."""
_STEP, _NOISE = 14 / 255, 4.0
"""The least step, as a share of black to white and in medians of the change from pixel to pixel. 10 / 255 found no more, and had twice
the false alarms."""
_GRADE = 0.1
"""Share of black to white: images of 16 greys and more may have steps of one grey everywhere."""
_ONES = np.uint64(0x0101010101010101)
WEIGHTS = Path(__file__).with_name("burned_in_text.npz")


@dataclass(frozen=True, eq=False)
class TextDetector:
    """Learned detector of text in windows of an image: hidden (H, 330), bias (H,), out (H,); text from the score `alarm` on."""

    hidden: NDArray[np.float32]
    bias: NDArray[np.float32]
    out: NDArray[np.float32]
    alarm: float

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) scores of windows (N, 330)."""
        return np.asarray(np.maximum(windows @ self.hidden.T + self.bias, 0) @ self.out, np.float32)


@cache
def shipped() -> TextDetector:
    """The weights in this folder."""
    with np.load(WEIGHTS, allow_pickle=False) as file:
        values = {name: file[name].astype(np.float32) for name in file.files}
    return TextDetector(values["hidden"], values["bias"], values["out"], float(values["alarm"]))


def shows_text(image: NDArray[Any], span: float = 255.0) -> bool:
    """Whether a grey image (H, W) of any numeric type holds a line of text. span: the difference of white and black in its values."""
    words = shipped()
    return text_score(image, span, words) > words.alarm


def text_score(image: NDArray[Any], span: float, words: TextDetector) -> float:
    """The score of the window that looks most like text; -inf where no window has enough steps to be asked."""
    windows = candidates(image, span)[0]
    return float(words.scores(windows).max()) if len(windows) else float("-inf")


def candidates(image: NDArray[Any], span: float) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows of counts (N, 330) in [0, 1] where the image has many steps, at most 64, and their centres (N, 2) in cells."""
    tall, wide = WINDOW
    none = np.zeros((0, 2 * tall * wide), np.float32), np.zeros((0, 2), np.int64)
    rows, columns = image.shape[0] // CELL[0], image.shape[1] // CELL[1]
    if not rows or columns < _RUN + 1:
        return none
    least = least_step(image, abs(span))
    some = _rarer(_along(_rows_of_cells(image, range(1, CELL[0], 2))), least).ravel()  # in lines one after the other
    promising = np.flatnonzero(_runs(some) >= _SOME) // columns
    if not len(promising):
        return none
    first, stop = int(promising[0]) // 2 * 2, min(int(promising[-1]) // 2 * 2 + 2, rows // 2 * 2)  # rows of cells that are asked about
    top, bottom = max(0, first - tall // 2), min(rows, stop + tall // 2)
    along, down = steps(image[CELL[0] * top : CELL[0] * bottom + 1], least)
    both = np.multiply(along + 2 * down, np.minimum(along, down) > 0, dtype=np.uint8)
    runs = _runs(both[first - top : stop - top])
    runs = runs[:, : runs.shape[1] // 2 * 2]
    best = np.maximum(np.maximum(runs[::2, ::2], runs[1::2, ::2]), np.maximum(runs[::2, 1::2], runs[1::2, 1::2])).ravel()
    found = np.flatnonzero(best >= _MANY)
    if not len(found):
        return none
    if len(found) > _MOST:
        found = found[np.argpartition(best[found], -_MOST)[-_MOST:]]
    row, column = np.divmod(found, runs.shape[1] // 2)
    centres = np.stack([first + 2 * row, 2 * column + _RUN // 2], 1)
    padded = np.zeros((2, bottom - top + tall, columns + wide), np.uint8)
    padded[:, tall // 2 : tall // 2 + bottom - top, wide // 2 : wide // 2 + columns] = along, down
    y = centres[:, 0, None] - top + np.arange(tall)
    x = centres[:, 1, None] + np.arange(wide)
    windows = padded[:, y[:, :, None], x[:, None, :]]  # (2, N, tall, wide)
    shares = np.minimum(windows, 12).transpose(1, 0, 2, 3).reshape(len(found), -1) / np.float32(12)
    return shares.astype(np.float32, copy=False), centres


def least_step(image: NDArray[Any], span: float) -> float:
    """The least difference of two pixels side by side that is a step: a share of the span, above the noise, and more than a grey of few.

    Asked of about eight rows of the image.
    """
    some = image[len(image) // 16 :: max(1, len(image) // 8)]
    usual = np.abs(np.subtract(some[:, 1:], some[:, :-1], dtype=np.float32)).ravel()
    usual.partition(usual.size // 2)
    grade = float(usual.min(initial=np.inf, where=usual > 0))  # between two greys of an image of few: noise crosses that
    return max(_STEP * span, _NOISE * float(usual[usual.size // 2]), min(grade, _GRADE * span))


def steps(image: NDArray[Any], least: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Per cell, how often an image (H, W) goes up, or down, whichever is rarer: along the rows, and down the columns.

    least: what a pixel must differ from the next by, and more.
    """
    grey = _rows_of_cells(image, range(CELL[0]))
    down = np.empty_like(grey)
    np.subtract(grey[1:], grey[:-1], out=down[:-1])
    np.subtract(grey[0, 1:], grey[-1, :-1], out=down[-1, :-1])
    down[-1, -1:] = 0
    return _rarer(_along(grey), least), _rarer(down, least)


def _rows_of_cells(image: NDArray[Any], which: range) -> NDArray[np.float32]:
    """Whole cells of an image, some rows of each: (rows of a cell, rows of cells, width). What is added up is in runs of memory then."""
    rows, width = image.shape[0] // CELL[0], image.shape[1] // CELL[1] * CELL[1]
    grey = np.empty((len(which), rows, width), np.float32)
    for place, row in enumerate(which):
        grey[place] = image[row : CELL[0] * rows : CELL[0], :width]
    return grey


def _along(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change to the next pixel. The last of each row steps to the next row: one cell, and no text is that narrow."""
    change, flat = np.empty_like(grey), grey.ravel()
    np.subtract(flat[1:], flat[:-1], out=change.ravel()[:-1])
    change.ravel()[-1:] = 0
    return change


def _rarer(change: NDArray[np.float32], least: float) -> NDArray[np.uint8]:
    """Per cell how many changes (rows of a cell, R, 8 * C) are more than `least`, or less than -least, whichever are fewer: (R, C)."""
    return np.minimum(_counted(change > least), _counted(change < -least))


def _counted(marks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How many of each cell are True. Eight bytes are added as one number: no cell holds more than 32."""
    summed = np.add.reduce(marks.view(np.uint64))
    counts: NDArray[np.uint8] = ((summed * _ONES) >> np.uint64(56)).astype(np.uint8)
    return counts


def _runs(counts: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sums of _RUN = 4 cells side by side, (..., C) -> (..., C - 3); of `along + 2 * down`, 48 at most, so that a byte holds them."""
    pairs = counts[..., :-1] + counts[..., 1:]
    runs: NDArray[np.uint8] = pairs[..., :-2] + pairs[..., 2:]
    return runs
