"""The same label files through score, evaluate and fine-tuning: one verdict on each.

A file names nine images by path. It is read as labels of a scoring run, as labels of finished scores, and as the table of a
fine-tuning run; the three must agree on every label, or refuse it with the same words.
"""

import csv
import gzip

import polars as pl
import pytest

from engine.data.finetune_plan import finetune_table
from engine.data.label_cells import LabelPolicy
from engine.data.labels import join, read_labels
from engine.errors import EngineError
from engine.evaluation.from_scores import judge
from engine.recipe.finetuning import FinetuneRecipe
from engine.tables.study_names import StudyNames

FINDINGS = ("No Finding", "Edema", "Pneumonia", "Pleural Effusion")
NAMES = [f"images/{number}.png" for number in range(9)]
EDEMA = [1, 0, None, 1, 0, 1, 0, 1, 0]


def table(cells, column="Edema", key="file", names=NAMES, separator=","):
    return "\n".join([f"{key}{separator}{column}", *(f"{name}{separator}{cell}" for name, cell in zip(names, cells, strict=True)), ""])


PLAIN = ["1", "0", "", "1", "0", "1", "0", "1", "0"]
UNSURE = ["1", "0", "-1", "1", "0", "1", "0", "1", "0"]
WORDS = ["yes", "no", "NA", "TRUE", "FALSE", "Positive", "negative", "1.0", "0.0"]
TWO = [f"{cell},1" for cell in PLAIN]
LISTED = ["Edema", "No Finding", "", "Edema", "No Finding", "Edema", "No Finding", "Edema", "No Finding"]

READ = {
    "plain": table(PLAIN).encode(),
    "uncertain": table(UNSURE).encode(),
    "uncertain as u": table(["1", "0", "u", *PLAIN[3:]]).encode(),
    "words": table(WORDS).encode(),
    "numbers with a point": table([f"{cell}.0" if cell else "" for cell in PLAIN]).encode(),
    "upper-case header": table(PLAIN, "EDEMA", "FILE").encode(),
    "another word for file": table(PLAIN, key="Image Index").encode(),
    "a synonym": table(PLAIN, "Oedema").encode(),
    "semicolons": table(PLAIN, separator=";").encode(),
    "a line sep=": b"sep=;\r\n" + table(PLAIN, separator=";").encode(),
    "tabs and blanks": table(PLAIN, " Edema ", separator="\t").encode(),
    "UTF-8 with a byte order mark": table(PLAIN).encode("utf-8-sig"),
    "UTF-16": table(PLAIN).encode("utf-16"),
    "Windows-1252": table([f"{cell},Müller" for cell in PLAIN], "Edema,reader").encode("cp1252"),
    "gzipped": gzip.compress(table(PLAIN).encode(), mtime=0),
    "an index of pandas": ("\n".join(f"{k - 1 if k else ''},{line}" for k, line in enumerate(table(PLAIN).splitlines())) + "\n").encode(),
    "trailing columns": table([f"{cell},," for cell in PLAIN], "Edema,,").encode(),
    "apostrophes": table(PLAIN, names=[f"'{name}" for name in NAMES]).encode(),
    "backslashes": table(PLAIN, names=[name.replace("/", "\\") for name in NAMES]).encode(),
    "a list of findings": table(LISTED, "Finding Labels").encode(),
}

REFUSED = {
    "a soft label": (["0.7", *PLAIN[1:]], "Edema", "row 1 of the labels, column 'Edema', holds '0.7': a number between 0 and 1 is a soft"),
    "a word": (["1", "severe", *PLAIN[2:]], "Edema", "row 2 of the labels, column 'Edema', holds text that is no label"),
    "a number": ([*PLAIN[:8], "2"], "Edema", "row 9 of the labels, column 'Edema', holds '2'"),
    "two columns of one finding": (TWO, "Edema,edema", "columns 'Edema' and 'edema' are the same finding"),
    "a misspelt finding": (TWO, "Edema,Pnuemonia", "'Pnuemonia' is no finding, and nearly spelled like Pneumonia"),
    "a misspelt patient": (TWO, "Edema,patient_numbr", "column 'patient_numbr' looks like the patient's"),
    "an unknown split": (TWO, "Edema,split", "the split column holds 1 name that mmclip does not know"),
    "a header twice": (TWO, "Edema,Edema", "columns 2 and 3 of the table"),
}
"""Cells, header, and what is said."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for name in NAMES:
        (tmp_path / name).write_bytes(b"not looked into")
    return tmp_path


def as_score(path, policy=LabelPolicy()):  # noqa: B008 - frozen
    """What `score --labels` reads."""
    labels = read_labels(path, FINDINGS, policy)
    names = StudyNames(dict.fromkeys(NAMES, ""), lambda key: (), [(str(path.parent / name), name) for name in NAMES])
    joined = join([labels], names)
    assert joined.account["matched_rows"] == 9
    return [joined.labels[name]["Edema"] for name in NAMES]


def as_evaluate(path, policy=LabelPolicy()):  # noqa: B008
    """What `evaluate --scores --labels` judges by: labels from the counts of its figures, finding by finding."""
    scores = path.parent / "scores.csv"
    with scores.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["study", *FINDINGS])
        writer.writerows([name, *[0.1 * place] * len(FINDINGS)] for place, name in enumerate(NAMES))
    by_study = path.with_name("by_study.csv")  # a table of scores knows no files: the same cells, keyed by study
    by_study.write_bytes(_keyed_by_study(path.read_bytes()))
    events = list(judge(scores, by_study, label_policy=policy, out=path.parent / "out", resamples=20))
    return next(row for row in events[-1].tables["metrics"] if row["finding"] == "Edema")


def _keyed_by_study(raw):
    if raw[:2] == b"\x1f\x8b":
        return gzip.compress(_keyed_by_study(gzip.decompress(raw)), mtime=0)
    if raw[:2] == b"\xff\xfe":
        return _keyed_by_study(raw.decode("utf-16").encode()).decode().encode("utf-16")
    for old, new in ((b"file", b"study"), (b"FILE", b"STUDY"), (b"Image Index", b"study")):
        if old in raw:
            return raw.replace(old, new, 1).replace(b"\\", b"/")
    return raw


def as_finetune(path, **keys):
    """What `finetune TABLE` learns from."""
    source = {"kind": "table", "file": str(path), **keys}
    found = finetune_table(FinetuneRecipe.model_validate({"version": 1, "sources": [source]})).frame
    labels = dict(found.select(pl.col("file").str.split("/").list.tail(2).list.join("/"), "Edema").iter_rows())
    return [labels[name] for name in NAMES]


@pytest.mark.parametrize("name", READ)
def test_one_verdict_on_what_is_read(folder, name):
    path = folder / "labels.csv"
    path.write_bytes(READ[name])
    assert as_score(path) == as_finetune(path) == EDEMA
    row = as_evaluate(path)
    assert (row["n"], row["n_positive"]) == (8, 4)


@pytest.mark.parametrize(("uncertain", "value"), [("present", 1), ("absent", 0), ("unknown", None)])
def test_one_policy_on_what_is_uncertain(folder, uncertain, value):
    path = folder / "labels.csv"
    path.write_bytes(READ["uncertain"])
    expected = [1, 0, value, *EDEMA[3:]]
    assert as_score(path, LabelPolicy(uncertain)) == as_finetune(path, uncertain=uncertain) == expected
    row = as_evaluate(path, LabelPolicy(uncertain))
    assert (row["n"], row["n_positive"]) == (9 - (value is None), 4 + (value == 1))


@pytest.mark.parametrize("name", REFUSED)
def test_one_verdict_on_what_is_refused(folder, name):
    cells, column, message = REFUSED[name]
    path = folder / "labels.csv"
    path.write_text(table(cells, column))
    for verb in (as_score, as_evaluate, as_finetune):
        with pytest.raises(EngineError) as raised:
            verb(path)
        assert message in str(raised.value), verb.__doc__
