"""How well does a model tell findings of the patients that its recipe held out, by words alone, and how well do raw pixels?

    python examples/measure.py recipes/tiny.yaml --model tiny

prints a Markdown table in about 40 seconds (one thread of a busy CPU server): per source of the recipe and finding, the AUROC with its
95 % interval by a bootstrap over patients. The baseline is fitted to the labels of the same source's training patients (32 x 32 grey
pixels, standardised, L2 with C = 0.001). The zero-shot column uses words alone; the model has met those patients' labels as sentences.
"among pneumonia" looks at images with pneumonia alone: there NIH's shortcut (its pneumonia and normal images come from different patient
ranges) cannot help.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from engine.data.sources.table import read_table
from engine.metrics.findings import FindingFigures, figures
from engine.model.bundle import Bundle, load_bundle
from engine.model.preprocessing import resized
from engine.model.zero_shot import logit_scale, words_by_finding, zero_shot
from engine.recipe import load_recipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sources import TableSource

BASELINE_SIDE = 32
FEWEST = 5
"""Findings with fewer positives or negatives than this are left out: their interval says nothing."""


def pictures(files: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Grey pictures (H, W) of PNG or JPEG files."""
    loaded = []
    for file in files:
        with Image.open(file) as image:
            loaded.append(np.asarray(image.convert("L")))
    return loaded


def image_features(bundle: Bundle, grey: Sequence[NDArray[np.uint8]], batch: int = 64) -> NDArray[np.float32]:
    """(N, D) features of N pictures."""
    parts = [bundle.image_features(bundle.pixels(grey[start : start + batch])).cpu().numpy() for start in range(0, len(grey), batch)]
    return np.concatenate(parts)


def raw_pixels(grey: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """(N, 1024) grey values in [0, 1] of pictures squashed to 32 x 32."""
    return np.stack([resized(picture, BASELINE_SIDE, "squash") for picture in grey]).reshape(len(grey), -1) / 255.0


def baseline_scores(train: NDArray[np.float64], labels: NDArray[np.int8], test: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Probabilities by logistic regression on raw pixels; None where the training patients show one class only."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(labels)) < 2:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=5000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(train, labels)
    scores: NDArray[np.float64] = model.predict_proba(test)[:, 1]
    return scores


def cell(row: FindingFigures | None) -> str:
    """An AUROC with its interval as words."""
    return "-" if row is None or row.auroc is None else f"{row.auroc:.3f} ({row.auroc_low:.3f}-{row.auroc_high:.3f})"


def rows_of(source: TableSource, bundle: Bundle, prompts: PromptRecipe) -> list[str]:
    """The Markdown rows of one source."""
    frame = read_table(source).frame
    held, seen = frame.filter(pl.col("held_out")), frame.filter(~pl.col("held_out"))
    findings = [name for name in prompts.findings if name in frame.columns]
    if held.is_empty() or not findings:
        return []
    held_pictures, seen_pictures = pictures(held["file"].to_list()), pictures(seen["file"].to_list())
    scores = zero_shot(
        image_features(bundle, held_pictures),
        words_by_finding(prompts, lambda texts: bundle.text_features(texts).cpu().numpy()),
        score=prompts.score,
        pool=prompts.pool,
        scale=logit_scale(prompts, bundle.logit_scale),
    )
    held_pixels, seen_pixels = raw_pixels(held_pictures), raw_pixels(seen_pictures)
    patients = held["patient"].to_numpy()
    name = source.name or "table"
    parts = [(name, np.ones(held.height, bool), np.ones(seen.height, bool))]
    if "Pneumonia" in findings and len(findings) > 4:  # where many findings are known, the shortcut can be taken away
        among = [(part["Pneumonia"] == 1).fill_null(False).to_numpy() for part in (held, seen)]
        parts.append((f"{name} among pneumonia", among[0], among[1]))
    rows = []
    for part, test, train in parts:
        for finding in findings:
            truth, known = held[finding].to_numpy(), test & held[finding].is_not_null().to_numpy()
            positives = int((truth[known] == 1).sum())
            if min(positives, int(known.sum()) - positives) < FEWEST:
                continue
            labelled = train & seen[finding].is_not_null().to_numpy()
            fitted = baseline_scores(seen_pixels[labelled], seen[finding].to_numpy()[labelled].astype(np.int8), held_pixels[known])
            column = list(prompts.findings).index(finding)
            zero, raw = (
                None if found is None else figures([finding], found[:, None], truth[known, None].astype(float), patients[known])[0]
                for found in (scores[known, column], fitted)
            )
            rows.append(f"| {part} | {finding} | {int(known.sum())} | {positives} | {cell(zero)} | {cell(raw)} |")
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="the pretraining recipe whose held-out patients are scored")
    parser.add_argument("--model", default="tiny", help="a shipped model or a bundle folder")
    parser.add_argument("--prompts", default="chest14")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as mmclip pretrain --set")
    args = parser.parse_args()
    recipe = load_recipe(Path(args.recipe), PretrainRecipe, args.set)
    prompts = load_recipe(args.prompts, PromptRecipe)
    bundle = load_bundle(args.model)
    print("| held-out patients of | finding | images | positive | zero-shot AUROC (95 %) | raw pixels, supervised |")
    print("|---|---|---|---|---|---|")
    for source in recipe.sources:
        if isinstance(source, TableSource) and source.split.train < 1:
            print("\n".join(rows_of(source, bundle, prompts)))


if __name__ == "__main__":
    main()
