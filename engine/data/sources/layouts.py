"""Where the pieces of the labelled data sets lie, and in plain words which are missing. Only names are looked at, no file is opened.

    chexpert  [CheXpert-v1.0[-small]/]{train,valid,groundtruth}.csv, {train,valid,test}/patientNNNNN/studyN/viewN_frontal.jpg
    nih14     Data_Entry_2017[_v2020].csv, test_list.txt, train_val_list.txt, images/*.png or images_001/images/*.png to images_012
    rsna      stage_2_train_labels.csv, stage_2_train_images/<patientId>.dcm
    covidx    train_COVIDx8B.txt, test_COVIDx8B.txt (or 6, 9B), train/, test/
    padchest_evaluation    as padchest (published.py)

A table may be gzipped or zipped. Pictures may be there in part: what is read then says so in its facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.recipe.labelled import ChexpertSource, CovidxSource, Lists, Nih14Source, Published, RsnaSource

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
    """The first of the names that lies in `root`, as it is, as .gz or as .zip; None when none does."""
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


def missing_of(source: Published) -> list[str]:
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
