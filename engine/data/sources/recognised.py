"""Which published data set a folder holds, told by the names of its tables: what a user who names the folder alone need not say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from engine.data.sources.layouts import NIH_TABLES, RSNA_TABLES, chexpert_folder, find_label_file
from engine.data.sources.published import MIMIC_REPORTS_ZIP, MIMIC_TABLES, OPENI_REPORTS, PADCHEST_TABLE, any_match, has_table
from engine.errors import UsageError
from engine.recipe.labelled import Labelled
from engine.recipe.sources import MimicSource, OpeniSource, PadchestSource

TABLE_SUFFIXES = (".csv", ".parquet", ".gz")
KINDS: tuple[str, ...] = tuple(
    get_args(each.model_fields["kind"].annotation)[0] for each in (MimicSource, PadchestSource, OpeniSource, *get_args(Labelled))
)
"""The published data sets."""


def recognised(folder: Path) -> str | None:
    """The kind of published data set in a folder; None where no table tells, as in a folder of DICOM files."""
    if has_table(folder, MIMIC_TABLES[1]):
        return "mimic_cxr"
    if has_table(folder, PADCHEST_TABLE):
        return "padchest"
    if any_match(folder, f"{OPENI_REPORTS}/*.xml"):
        return "openi"
    if find_label_file(folder, NIH_TABLES):
        return "nih14"
    if find_label_file(folder, RSNA_TABLES):
        return "rsna"
    chexpert = chexpert_folder(folder)
    if find_label_file(chexpert, ("train.csv", "valid.csv", "groundtruth.csv")) and any_match(chexpert, "*/patient*"):
        return "chexpert"
    return "covidx" if any_match(folder, "t*_COVIDx*.txt") else None


def sources_in(inputs: Sequence[Path], kind: str | None) -> list[dict[str, Any]]:
    """The sources, as a recipe would write them, that these tables and folders of data sets are; [] where they are folders of DICOM.

    Args:
        kind: what every folder is, or `dicom`; None: told by its tables. MIMIC-CXR and MIMIC-CXR-JPG, two folders, make one source.

    Raises:
        UsageError: no such kind, or data sets and DICOM folders in one.
    """
    if kind is not None and kind not in (*KINDS, "dicom"):
        raise UsageError(f"no data set is called {kind}", hint=f"one of dicom, {', '.join(KINDS)}")
    tables = [path for path in inputs if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES]
    folders = [path for path in inputs if path not in tables]
    kinds = {folder: kind or recognised(folder) for folder in folders}
    reports = [folder for folder in folders if _holds_mimic_reports(folder)]
    if any(each == "mimic_cxr" for each in kinds.values()):
        kinds |= dict.fromkeys(reports, "mimic_cxr")
    sources: list[dict[str, Any]] = [{"kind": "table", "file": str(path)} for path in tables]
    sources += [_source(str(each), folder) for folder, each in kinds.items() if each not in (None, "dicom", "mimic_cxr")]
    sources += _mimic([folder for folder, each in kinds.items() if each == "mimic_cxr"], reports)
    if sources and any(each in (None, "dicom") for each in kinds.values()):
        why = "one of the folders holds no table of a data set that mmclip knows"
        raise UsageError("data sets and folders of DICOM cannot be ingested in one", why=why, hint="one run for each, or --as KIND")
    return sources


def _source(kind: str, folder: Path) -> dict[str, Any]:
    parts = {"chexpert": "all", "nih14": "all", "rsna": "all", "covidx": "all"}
    return {"kind": kind, "root": str(folder)} | ({"part": parts[kind]} if kind in parts else {})


def _mimic(folders: Sequence[Path], reports: Sequence[Path]) -> list[dict[str, Any]]:
    """One source of the folders of MIMIC-CXR: the one with the reports, and the one with JPEG images where there are any."""
    if not folders:
        return []
    pictures = [folder for folder in folders if any_match(folder, "files/p1[0-9]/p*/s*/*.jpg")]
    root = next((folder for folder in folders if folder in reports), folders[0])
    return [{"kind": "mimic_cxr", "root": str(root)} | ({"jpg_root": str(pictures[0])} if pictures else {})]


def _holds_mimic_reports(folder: Path) -> bool:
    return (folder / MIMIC_REPORTS_ZIP).is_file() or any_match(folder, "files/p1[0-9]/p*/s*.txt")
