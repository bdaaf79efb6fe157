"""MMCLIP for chest radiographs. The engine never prints, never exits and knows no command line; use it as a library.

Map of the house, from the door down. A room imports only from the rooms below it.

    mmclip_cli     the only code that prints, asks or exits
    ─ verbs ─      generators of small frozen dataclasses; no verb imports another
    score.py       folder or image table + prompts + model -> score rows
    ingest.py      a data set's own layout or a folder of DICOM -> image table, pixel store
    pretrain.py    image table + reports + recipe -> steps, checkpoint, bundle
    evaluate.py    evaluation recipes -> figures with intervals, with published ones; judge.py: the same of scores that are there
    finetune.py    image tower + labels + fraction -> classifier bundle, learning curve
    report.py      score and metric tables -> files
    encode.py      one image and its words -> features, from Python
    ─ rooms ─      strangers to each other, except that data may use dicom
    dicom/         which files, typed header and policy, stored values -> one grey image, worker processes
    data/          reports, entities, image tables of data sets, pixel store, batches
    model/         towers, AttMIM, EntMLM, decoders, losses by name; bundles on disk
    training/      a loop that knows no CLIP and no DICOM; optimizer; checkpoints
    metrics/       AUROC with intervals, thresholds: pure functions of arrays
    ─ floor ─
    recipe/        typed recipes from strict YAML; no torch
    tables/        append-only Parquet parts, atomic publish
    errors.py      the family of errors and their exit codes

The verbs are modules, each with its own function name, and `MMCLIPModel` compares one image with words. All of them are imported
when they are first used, so that `import engine` costs nothing:

    from engine import MMCLIPModel
    model = MMCLIPModel.from_pretrained("tiny")
    image_features, text_features = model.encode(image, ["pneumonia", "no pneumonia"])
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine import evaluate as evaluate
    from engine import finetune as finetune
    from engine import ingest as ingest
    from engine import pretrain as pretrain
    from engine import score as score
    from engine.encode import MMCLIPModel as MMCLIPModel

VERBS = ("evaluate", "finetune", "ingest", "pretrain", "score")


def __getattr__(name: str) -> Any:
    if name in VERBS:
        return importlib.import_module(f"engine.{name}")
    if name == "MMCLIPModel":
        return importlib.import_module("engine.encode").MMCLIPModel
    if name == "judge":
        warnings.warn(
            "engine.judge is now engine.evaluation.from_scores; the old name goes with the next release", DeprecationWarning, stacklevel=2
        )
        return importlib.import_module("engine.evaluation.from_scores")
    raise AttributeError(f"module 'engine' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*VERBS, "MMCLIPModel"])
