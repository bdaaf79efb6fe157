"""From the raw layout of each labelled data set to figures, in miniature: ingest, then score against the table's labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from engine.ingest import IngestFinished, ingest
from engine.recipe.labelled_sources import CHEXPERT_FINDINGS
from engine.score import score

SIX = range(6)
"""Pictures of each data set's test; the finding is present in every other one."""
Layout = Callable[[Path, Any], tuple[dict[str, str], str]]
"""Writes a data set into a folder; returns the keys of its source, and the finding."""


@pytest.fixture(autouse=True)
def _site_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMCLIP_SITE_KEY", "a key for tests")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5), dtype=np.uint8)
    Image.fromarray(coarse).resize((64, 72), Image.Resampling.BICUBIC).save(path)


def chexpert(root: Path, _: Any) -> tuple[dict[str, str], str]:
    order = sorted(CHEXPERT_FINDINGS)  # as in groundtruth.csv, another than in train.csv
    lines = [",".join(["Study", *order])]
    for n in SIX:
        cells = ["1" if finding == "Edema" and n % 2 else "0" for finding in order]
        lines.append(",".join([f"CheXpert-v1.0/test/patient6474{n}/study1", *cells]))
        draw(root / f"test/patient6474{n}/study1/view1_frontal.jpg", n)
    (root / "groundtruth.csv").write_text("\n".join(lines))
    return {"kind": "chexpert", "part": "test"}, "Edema"


def nih14(root: Path, _: Any) -> tuple[dict[str, str], str]:
    head = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],X[x,y],\n"
    )
    rows = [f"0000000{n}_000.png,{'Edema' if n % 2 else 'No Finding'},0,{n},060Y,F,PA,1,1,1,1,\n" for n in SIX]
    root.mkdir()
    (root / "Data_Entry_2017.csv").write_text(head + "".join(rows))
    (root / "test_list.txt").write_text("\n".join(f"0000000{n}_000.png" for n in SIX))
    for n in SIX:
        draw(root / f"images_001/images/0000000{n}_000.png", n)
    return {"kind": "nih14", "part": "test"}, "Edema"


def rsna(root: Path, make_studies: Any) -> tuple[dict[str, str], str]:
    (root / "stage_2_train_images").mkdir(parents=True)
    rows = [f"p{n},,,,,0" if n % 2 == 0 else f"p{n},1,2,3,4,1\np{n},5,6,7,8,1" for n in SIX]
    (root / "stage_2_train_labels.csv").write_text("\n".join(["patientId,x,y,width,height,Target", *rows]))
    (root.parent / "test.csv").write_text("\n".join(f"p{n}.dcm" for n in SIX))
    for n in SIX:
        stored = np.random.default_rng(n).integers(0, 4096, (64, 64), dtype=np.uint16)
        data = make_studies.chest_dataset(stored, f"p{n}", make_studies.SYNTAXES[0])
        data.save_as(root / f"stage_2_train_images/p{n}.dcm", enforce_file_format=True)
    return {"kind": "rsna", "part": "test", "split": "medklip", "lists": f"{{test: {root.parent / 'test.csv'}}}"}, "Pneumonia"


def covidx(root: Path, _: Any) -> tuple[dict[str, str], str]:
    rows = [f"p{n} p{n}.png {'positive ricord' if n % 2 else 'negative rsna'}" for n in SIX]
    for n in SIX:
        draw(root / f"test/p{n}.png", n)
    (root / "test_COVIDx8B.txt").write_text("\n".join(rows))
    # the prompts of chest14 do not speak of COVID-19; its pneumonia is one
    return {"kind": "covidx", "part": "test", "rename": "{COVID-19: Pneumonia}"}, "Pneumonia"


def figures(root: Path, keys: dict[str, str], toy: Path, tmp_path: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    """What ingest says of the source's split, and the metrics of the toy model on its pictures."""
    table = tmp_path / "table"
    settings = [f"sources.0.{key}={value}" for key, value in keys.items() if key != "kind"]
    *_, ingested = ingest([root], table, kind=keys["kind"], settings=["store_size=32", *settings], workers=1)
    images = table / "images.parquet"
    for _event in score([images], prompts="chest14", model=toy, labels=images, out=tmp_path / "scores", device="cpu", workers=1):
        pass
    assert isinstance(ingested, IngestFinished)
    return ingested.run["sources"][0]["split"], pl.read_csv(tmp_path / "scores" / "metrics.csv")


@pytest.mark.parametrize("layout", [chexpert, nih14, rsna, covidx], ids=lambda layout: layout.__name__)
def test_a_raw_layout_becomes_figures_on_its_own_test(layout: Layout, tmp_path: Path, toy: Path, make_studies: Any) -> None:
    root = tmp_path / "data"
    keys, finding = layout(root, make_studies)
    split, metrics = figures(root, keys, toy, tmp_path)
    assert split["n"] == split["there"] == 6 and split["sha256"] == split["there_sha256"]
    (row,) = metrics.filter(pl.col("finding") == finding).to_dicts()
    assert (row["n"], row["n_positive"]) == (6, 3)
    assert 0 <= row["auroc"] <= 1 and row["auroc_low"] <= row["auroc"] <= row["auroc_high"]


def test_the_physicians_images_of_padchest_become_figures(make_padchest: Callable[..., Path], tmp_path: Path, toy: Path) -> None:
    labels = ["['pulmonary edema']", "['normal']"]
    rows = [
        {"ImageID": f"{n}.png", "PatientID": str(n), "StudyID": f"s{n}", "MethodLabel": "Physician", "Labels": labels[n % 2]} for n in SIX
    ]
    root = make_padchest(rows, zipped=["0"])
    _, metrics = figures(root, {"kind": "padchest_evaluation"}, toy, tmp_path)
    (row,) = metrics.filter(pl.col("finding") == "Edema").to_dicts()
    assert (row["n"], row["n_positive"]) == (6, 3) and 0 <= row["auroc"] <= 1
    (alone,) = metrics.filter(pl.col("finding") == "Fracture").to_dicts()
    assert (alone["n_positive"], alone["auroc"]) == (0, None)
