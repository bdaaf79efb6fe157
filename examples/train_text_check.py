"""Train what engine/dicom/burned.py ships: whether a window of a picture holds a line of text.

    python examples/train_text_check.py MANIFEST.csv --seen examples/text_in_pictures.csv --out engine/dicom/burned_in_text.npz

MANIFEST.csv has the columns `file` (PNG or JPEG, relative to the table), `set` and `patient_id`. Pictures are public radiographs; text is
drawn into them as `burnt` does, lone markers as `marked` does. SEEN.csv (columns `file`, `text`: yes, no or unsure) names the pictures in
which an eye saw text: they are no example of a picture without. By a hash of the patient one half trains, the other is left for
tests/benchmarks/dicom_burned_in.py. Takes about two minutes on one core; the seed is fixed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from pathlib import Path

import numpy as np
import torch
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from engine.dicom.burned_in_text import CELL, SEARCHED_SIDE, candidates

CHILDREN, CHILDREN_KEPT, ADULT_COPIES = "kermany-224", 700, 2
"""Of the set of children, which is much the largest, so many pictures; of all others each one so many times."""
HIDDEN, EPOCHS, BATCH = 40, 12, 256
ALARM = 1.0
"""Added to the level at which the training holds both answers for equally likely: fewer false alarms, chosen with the figures in view."""
FACES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "STIXGeneral", "cmr10", "")
"""Fonts of matplotlib; "" is Pillow's own."""
NAMES = (
    "SMITH",
    "JONES",
    "GARCIA",
    "MUELLER",
    "NGUYEN",
    "KOWALSKI",
    "ROSSI",
    "TANAKA",
    "OKAFOR",
    "IVANOV",
    "Meyer",
    "Dubois",
    "Larsen",
    "Silva",
    "Kim",
)
FIRST = ("JOHN", "MARY", "ANNA", "Peter", "LI", "Maria", "JOSE", "Hans", "EVA", "AHMED")
PLACES = ("ST. MARY HOSPITAL", "CITY GENERAL HOSP", "Univ. Clinic Radiology", "RADIOLOGY DEPT 2", "Mercy Medical Center", "CHU NORD")
MARKERS = ("L", "R", "AP", "PA", "R.", "LK", "RM", "3", "(L)")
STYLES = {"white": 0.45, "black box": 0.2, "white box": 0.05, "grey": 0.2, "outlined": 0.1}
Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


def is_left_for_measuring(patient: str) -> bool:
    """The split of tests/benchmarks/dicom_burned_in.py."""
    return int(hashlib.sha256(f"words:{patient}".encode()).hexdigest(), 16) % 2 == 1


def line(rng: np.random.Generator) -> str:
    """A made-up name, date, number, or place."""

    def digits(many: int) -> str:
        return "".join(str(digit) for digit in rng.integers(0, 10, many))

    last, first, place = (str(rng.choice(words)) for words in (NAMES, FIRST, PLACES))
    kinds = (
        f"{last}^{first}",
        f"{last}, {first}",
        f"{digits(2)}/{digits(2)}/19{digits(2)}",
        f"ID: {digits(7)}",
        place,
        f"20{digits(2)}-{digits(2)}-{digits(2)} {digits(2)}:{digits(2)}",
        f"Acc {digits(8)} {rng.choice(['M', 'F'])} {digits(2)}Y",
    )
    return kinds[rng.integers(len(kinds))]


def drawn(lines: list[str], face: str, capital: float, fine: int, smooth: bool) -> Floats:
    """Ink in [0, 1] (h, w) of lines whose capitals are `capital` pixels high; drawn `fine` times as large, then averaged."""
    size = capital * fine / 0.72
    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf" / f"{face}.ttf"), size) if face else ImageFont.load_default(size)
    pitch = round(capital * fine * 1.75)
    wide = int(max(font.getbbox(text)[2] for text in lines)) + 8 * fine
    sheet = Image.new("L", (wide // fine * fine + fine, (pitch * len(lines) // fine + 2) * fine), 0)
    pen = ImageDraw.Draw(sheet)
    pen.fontmode = "L" if smooth else "1"
    for number, text in enumerate(lines):
        pen.text((3 * fine, number * pitch), text, fill=255, font=font)
    ink = np.asarray(sheet, np.float32) / 255
    return np.asarray(ink.reshape(ink.shape[0] // fine, fine, -1, fine).mean((1, 3)), np.float32)


def burnt(picture: Grey, rng: np.random.Generator, capital: float, many: int) -> tuple[Grey, tuple[int, int, int, int]] | None:
    """A copy with `many` lines of text, and where they are (top, left, height, width); None where they do not fit.

    Corners and edges four times as often as elsewhere; white, in a black or a white box, grey, or outlined; smooth or not.
    """
    rows, columns = picture.shape
    for _ in range(20):
        ink = drawn([line(rng) for _ in range(many)], str(rng.choice(FACES)), capital, int(rng.choice([1, 4])), bool(rng.integers(2)))
        high, wide = ink.shape
        if high < rows and wide < columns:
            break
    else:
        return None
    margin = int(0.02 * columns)
    tops, lefts = ((margin, side - own - margin, int(rng.integers(0, side - own))) for side, own in ((rows, high), (columns, wide)))
    top = min(max(tops[rng.choice(3, p=[0.4, 0.4, 0.2])], 0), rows - high)
    left = min(max(lefts[rng.choice(3, p=[0.4, 0.4, 0.2])], 0), columns - wide)
    result = picture.astype(np.float32)
    under = result[top : top + high, left : left + wide]
    style = str(rng.choice(list(STYLES), p=list(STYLES.values())))
    if style == "black box":
        under[:] = 0
    elif style == "white box":
        under[:] = 255
    elif style == "outlined":
        halo = ink
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            halo = np.maximum(halo, np.roll(halo, step, axis))
        under *= 1 - halo
    shade = 0.0 if style == "white box" else 255.0
    if style == "grey":
        middle, contrast = float(np.median(under)), rng.choice([-1, 1]) * rng.uniform(60, 110)
        shade = middle + contrast if 0 <= middle + contrast <= 255 else middle - contrast
    under[:] = under * (1 - ink) + shade * ink
    return np.rint(np.clip(result, 0, 255)).astype(np.uint8), (top, left, high, wide)


def marked(picture: Grey, rng: np.random.Generator) -> Grey:
    """A copy with a lone marker of one or two letters, upright or askew, in a ring or not."""
    ink = drawn([str(rng.choice(MARKERS))], str(rng.choice(FACES)), rng.uniform(6, 34), 4, True)
    sheet = Image.fromarray(np.rint(255 * ink).astype(np.uint8))
    if rng.random() < 0.3:
        side = max(sheet.size) + 8
        ring = Image.new("L", (side, side), 0)
        ring.paste(sheet, ((side - sheet.width) // 2, (side - sheet.height) // 2))
        ImageDraw.Draw(ring).ellipse((1, 1, side - 2, side - 2), outline=255)
        sheet = ring
    if rng.random() < 0.5:
        sheet = sheet.rotate(rng.uniform(-40, 40), expand=True, resample=Image.Resampling.BILINEAR)
    ink = np.asarray(sheet, np.float32) / 255
    (rows, columns), (high, wide) = picture.shape, ink.shape
    if high >= rows or wide >= columns:
        return picture
    top, left = int(rng.integers(0, rows - high)), int(rng.integers(0, columns - wide))
    result = picture.astype(np.float32)
    under = result[top : top + high, left : left + wide]
    under[:] = under * (1 - ink) + rng.uniform(180, 255) * ink
    return np.rint(np.clip(result, 0, 255)).astype(np.uint8)


def loaded(path: Path) -> Grey:
    """A grey picture (H, W)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def enlarged(picture: Grey, side: int, rng: np.random.Generator) -> Grey:
    """The picture with a shorter side of `side` pixels and a little noise, as a large radiograph looks once it was averaged down."""
    scale = side / min(picture.shape)
    sheet = Image.fromarray(picture).resize((round(picture.shape[1] * scale), round(picture.shape[0] * scale)), Image.Resampling.BICUBIC)
    grainy = np.asarray(sheet, np.float32) + rng.normal(0, rng.uniform(0.5, 3), (sheet.height, sheet.width))
    return np.rint(np.clip(grainy, 0, 255)).astype(np.uint8)


def examples_of(picture: Grey, rng: np.random.Generator) -> tuple[list[Floats], list[Floats]]:
    """Windows (N, 330) of a picture without text, in one of its forms, and answers (N,); then those that lie in text drawn into it."""
    form = picture if rng.random() < 0.35 else enlarged(picture, int(rng.integers(SEARCHED_SIDE, 700)), rng)
    form = form[:, ::-1] if rng.random() < 0.5 else form
    form = 255 - form if rng.random() < 0.2 else form
    form = marked(form, rng) if rng.random() < 0.5 else form
    plain, _ = candidates(form, 255.0)
    windows, answers = [plain], [np.zeros(len(plain), np.float32)]
    least, most = (3.6, 14.0) if min(form.shape) < 400 else (4.0 * min(form.shape) / 512, 26.0 * min(form.shape) / 512)
    with_text = burnt(form, rng, float(np.exp(rng.uniform(np.log(least), np.log(most)))), int(rng.choice([1, 1, 2, 3, 4, 6])))
    if with_text is not None:
        form, (top, left, high, wide) = with_text
        found, centres = candidates(form, 255.0)
        y, x = centres[:, 0] * CELL[0] + CELL[0] // 2, centres[:, 1] * CELL[1] + CELL[1] // 2
        inside = (y >= top - 2) & (y <= top + high + 2) & (x >= left + 8) & (x <= left + wide - 8)
        windows.append(found[inside])
        answers.append(np.ones(int(inside.sum()), np.float32))
    return windows, answers


def main() -> None:
    """Draw, train, write."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("manifest", type=Path)
    arguments.add_argument("--seen", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    with given.seen.open(encoding="utf-8", newline="") as file:
        with_text = {row["file"] for row in csv.DictReader(file) if row["text"] != "no"}
    with given.manifest.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not is_left_for_measuring(row["patient_id"]) and row["file"] not in with_text]
    children = [row for row in rows if row["set"] == CHILDREN]
    chosen = [children[place] for place in rng.permutation(len(children))[:CHILDREN_KEPT]]
    chosen += [row for row in rows if row["set"] != CHILDREN for _ in range(ADULT_COPIES)]
    windows: list[Floats] = []
    answers: list[Floats] = []
    for row in chosen:
        picture = loaded(given.manifest.parent / row["file"])
        for _ in range(2):
            more, said = examples_of(picture, rng)
            windows += more
            answers += said
    seen, truth = torch.from_numpy(np.concatenate(windows)), torch.from_numpy(np.concatenate(answers))
    weight = (1 - truth.mean()) / truth.mean()
    hidden, out = torch.nn.Linear(seen.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 1)
    optimizer = torch.optim.AdamW([*hidden.parameters(), *out.parameters()], 2e-3, weight_decay=1e-2)
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - epoch / EPOCHS)
        total = 0.0
        for batch in torch.randperm(len(seen)).split(BATCH):
            noisy = seen[batch] + 0.03 * torch.randn(len(batch), seen.shape[1])
            answer = out(torch.relu(hidden(noisy)))[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(answer, truth[batch], pos_weight=weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        print(f"epoch {epoch + 1}: loss {total / len(seen):.4f} over {len(seen)} windows of {len(chosen)} pictures")
    arrays = {"hidden": hidden.weight, "bias": hidden.bias, "out": out.weight[0]}
    half = {name: values.detach().numpy().astype(np.float16) for name, values in arrays.items()}
    np.savez(given.out, **half, alarm=np.float32(ALARM - float(out.bias.detach())))


if __name__ == "__main__":
    main()
