"""What must be where before a published data set can be read, and in plain words what does not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from engine.errors import ConfigError, UsageError
from engine.recipe.labelled_sources import (
    ChexpertSource,
    CovidxSource,
    LabelledSource,
    Lists,
    Nih14Source,
    PadchestEvaluationSource,
    PublishedSource,
    RsnaSource,
)
from engine.recipe.sources import MimicSource, OpeniSource, PadchestSource, Source, TableSource

# Where the pieces of the labelled data sets are, and in plain words which are missing. Only names are looked at, no file is opened.

CHEXPERT_FOLDERS = ("", "CheXpert-v1.0", "CheXpert-v1.0-small")
CHEXPERT_TABLES = {
    "train": ("train.csv",),
    "valid": ("valid.csv",),
    "test": ("groundtruth.csv", "test/groundtruth.csv", "test_labels.csv", "test.csv"),
}
NIH_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
NIH_LISTS = {"test": ("test_list.txt",), "train": ("train_val_list.txt",)}
GOOGLE_TABLES = ("google2019_nih-chest-xray-labels.csv",)
RSNA_TABLES = ("stage_2_train_labels.csv", "kaggle_stage_2_train_labels.csv")
RSNA_CLASSES = ("stage_2_detailed_class_info.csv",)
RSNA_PICTURES = "stage_2_train_images"


def find_label_file(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is in `root`, as it is, as .gz or as .zip; None when none does."""
    paths = (root / f"{name}{suffix}" for name in names for suffix in ("", ".gz", ".zip"))
    return next((path for path in paths if path.is_file()), None)


def chexpert_folder(root: Path) -> Path:
    """The folder with CheXpert's tables: `root` itself or the published folder in it; without any table, that folder where it is there."""
    folders = [root / name for name in CHEXPERT_FOLDERS]
    with_tables = (each for each in folders if any(find_label_file(each, names) for names in CHEXPERT_TABLES.values()))
    return next(with_tables, next((each for each in folders[1:] if each.is_dir()), root))


def covidx_list(root: Path, part: str, release: str) -> Path | None:
    """The list of one part ("train", "test") of a release of COVIDx."""
    return find_label_file(root, (f"{part}_COVIDx{release}.txt", f"{part}.txt"))


def missing_of(source: PublishedSource) -> list[str]:
    """What the folder of a labelled data set lacks, as `key: what to set it to`; empty when a run can begin."""
    root = Path(source.root)
    if isinstance(source, ChexpertSource):
        return _missing_of_chexpert(source, chexpert_folder(root))
    if isinstance(source, Nih14Source):
        return _missing_of_nih14(source, root)
    if isinstance(source, RsnaSource):
        return _missing_of_rsna(source, root)
    if isinstance(source, CovidxSource):
        return _missing_of_covidx(source, root)
    return []


def _missing_of_chexpert(source: ChexpertSource, folder: Path) -> list[str]:
    parts = list(CHEXPERT_TABLES) if source.part == "all" else [source.part]
    tables = [find_label_file(folder, CHEXPERT_TABLES[part]) for part in parts]
    missing = []
    if not any(tables):
        names = " or ".join(CHEXPERT_TABLES[part][0] for part in parts)
        missing.append(f"root: no {names} there; set it to the folder CheXpert-v1.0 or CheXpert-v1.0-small")
    if not any(_any(folder / part, "patient*/study*/*") for part in parts):
        missing.append(f"root: no images there; it needs {parts[0]}/patient00001/study1/view1_frontal.jpg and so on")
    return missing


def _missing_of_nih14(source: Nih14Source, root: Path) -> list[str]:
    missing = []
    if not find_label_file(root, NIH_TABLES):
        missing.append(f"root: no label table there; set it to the ChestX-ray14 folder with {' or '.join(NIH_TABLES)}")
    if source.labels == "google2019" and not find_label_file(root, GOOGLE_TABLES):
        missing.append(f"root: no {GOOGLE_TABLES[0]} there: the labels that radiologists agreed on; or set labels: nih")
    if source.labels == "nih" and source.split == "official" and not source.lists and not find_label_file(root, NIH_LISTS["test"]):
        missing.append("root: no test_list.txt there; it comes with the data set (or lists.test: FILE, or split: 70_10_20)")
    if not any(_any(root, pattern) for pattern in ("images*/*.*", "images*/images/*.*")):
        missing.append("root: no images there; it needs images/00000001_000.png, or images_001/images/ to images_012/images/")
    return missing + _missing_lists(source.lists)


def _missing_of_rsna(source: RsnaSource, root: Path) -> list[str]:
    missing = []
    if not find_label_file(root, RSNA_TABLES):
        missing.append(f"root: no {RSNA_TABLES[0]} there; set it to the folder of the RSNA Pneumonia Detection Challenge")
    if source.split == "medklip" and "test" not in source.lists:
        missing.append("lists.test: not set; set it to MedKLIP's test.csv (5,337 images), or split: 70_15_15")
    if not _any(root, f"{RSNA_PICTURES}/*.*"):
        missing.append(f"root: no images there; it needs {RSNA_PICTURES}/<patientId>.dcm")
    if source.nih_mapping and not Path(source.nih_mapping).is_file():
        missing.append("nih_mapping: no such file; set it to pneumonia-challenge-dataset-mappings_2018.json, or leave it out")
    return missing + _missing_lists(source.lists)


def _missing_of_covidx(source: CovidxSource, root: Path) -> list[str]:
    parts = {"test": ["test"], "all": ["train", "test"]}.get(source.part, ["train"])
    missing = [
        f"root: no {part}_COVIDx{source.release}.txt there; set it to the COVIDx folder"
        for part in parts
        if not covidx_list(root, part, source.release)
    ]
    if not any(_any(root, f"{part}/*.*") for part in parts):
        missing.append(f"root: no images there; it needs the folder {' or '.join(f'{part}/' for part in parts)}")
    return missing


def _missing_lists(lists: Lists) -> list[str]:
    absent = [part for part, file in lists.items() if not Path(file).is_file()]
    return [f"lists.{part}: no such file; one image a line, or a CSV with a column of images" for part in absent]


def _any(folder: Path, pattern: str) -> bool:
    """Whether anything below a folder matches; stops at the first match, so that a full data set is not walked."""
    try:
        return next(iter(folder.glob(pattern)), None) is not None
    except OSError:
        return False


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
    if isinstance(source, PublishedSource):
        return missing_of(source)
    return _missing_of_table(source)


def missing_data(sources: Sequence[Source]) -> list[str]:
    """What all sources of a recipe lack, each piece with its whole key: `sources.0.root: ...`."""
    return [f"sources.{index}.{piece}" for index, source in enumerate(sources) for piece in missing_pieces(source)]


def check_there(sources: Sequence[Source]) -> None:
    """Reject, before any work, a recipe of which a source is not there, tables included.

    Raises:
        ConfigError: names every missing piece of every source at once, with the key to set and the layout that belongs there.
    """
    if missing := missing_data(sources):
        own = ", or mmclip finetune TABLE for images of your own" if all(isinstance(each, TableSource) for each in sources) else ""
        raise ConfigError("the recipe's data are not there", why="; ".join(missing), hint=f"--set KEY=PATH for each of these{own}")


def check_published(sources: Sequence[Source]) -> None:
    """Reject, before any work, a recipe whose published data sets are incomplete.

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


# Which published data set a folder holds, recognised by the names of its tables: what a user who names the folder alone need not say.

TABLE_SUFFIXES = (".csv", ".parquet", ".gz")
KINDS: tuple[str, ...] = tuple(
    get_args(each.model_fields["kind"].annotation)[0] for each in (MimicSource, PadchestSource, OpeniSource, *get_args(LabelledSource))
)
"""The published data sets."""


def recognised(folder: Path) -> str | None:
    """The kind of published data set in a folder; None where no table says, as in a folder of DICOM files."""
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
        kind: what every folder is, or `dicom`; None: recognised by its tables. MIMIC-CXR and MIMIC-CXR-JPG, two folders, make one source.

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
