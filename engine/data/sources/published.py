"""What must lie where before a published data set can be read, and in plain words what does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.data.sources.layouts import missing_of
from engine.errors import ConfigError
from engine.recipe.labelled import PadchestEvaluationSource, Published
from engine.recipe.sources import MimicSource, OpeniSource, PadchestSource, Source, TableSource

MIMIC_TABLES = ("mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-metadata.csv")
MIMIC_REPORTS_ZIP = "mimic-cxr-reports.zip"
PADCHEST_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
OPENI_REPORTS = "ecgen-radiology"
"""The folder that NLMCXR_reports.tgz unpacks to."""


def missing_pieces(source: Source) -> list[str]:
    """What a source's folders lack, as `key: what to set it to`; empty when every piece is there.

    Only names are looked at, never the contents of a file.
    """
    if isinstance(source, MimicSource):
        return _missing_of_mimic(source)
    if isinstance(source, PadchestSource | PadchestEvaluationSource):
        return _missing_of_padchest(source)
    if isinstance(source, OpeniSource):
        return _missing_of_openi(source)
    if isinstance(source, Published):
        return missing_of(source)
    return _missing_of_table(source)


def missing_data(sources: Sequence[Source]) -> list[str]:
    """What all sources of a recipe lack, each piece with its whole key: `sources.0.root: ...`."""
    return [f"sources.{index}.{piece}" for index, source in enumerate(sources) for piece in missing_pieces(source)]


def check_there(sources: Sequence[Source]) -> None:
    """Turn away, before any work, a recipe of which a source is not there, tables included.

    Raises:
        ConfigError: names every missing piece of every source at once, with the key to set and the layout that belongs there.
    """
    if missing := missing_data(sources):
        own = ", or mmclip finetune TABLE for images of your own" if all(isinstance(each, TableSource) for each in sources) else ""
        raise ConfigError("the recipe's data are not there", why="; ".join(missing), hint=f"--set KEY=PATH for each of these{own}")


def check_published(sources: Sequence[Source]) -> None:
    """Turn away, before any work, a recipe whose published data sets are incomplete.

    A recipe of tables alone passes: its readers say more of a table than that it is not there.

    Raises:
        ConfigError: names every missing piece of every source at once, with the key to set and the layout it must have.
    """
    if all(isinstance(source, TableSource) for source in sources):
        return
    if missing := missing_data(sources):
        hint = "--set KEY=FOLDER for each of these; mmclip recipes check lists them line by line"
        raise ConfigError("the recipe's data are not there", why="; ".join(missing), hint=hint)


def _missing_of_mimic(source: MimicSource) -> list[str]:
    root, jpg_root = Path(source.root), Path(source.jpg_root) if source.jpg_root is not None else None
    pictures = jpg_root or root
    missing = []
    reports = "the MIMIC-CXR 2.0.0 folder with the reports, files/p10/p10000032/s50414267.txt and so on, or mimic-cxr-reports.zip"
    if not ((root / MIMIC_REPORTS_ZIP).is_file() or any_match(root, "files/p1[0-9]/p*/s*.txt")):
        missing.append(f"root: no reports there; set it to {reports}")
    if jpg_root is None and not any_match(root, "files/p1[0-9]/p*/s*/*.dcm"):
        layout = "files/p10/p10000032/s50414267/<dicom_id>"
        missing.append(f"root: no images there; it needs {layout}.dcm, or set jpg_root to the MIMIC-CXR-JPG 2.0.0 folder with {layout}.jpg")
    if jpg_root is not None and not any_match(jpg_root, "files/p1[0-9]/p*/s*/*.jpg"):
        layout = "files/p10/p10000032/s50414267/<dicom_id>.jpg"
        missing.append(f"jpg_root: no images there; set it to the MIMIC-CXR-JPG 2.0.0 folder with {layout}")
    absent = [f"{name}.gz" for name in MIMIC_TABLES if not has_table(pictures, name)]
    if absent:
        key = "root" if jpg_root is None else "jpg_root"
        missing.append(f"{key}: no {' or '.join(absent)} there; both lie at the top of MIMIC-CXR-JPG 2.0.0")
    return missing


def _missing_of_padchest(source: PadchestSource | PadchestEvaluationSource) -> list[str]:
    root = Path(source.root)
    missing = []
    if not has_table(root, PADCHEST_TABLE):
        missing.append(f"root: no label table there; set it to the PadChest folder with {PADCHEST_TABLE}, as it is or as .gz")
    if not (any_match(root, "[0-9]*.zip") or any_match(root, "[0-9]*/*.png")):
        missing.append("root: no images there; it needs the folders of the table's ImageDir, 0/ to 54/ with PNGs, or 0.zip to 54.zip")
    return missing


def _missing_of_openi(source: OpeniSource) -> list[str]:
    root = Path(source.root)
    missing = []
    if not any_match(root, f"{OPENI_REPORTS}/*.xml"):
        missing.append(f"root: no reports there; it needs {OPENI_REPORTS}/1.xml and so on, as NLMCXR_reports.tgz unpacks")
    if not any(any_match(root, f"**/*.{suffix}") for suffix in ("png", "dcm")):
        missing.append("root: no images there; it needs CXR1_1_IM-0001-3001.png and so on (NLMCXR_png.tgz) or .dcm, in any folder")
    return missing


def _missing_of_table(source: TableSource) -> list[str]:
    if Path(source.file).is_file():
        return []
    columns = "a column `file` and optional study, patient, view, report and finding columns"
    return [f"file: no table there; set it to a CSV or Parquet file with {columns}"]


def has_table(folder: Path, name: str) -> bool:
    """Whether a table is there, as it is or gzipped."""
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()


def any_match(folder: Path, pattern: str) -> bool:
    """Whether anything below a folder matches; stops at the first match, so that a full data set is not walked."""
    try:
        found: Iterable[Path] = folder.glob(pattern)
        return next(iter(found), None) is not None
    except OSError:
        return False
