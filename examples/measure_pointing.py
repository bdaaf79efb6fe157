"""Do a model's heatmaps point at findings? Pointing accuracy on the boxes of ChestX-ray14, beside places that ignore the picture.

    python examples/measure_pointing.py recipes/tiny.yaml --boxes BBox_List_2017.csv --model tiny

prints a Markdown table: per finding, the pictures of the recipe's NIH source that have a box, how often the maximum of the model's map for
that finding lies in one, and how often places do that look at no picture at all:

    map          engine/model/heatmaps.py, laid over the picture; its highest pixel
    mean map     the highest pixel of the mean of the other patients' maps for the finding: what of the map is the model's habit alone
    mean place   the mean of the centres of all other patients' boxes of the finding (the whole table of boxes, about 100 each)
    usual place  the place that lies in most of those boxes
    hindsight    the place that lies in most of the very boxes it is judged by: no place that ignores the picture can do better
    chance       the share of the picture that its boxes cover

with Wilson's 95 % intervals. `held out` are patients that the recipe kept from training; the others were trained on by label, never by box.
The last lines compare the map with two of the places, picture by picture (exact McNemar test).
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.data.sources.nih14 import PICTURE_SIZE, Box, read_boxes
from engine.data.sources.table import read_table
from engine.metrics.pointing import area_share, highest_place, is_hit, mean_place, most_covered_place, pointing
from engine.model.bundle import Bundle, load_bundle
from engine.model.zero_shot import Pool, Score, Words, words_by_finding
from engine.recipe import load_recipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sources import TableSource
from engine.scoring.heatmaps import heatmaps_on, word_margins

PROMPT_OF = {"Infiltration": "Lung Opacity", "Mass": "Lung Lesion", "Nodule": "Lung Lesion"}
"""Findings of NIH that CheXpert's fourteen, and so the prompts, call otherwise."""
METHODS = ("map", "mean map", "mean place", "usual place", "hindsight")
Place = tuple[float, float]


@dataclass(frozen=True)
class Target:
    """One finding in one picture: its boxes (K, 4) as shares of the picture, and the model's map of it over that picture."""

    finding: str
    patient: str
    held_out: bool
    boxes: NDArray[np.float64]
    map: NDArray[np.float32]


def shares(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """(K, 4): left, top, right and bottom as shares of the picture's width and height."""
    return np.array([(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]) / PICTURE_SIZE


def patient_of(image: str) -> str:
    """The patient of an NIH image: the first part of its name."""
    return image.split("_")[0]


def by_finding(boxes: Sequence[Box]) -> dict[str, list[Box]]:
    """The boxes of one picture by their finding."""
    found: dict[str, list[Box]] = defaultdict(list)
    for box in boxes:
        found[box.finding].append(box)
    return found


def targets_of(
    source: TableSource, boxes: Mapping[str, Sequence[Box]], bundle: Bundle, words: Mapping[str, Words], *, score: Score, pool: Pool
) -> list[Target]:
    """Every finding with a box in every picture of the source, with the model's map."""
    found = []
    for row in read_table(source).frame.select("file", "held_out").iter_rows(named=True):
        image = f"{Path(row['file']).stem}.png"
        if image not in boxes:
            continue
        with Image.open(row["file"]) as picture:
            grey = np.asarray(picture.convert("L"))
        for finding, drawn in by_finding(boxes[image]).items():
            name = PROMPT_OF.get(finding, finding)
            (values,) = heatmaps_on(bundle, grey, [name], word_margins({name: words[name]}, score=score, pool=pool)).values()
            found.append(Target(finding, patient_of(image), row["held_out"], shares(drawn), values))
    return found


def hits_of(targets: Sequence[Target], boxes: Mapping[str, Sequence[Box]]) -> dict[str, list[bool]]:
    """Method -> whether its place for each target is a hit."""
    table: dict[str, list[tuple[str, NDArray[np.float64]]]] = defaultdict(list)
    for image, drawn in boxes.items():
        for finding, own in by_finding(drawn).items():
            table[finding].append((patient_of(image), shares(own)))

    def others(target: Target) -> list[NDArray[np.float64]]:
        return [own for patient, own in table[target.finding] if patient != target.patient]

    def mean_map(target: Target) -> Place | None:
        same_shape = [
            each.map
            for each in targets
            if each.finding == target.finding and each.patient != target.patient and each.map.shape == target.map.shape
        ]
        return highest_place(np.mean(same_shape, axis=0)) if same_shape else None

    places: dict[str, Callable[[Target], Place | None]] = {
        "map": lambda target: highest_place(target.map),
        "mean map": mean_map,
        "mean place": lambda target: mean_place(np.concatenate(others(target))),
        "usual place": lambda target: most_covered_place(others(target)),
        "hindsight": lambda target: most_covered_place([each.boxes for each in targets if each.finding == target.finding]),
    }
    found: dict[str, list[bool]] = {}
    for method in METHODS:
        chosen = [places[method](target) for target in targets]
        found[method] = [place is not None and is_hit(place, target.boxes) for place, target in zip(chosen, targets, strict=True)]
    return found


def row_of(name: str, targets: Sequence[Target], hits: Mapping[str, Sequence[bool]]) -> str:
    """One Markdown row."""
    cells = []
    for method in METHODS:
        found = pointing(hits[method])
        cells.append(f"{found.hits} = {found.rate:.2f} ({found.low:.2f}-{found.high:.2f})")
    chance = np.mean([area_share(target.boxes) for target in targets])
    return f"| {name} | {len(targets)} | {len({target.patient for target in targets})} | {' | '.join(cells)} | {chance:.2f} |"


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """Hits of the first alone, of the second alone, and the exact two-sided p of no difference."""
    one, other = (sum(a and not b for a, b in pairs) for pairs in (zip(first, second, strict=True), zip(second, first, strict=True)))
    n = one + other
    p = 2 * sum(math.comb(n, k) for k in range(min(one, other) + 1)) / 2**n
    return one, other, min(1.0, p)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="the pretraining recipe whose NIH images are looked at")
    parser.add_argument("--boxes", required=True, type=Path, help="BBox_List_2017.csv as published, also gzipped")
    parser.add_argument("--source", default="nih", help="the recipe's source with NIH's images")
    parser.add_argument("--model", default="tiny", help="a shipped model or a bundle folder")
    parser.add_argument("--prompts", default="chest14")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as mmclip pretrain --set")
    args = parser.parse_args()
    recipe = load_recipe(Path(args.recipe), PretrainRecipe, args.set)
    (source,) = [each for each in recipe.sources if isinstance(each, TableSource) and each.name == args.source]
    boxes = read_boxes(args.boxes)
    bundle, prompts = load_bundle(args.model), load_recipe(args.prompts, PromptRecipe)
    words = words_by_finding(prompts, lambda texts: bundle.text_features(texts).cpu().numpy())
    targets = targets_of(source, boxes, bundle, words, score=prompts.score, pool=prompts.pool)
    hits = hits_of(targets, boxes)
    print(f"| finding | pictures | patients | {' | '.join(METHODS)} | chance |")
    print("|---" * (len(METHODS) + 4) + "|")
    findings = list(dict.fromkeys(target.finding for target in targets))
    groups = [(finding, [target.finding == finding for target in targets]) for finding in findings]
    groups += [("all", [True] * len(targets)), ("all, held out", [target.held_out for target in targets])]
    for name, chosen in groups:
        if any(chosen):
            part = [target for target, there in zip(targets, chosen, strict=True) if there]
            print(
                row_of(name, part, {method: [hit for hit, there in zip(hits[method], chosen, strict=True) if there] for method in METHODS})
            )
    print()
    for method in ("mean place", "usual place"):
        alone, other, p = mcnemar(hits["map"], hits[method])
        print(f"hit by the map alone {alone}, by the {method} alone {other}: p = {p:.2g}")


if __name__ == "__main__":
    main()
