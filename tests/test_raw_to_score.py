"""From the raw layouts of MIMIC-CXR and PadChest to scores, with the shipped recipe and the installed command, in miniature."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

MMCLIP = Path(sys.executable).with_name("mmclip")
TOY = [
    "model.init=null", "tokenizer.vocab=400", "entities=chest_ner", "store_size=40", "precision=fp32", "steps=4",
    "model.image={width: 16, layers: 1, heads: 2, size: 32, patch: 8}", "model.text={width: 16, layers: 1, heads: 2, context: 60}",
    "model.projection=16", "model.image_decoder={width: 16, layers: 1, heads: 2}", "model.text_decoder={layers: 1, heads: 2}",
    "warmup.iterations=2", "batch={paired: 3, unpaired: 2}", "checkpoint.every=2",
]  # fmt: skip
"""The shipped recipe, scaled down: what is learned and how stays as it is."""


def report(impression: str) -> str:
    return f"                 FINAL REPORT\n EXAMINATION:  CHEST (PORTABLE AP)\n\n IMPRESSION: \n\n {impression}\n"


@pytest.mark.timeout(400)  # three processes that import torch: ten seconds, or a minute where the machine is busy
def test_raw_layouts_become_a_model_that_scores(make_mimic: Callable[..., Any], make_padchest: Callable[..., Path], tmp_path: Path) -> None:
    texts = ["No pneumothorax.", "Large pleural effusion with atelectasis.", "Mild edema, ___ cardiomegaly.", "Pneumonia in the left lung."]
    mimic = make_mimic(
        [
            *(
                {"image": f"m{n}", "patient": f"1{n}000000", "study": f"5{n}", "view": ["PA", "AP"][n % 2], "report": report(texts[n % 4])}
                for n in range(6)
            ),
            {"image": "lateral", "patient": "10000000", "study": "50", "view": "LATERAL", "report": report(texts[0])},
            {"image": "unseen", "patient": "19000000", "study": "59", "split": "test", "report": report(texts[1])},
            {"image": "wordless", "patient": "18000000", "study": "58", "report": ""},
        ],
        zipped=True,
    )
    patients = [{"ImageID": f"{n}.png", "ImageDir": str(n % 2), "PatientID": str(n), "StudyID": f"s{n}"} for n in range(5)]
    patients[3]["Projection"], patients[4]["MethodLabel"] = "L", "Physician"
    padchest = make_padchest(patients, zipped=["1"])
    torn = padchest / "0" / "2.png"
    torn.write_bytes(torn.read_bytes()[:-300])
    overrides = [f"sources.0.root={mimic['root']}", f"sources.0.jpg_root={mimic['jpg_root']}", f"sources.1.root={padchest}", *TOY]
    settings = [word for each in overrides for word in ("--set", each)]

    def mmclip(*arguments: str, code: int = 0) -> dict[str, Any]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MMCLIP_", "XDG_"))}
        command = [str(MMCLIP), *arguments, "--json", "--quiet"]
        done = subprocess.run(command, cwd=tmp_path, env=clean | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=200)
        assert done.returncode == code, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    ingested = mmclip("ingest", "mimic_padchest", *settings, "--out", "data", code=1)["counts"]  # 1: a picture is torn
    why = {"lateral_view": 2, "eval_patient": 1, "truncated": 1}
    assert ingested["dropped"] == why
    assert (ingested["rows"], ingested["images"], ingested["paired"], ingested["held_out"]) == (14, 10, 7, 1)

    trained = mmclip("pretrain", "mimic_padchest", *settings, "--data", "data", "--out", "run", "--device", "cpu")
    prepared = trained["prepared"]
    assert (prepared["paired"], prepared["unpaired"], prepared["held_out"], prepared["dropped"]) == (6, 3, 1, why)
    assert prepared["entities"] > 0.5
    assert trained["finished"]["steps"] == 4
    assert len(list((tmp_path / "data").glob("pictures-*"))) == 1  # what ingest made is what pretrain used

    scored = mmclip("score", "data/images.parquet", "--prompts", "chest14", "--model", "run/bundle", "--out", "scores", "--device", "cpu")
    assert scored["counts"]["score"] == 10
    assert scored["model"]["name"] == "run"
    scores = pl.read_parquet(tmp_path / "scores/scores.parquet").select(pl.selectors.numeric().exclude("n_images"))
    assert scores.shape == (10, 14)
    assert scores.min_horizontal().min() >= 0 and scores.max_horizontal().max() <= 1
