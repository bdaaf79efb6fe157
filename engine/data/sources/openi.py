"""Indiana University's chest radiographs (Open-i) as published -> the image table.

Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution and retrieval", JAMIA 23 (2016).

    root/ecgen-radiology/1.xml       a report: AbstractText of FINDINGS and IMPRESSION, and a parentImage for each image
    root/**/CXR1_1_IM-0001-3001.png  images, in any folder below: PNG, or DICOM as <id>.dcm or CXR1/1_IM-0001-3001.dcm

Which view an image shows is not in the reports. `views: first` takes the first image that a report names, which is the
frontal one where a report names two; what comes after it is dropped as `view_unknown`. `views: all` takes every image; in both cases
a DICOM file whose own header says lateral is rejected when it is read. A report represents its own patient: nothing
says which reports share one.

What is read of a report is its impression, else its findings; words masked as XXXX are taken out.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from engine.data.reports import clean, first_section
from engine.data.sources.image_table import COLUMNS, LFS_POINTER, ImageTable, drops, facts_of
from engine.data.sources.published import OPENI_REPORTS
from engine.errors import ReadError
from engine.recipe.sources import OpeniSource

_SUFFIXES = frozenset({".png", ".dcm", ".jpg", ".jpeg"})


def read_openi(source: OpeniSource) -> ImageTable:
    """The images that reports name, with what the reports say.

    Raises:
        ReadError: a report is a Git-LFS pointer, or the folder of reports cannot be read.
    """
    root = Path(source.root).absolute()
    pictures = _pictures(root)
    kept: list[dict[str, Any]] = []
    dropped: list[tuple[str, str]] = []
    counts = {"with_text": 0, "empty": 0, "without_image": 0}
    for path in sorted((root / OPENI_REPORTS).glob("*.xml"), key=_by_number):
        try:
            uid, images, text = parse_report(path.read_bytes())
        except (ElementTree.ParseError, OSError):
            dropped.append((str(path), "report_damaged"))
            continue
        counts["with_text" if text else "empty"] += 1
        counts["without_image"] += not images
        uid = uid or path.stem
        key = f"report:{hashlib.sha256(text.encode()).hexdigest()[:16]}" if text else ""
        for number, image in enumerate(images):
            file = pictures.get(image)
            if number and source.views == "first":
                dropped.append((str(file or image), "view_unknown"))
            elif file is None:
                dropped.append((image, "file_missing"))
            else:
                names = {"study": f"{source.name}:{uid}", "patient": f"{source.name}:{uid}", "report_key": key, "report_group": key}
                kept.append({"image": image, "file": str(file), "report": text, "paired": bool(text), **names})
    columns = {
        "view": "",
        "split": "",
        "sex": "",
        "age": None,
        "held_out": False,
        "source": source.name,
        "repeat": source.repeat,
    }
    frame = pl.DataFrame([{**columns, **row} for row in kept], schema=COLUMNS, orient="row")
    again = frame["image"].is_duplicated() & ~frame["image"].is_first_distinct()
    dropped += [(file, "duplicate_image") for file in frame.filter(again)["file"]]
    frame, gone = frame.filter(~again), drops(dropped)
    bank: dict[str, tuple[str, ...]] = {key: (text,) for key, text in frame.select("report_key", "report").iter_rows() if key}
    return ImageTable(frame, gone, (), bank, facts_of(source.name, frame, (), gone, texts=len(bank)) | {"reports": counts})


def parse_report(xml: bytes) -> tuple[str, tuple[str, ...], str]:
    """(uid, ids of the images in their order, cleaned text) of one report; the text is "" where neither section says anything.

    Raises:
        ElementTree.ParseError: it is no XML.
        ReadError: it is a Git-LFS pointer.
    """
    if xml.lstrip().startswith(LFS_POINTER.encode()):
        raise ReadError("a report is a Git-LFS pointer, not a text", hint="git lfs pull in the folder of the reports")
    tree = ElementTree.fromstring(xml)
    parts: dict[str, str] = {}
    for part in tree.iter("AbstractText"):
        parts.setdefault(part.get("Label", "").upper(), clean("".join(part.itertext())))
    uid = tree.find("uId")
    images = tuple(dict.fromkeys(image.get("id", "") for image in tree.iter("parentImage") if image.get("id")))
    return "" if uid is None else uid.get("id", ""), images, first_section(parts, ("IMPRESSION", "FINDINGS")).text


def _pictures(root: Path) -> dict[str, Path]:
    """Id -> image, of all images below the folder; a PNG goes before a DICOM file of the same id."""
    found: dict[str, Path] = {}
    for path in sorted(_files(root), key=lambda path: (path.suffix.lower() != ".png", path)):
        found.setdefault(path.stem, path)
        found.setdefault(f"{path.parent.name}_{path.stem}", path)
    return found


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names if os.path.splitext(name)[1].lower() in _SUFFIXES)  # noqa: PTH122 - a hot loop


def _by_number(path: Path) -> tuple[int, str]:
    """Reports in the order of their numbers: 2.xml before 10.xml."""
    digits = re.sub(r"\D", "", path.stem)
    return int(digits or 0), path.name
