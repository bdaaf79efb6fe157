"""Run `mmclip score` over inputs as public bug reports describe them and compare with what is expected; exits 1 on a difference.

    python tests/benchmarks/field_cases.py FOLDER_OR_ARCHIVE [--model tiny] [--only TEXT]

FOLDER_OR_ARCHIVE, a folder or a tar archive, holds the DICOM files named in FILES and a folder `labels` with the tables named in LABELS.
FILES are scored in one run. A file that is `like` another has the scores of that one, within `tolerance`. A file that is `not_in_mean` is
scored once more beside a plain image of its study, whose score must stay that of the plain image. Label tables are joined with twelve
copies of the plain image. FOLDERS makes input folders of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from engine.intake.reader import read_file

PLAIN = "00_reference_plain.dcm"
BORDER = "01_reference_black_border.dcm"
ALIKE = 0.97
"""Correlation of an image shown by its window and over the range of its data; with the wrong windows of these files it is below .8."""
EXACT = 1e-6
CONFIG = 78
"""Exit code of sysexits.h: a table or recipe is wrong."""


@dataclass(frozen=True)
class File:
    """What is expected of one DICOM file; `flags` must all be raised, others may be, those of `without` must not.

    like: a file with the same scores, within `tolerance`. alike: a file that shows the same image in other grey levels.
    """

    name: str
    flags: tuple[str, ...] = ()
    like: str = ""
    tolerance: float = EXACT
    alike: str = ""
    without: tuple[str, ...] = ()
    not_in_mean: bool = False
    outcome: str = "score"
    reason: str = ""


@dataclass(frozen=True)
class Labels:
    """What is expected of one label table: joined with all twelve studies, or an exit code and a word of its message."""

    name: str
    exit_code: int = 0
    says: str = ""


@dataclass(frozen=True)
class Result:
    """One line of the output."""

    case: str
    expected: str
    got: str
    holds: bool


FILES = (
    File(PLAIN),
    File(BORDER),
    File("02_window_128_256_black_border.dcm", ("bad_window",), alike=BORDER),
    File("02b_window_128_256_no_border.dcm", ("bad_window",), alike=PLAIN),
    File("02c_reference_right_window.dcm", without=("bad_window",)),
    File("02c_window_128_256_no_flag_at_all.dcm", ("bad_window",), alike="02c_reference_right_window.dcm"),
    File("04_voilut_256_entries_black_border.dcm", ("bad_lut",), alike=BORDER),
    File("05_vindr_layout.dicom", ("bad_attribute",), PLAIN),
    File("06_bodypart_Anonymous.dcm", ("bad_attribute",), PLAIN),
    File("06b_bodypart_REDACTED.dcm", ("bad_attribute",), PLAIN),
    File("07_uids_anonymized.dcm", ("invalid_uid",), PLAIN),
    File("07b_uids_md5.dcm", ("invalid_uid",), PLAIN),
    File("08_comma_rescale.dcm", ("decimal_comma",), PLAIN, 0.02),
    File("08b_comma_window.dcm", ("decimal_comma",), "08e_point_window_reference.dcm", without=("bad_window",)),
    File("08e_point_window_reference.dcm", without=("decimal_comma",)),
    File("09_element_after_pixel_data.dcm", ("misplaced_element",), PLAIN),
    File("10_group2_in_data_set.dcm", ("misplaced_element",), PLAIN),
    File("12_trailing_newline.dcm", ("trailing_bytes",), PLAIN),
    File("12b_trailing_mime_boundary.dcm", ("trailing_bytes",), PLAIN),
    File("13_bits11_values12.dcm", ("unused_bits",), PLAIN),
    File("14_dual_energy_bone_tags.dcm", ("dual_energy",), not_in_mean=True),
    File("14c_series_ribs_bodypart_chest.dcm", ("rib_view",), not_in_mean=True),
    *(
        File(name, like=PLAIN, without=("bad_attribute",))
        for name in ("15_bodypart_PECHO.dcm", "15b_bodypart_NGUC.dcm", "15c_bodypart_PLJUCA.dcm", "15d_bodypart_PAAC.dcm")
    ),
)

LABELS = (
    Labels("04_sep_line.csv"),
    Labels("05_trailing_columns.csv"),
    Labels("06_trailing_one_column.csv"),
    Labels("07_upper_header.csv"),
    Labels("12_excel_sci.csv", CONFIG, "number"),
    Labels("15_quote_prefix.csv"),
)
LABELLED_STUDIES = tuple(f"1.2.826.0.1.3680043.10.999.{number}" for number in range(1, 13))
"""The studies that the tables of LABELS name."""

FOLDERS: tuple[Callable[[Path, Path], Iterator[Result]], ...] = ()
"""Functions of (the folder of cases, an empty folder) that build input folders and try them."""


# --- runs -----------------------------------------------------------------------------------------------------------------------


def run(*arguments: object, json_output: bool = True) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON object and messages of `mmclip ARGUMENTS`."""
    command = [Path(sys.executable).with_name("mmclip"), *map(str, arguments), *(["--json"] if json_output else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout) if json_output else {}
    except json.JSONDecodeError:
        answer = {}
    return done.returncode, answer, done.stderr + ("" if json_output else done.stdout)


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def scored(folder: Path, out: Path, model: str) -> dict[str, dict[str, str]]:
    """File name -> its row of images.csv after a run over `folder`."""
    code, _, messages = run("score", folder, "--prompts", "chest14", "--model", model, "--out", out)
    if not (out / "images.csv").exists():
        raise SystemExit(f"mmclip score ended with {code}: {messages[-400:]}")
    images = {row["image"]: row for row in table(out / "images.csv")}
    return {Path(row["path"]).name: images[row["image"]] for row in table(out / "private" / "files.csv")}


def scores_of(row: dict[str, str]) -> list[float]:
    """The scores of a row of images.csv or scores.csv; names of findings begin with a capital letter and are no notice."""
    return [float(value) for name, value in row.items() if name[:1].isupper() and not name.startswith("RESEARCH") and value]


def distance(row: dict[str, str], other: dict[str, str]) -> float:
    """The largest difference of two rows' scores; infinite where one has none."""
    left, right = scores_of(row), scores_of(other)
    return max(abs(a - b) for a, b in zip(left, right, strict=True)) if left and len(left) == len(right) else float("inf")


# --- cases ----------------------------------------------------------------------------------------------------------------------


def file_results(folder: Path, scratch: Path, model: str) -> Iterator[Result]:
    """One result for each of FILES, and one more for each that is `not_in_mean`."""
    inputs = scratch / "files"
    inputs.mkdir()
    for case in FILES:
        (inputs / case.name).write_bytes((folder / case.name).read_bytes())
    rows = scored(inputs, scratch / "out-files", model)
    for case in FILES:
        yield compare(case, rows, inputs)
        if case.not_in_mean:
            yield mean_result(case, folder, scratch, model)


def compare(case: File, rows: dict[str, dict[str, str]], folder: Path) -> Result:
    """A file's row against what is expected of it."""
    row = rows.get(case.name)
    expected = f"{case.outcome}:{case.reason}" if case.reason else case.outcome
    expected += "".join(f" +{flag}" for flag in case.flags) + "".join(f" -{flag}" for flag in case.without)
    expected += f" like {case.like} within {case.tolerance:g}" if case.like else ""
    if row is None:
        return Result(case.name, expected, "no row", holds=False)
    got = ":".join(filter(None, (row["outcome"], row["reason"], row.get("detail", ""))))
    flags = set(filter(None, row["flags"].replace(",", " ").replace(";", " ").split()))
    got += "".join(f" +{flag}" for flag in sorted(flags))
    holds = (row["outcome"], row["reason"] or "") == (case.outcome, case.reason)
    holds = holds and flags.issuperset(case.flags) and flags.isdisjoint(case.without)
    if case.like and row["outcome"] == "score":
        far = distance(row, rows[case.like])
        got += f" differs by {far:.4f}"
        holds = holds and far <= case.tolerance
    if case.alike and row["outcome"] == "score":
        correlation = float(np.corrcoef(image(folder / case.name).ravel(), image(folder / case.alike).ravel())[0, 1])
        expected += f" shows {case.alike}"
        got += f" correlates by {correlation:.3f}"
        holds = holds and correlation >= ALIKE
    return Result(case.name, expected, got, holds)


def image(path: Path) -> NDArray[np.uint8]:
    """The 8-bit image that the reader makes of a file."""
    picture = read_file(path, size=112).image
    assert picture is not None
    return picture


def mean_result(case: File, folder: Path, scratch: Path, model: str) -> Result:
    """The score of a study of one plain image and one that is out of the mean, against that of the plain image."""
    inputs, out = scratch / f"study-{case.name}", scratch / f"out-{case.name}"
    inputs.mkdir()
    for number, name in enumerate((BORDER, case.name), 1):
        copy(folder / name, inputs / f"{number}.dcm", LABELLED_STUDIES[0], number)
    plain = scored(inputs, out, model)["1.dcm"]
    (study,) = table(out / "scores.csv")
    far = distance(plain, study)
    return Result(f"{case.name}, in a study", "the plain image's score", f"differs by {far:.4f}", holds=far <= EXACT)


def copy(source: Path, target: Path, study: str, number: int) -> None:
    """A DICOM file as image `number` of a study, in a series of its own."""
    data = pydicom.dcmread(source)
    data.PatientID, data.StudyInstanceUID, data.SeriesInstanceUID = f"CANARY{study[-6:]}", study, f"{study}.{number}"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{study}.{number}.1"
    data.save_as(target)


def label_results(folder: Path, scratch: Path, model: str) -> Iterator[Result]:
    """One result for each of LABELS."""
    inputs = scratch / "labelled"
    inputs.mkdir()
    for number, study in enumerate(LABELLED_STUDIES, 1):
        copy(folder / PLAIN, inputs / f"{number}.dcm", study, 1)
    for case in LABELS:
        arguments = ("--labels", folder / "labels" / case.name, "--out", scratch / "out-labels")
        code, answer, messages = run("score", inputs, "--prompts", "chest14", "--model", model, *arguments)
        joined = (answer.get("labels") or {}).get("studies_with_labels", 0)
        expected = f"exit {case.exit_code}" + (f', says "{case.says}"' if case.says else f", {len(LABELLED_STUDIES)} studies with labels")
        got = f"exit {code}, " + (f"{joined} studies with labels" if not code else messages.strip()[-120:])
        holds = code == case.exit_code and (case.says in messages if case.says else joined == len(LABELLED_STUDIES))
        yield Result(f"labels/{case.name}", expected, got, holds)


def results(folder: Path, scratch: Path, model: str) -> Iterator[Result]:
    """All cases."""
    yield from file_results(folder, scratch, model)
    yield from label_results(folder, scratch, model)
    for number, build in enumerate(FOLDERS):
        place = scratch / f"folder-{number}"
        place.mkdir()
        yield from build(folder, place)


def main() -> int:
    """Print what was expected and got, case by case."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("source", type=Path, help="the folder of cases, or a tar archive of it")
    arguments.add_argument("--model", default="tiny")
    arguments.add_argument("--only", default="", help="print only cases whose name holds this text")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = given.source
        if folder.is_file():
            with tarfile.open(folder) as archive:
                archive.extractall(scratch / "cases", filter="data")
            folder = scratch / "cases"
        folder = next(path.parent for path in sorted(folder.rglob(PLAIN)))
        tried = wrong = 0
        for result in results(folder, scratch, given.model):
            if given.only not in result.case:
                continue
            tried, wrong = tried + 1, wrong + (not result.holds)
            print(
                f"{'ok  ' if result.holds else 'DIFF'} {result.case}\n     expected {result.expected}\n     got      {result.got}",
                flush=True,
            )
    print(f"{tried} cases, {wrong} different from what is expected")
    return int(wrong > 0 or tried == 0)


if __name__ == "__main__":
    sys.exit(main())
