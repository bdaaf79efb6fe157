"""What does each part of the objective add? Eight arms, three seeds, the same data and steps, measured on patients that no arm saw.

    python examples/ablate.py recipes/notes.yaml --out runs/ablation

trains every arm that `--out` does not hold yet (a killed run goes on from its last checkpoint), then prints a Markdown table: per arm,
the mean AUROC over findings on each source's held-out patients, zero-shot with chest14, as mean and range over the seeds.
`--table-only` prints what is there. All arms are scaled down alike (SMALL): 24 runs of
4 to 15 minutes each on one thread of a busy CPU server.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import polars as pl
from measure import FEWEST, image_features, pictures

from engine.data.sources.table import read_table
from engine.metrics.roc import auroc
from engine.model.bundle import load_bundle
from engine.model.zero_shot import logit_scale, words_by_finding, zero_shot
from engine.pretrain import pretrain
from engine.recipe import load_recipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sources import TableSource

SMALL = (
    "model.image={width: 128, layers: 6, heads: 2, size: 96, patch: 16}",
    "store_size=128",
    "steps=500",
    "warmup.iterations=75",
    "optimizer.lr_warmup=50",
    "optimizer.lr=1e-3",
    "checkpoint.every=250",
)
ARMS = {
    "contrastive alone": ("attmim.strategy=none", "entmlm.strategy=none", "warmup.iterations=0"),
    "+ MIM, random": ("attmim.strategy=random", "entmlm.strategy=none", "warmup.mask=random"),
    "+ AttMIM": ("attmim.strategy=attmim", "entmlm.strategy=none"),
    "+ AttMIM + EntMLM": ("attmim.strategy=attmim", "entmlm.strategy=entity"),
    "+ AttMIM + EntMLM, no warm-up": ("attmim.strategy=attmim", "entmlm.strategy=entity", "warmup.iterations=0"),
    "+ AttMIM of the input": ("attmim.strategy=attmim", "attmim.mask_level=input", "entmlm.strategy=none"),
    "+ MIM, random, no warm-up": ("attmim.strategy=random", "entmlm.strategy=none", "warmup.iterations=0"),
    "+ EntMLM": ("attmim.strategy=none", "entmlm.strategy=entity"),
}


def held_out_auroc(recipe: PretrainRecipe, bundle_folder: Path, prompts: PromptRecipe) -> dict[str, float]:
    """Source -> mean AUROC over the findings that its held-out patients show often enough; and the first finding's own."""
    bundle = load_bundle(bundle_folder)
    found: dict[str, float] = {}
    for source in recipe.sources:
        if not isinstance(source, TableSource) or source.split.train == 1:
            continue
        held = read_table(source).frame.filter(pl.col("held_out"))
        names = [name for name in prompts.findings if name in held.columns]
        if held.is_empty() or not names:
            continue
        scores = zero_shot(
            image_features(bundle, pictures(held["file"].to_list())),
            words_by_finding(prompts, lambda texts: bundle.text_features(texts).cpu().numpy()),
            score=prompts.score,
            pool=prompts.pool,
            scale=logit_scale(prompts, bundle.logit_scale),
        )
        each = []
        for column, name in enumerate(prompts.findings):
            if name not in held.columns:
                continue
            known = held[name].is_not_null().to_numpy()
            truth = held[name].to_numpy()[known]
            if min((truth == 1).sum(), (truth == 0).sum()) >= FEWEST:
                each.append(auroc(scores[known, column], truth))
        if each:
            found[source.name or "table"] = float(np.mean(each))
    return found


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="the recipe that all arms share")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", type=int, nargs="+", default=list(range(len(ARMS))), help="numbers of the arms to train now")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as mmclip pretrain --set")
    parser.add_argument("--table-only", action="store_true")
    args = parser.parse_args()
    prompts = load_recipe("chest14", PromptRecipe)
    results: dict[str, dict[str, list[float]]] = {}
    for number, (arm, changes) in enumerate(ARMS.items()):
        for seed in args.seeds:
            run = args.out / f"arm{number}-seed{seed}"
            recipe = load_recipe(Path(args.recipe), PretrainRecipe, [*SMALL, *args.set, *changes, f"seed={seed}"])
            figures = run / "held_out_auroc.json"
            if not figures.exists() and not args.table_only and number in args.arms:
                for _event in pretrain(recipe, run, resume=run.exists(), data=args.out / "data"):
                    pass
                figures.write_text(json.dumps(held_out_auroc(recipe, run / "bundle", prompts)) + "\n", "utf-8")
                print(f"trained: {arm}, seed {seed}", flush=True)
            if figures.exists():
                for source, value in json.loads(figures.read_text("utf-8")).items():
                    results.setdefault(arm, {}).setdefault(source, []).append(value)
    sources = sorted({source for by_source in results.values() for source in by_source})
    print(f"| arm | seeds | {' | '.join(f'{source}, held-out patients' for source in sources)} |")
    print("|---|---|" + "---|" * len(sources))
    for arm, by_source in results.items():
        cells = [
            f"{statistics.mean(by_source[s]):.3f} ({min(by_source[s]):.3f}-{max(by_source[s]):.3f})" if s in by_source else "-"
            for s in sources
        ]
        print(f"| {arm} | {max(map(len, by_source.values()))} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
