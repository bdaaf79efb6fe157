"""Write the training population of a bundle into its mmclip.json, from the tables of its recipe; for bundles made before mmclip kept it.

    python examples/training_population.py recipes/tiny.yaml --bundle engine/model/shipped/tiny \\
        --age kermany=1-5 --nih Data_Entry_2017_v2020.csv

--age SOURCE=FROM-TO gives the ages that the publisher of a source states, where its table has none. --nih is NIH's table, from which images
that are named as in ChestX-ray14 get their patient's age. The content hash of the bundle does not change: it is of weights and tokenizer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from engine.data.sources import read_sources
from engine.data.sources.label_files import read_label_file
from engine.model.population import Population, age_in_years
from engine.recipe.loader import find_recipe, load_recipe
from engine.recipe.pretraining import PretrainRecipe


def images(recipe: PretrainRecipe, ages: dict[str, float], nih: dict[str, float]) -> Iterator[tuple[str, float | None, str]]:
    """(source, age in years or None, view) of every image that the recipe trains on."""
    frame = read_sources(recipe.sources).frame
    for image, source, age, view, held_out in frame.select("image", "source", "age", "view", "held_out").iter_rows():
        if not held_out:
            yield source, age if age is not None else nih.get(PurePosixPath(image).stem, ages.get(source)), view


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--age", action="append", default=[], metavar="SOURCE=FROM-TO")
    parser.add_argument("--nih", type=Path, metavar="TABLE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    spans = dict(each.split("=", 1) for each in args.age)
    ages = {source: sum(map(float, span.split("-"))) / len(span.split("-")) for source, span in spans.items()}
    nih: dict[str, float] = {}
    if args.nih:
        table = read_label_file(args.nih, ["Image Index", "Patient Age"])
        nih = {PurePosixPath(image).stem: years for image, age in table.iter_rows() if (years := age_in_years(age or "")) is not None}
    population = Population.of(images(load_recipe(find_recipe(args.recipe), PretrainRecipe, args.set), ages, nih))
    path = args.bundle / "mmclip.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["provenance"]["population"] = population.as_section()
    path.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    print(population)


if __name__ == "__main__":
    main()
