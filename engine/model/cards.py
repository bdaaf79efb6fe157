"""A fine-tuned classifier as it is kept: its bundle, and the card that says what it was made of and what was measured, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.model.bundle import save_bundle

if TYPE_CHECKING:
    from engine.model.bundle import Bundle
    from engine.recipe.finetuning import FinetuneRecipe


from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from engine.model.init import Starting
    from engine.recipe.pretraining import PretrainRecipe


# A pretrained model as it is kept: its bundle, its first card, and its recipe without the paths of the machine that made it.


def save_pretrained(
    folder: Path, starting: Starting, weights: dict[str, Tensor], recipe: PretrainRecipe, facts: Mapping[str, Any], **counts: int
) -> None:
    """The bundle of a run.

    Args:
        starting: what it started from: the towers' configuration, tokenizer and preprocessing.
        weights: of the trained towers, on the host.
        facts: of `run.json`.
        counts: `steps`, `paired` and `unpaired`, as `first_card` takes them.
    """
    from transformers import CLIPModel

    with torch.device("meta"):
        clip = CLIPModel(starting.module.clip.config)
    clip.load_state_dict(weights, assign=True)  # the trained towers may be sharded
    save_bundle(
        folder / "bundle",
        clip,
        starting.tokenizer,
        starting.preprocessing,
        name=folder.name or "run",
        card=first_card(recipe, **counts, data_hash=facts["data_hash"], recipe_hash=facts["recipe_hash"]),
        provenance={
            "steps": counts["steps"],
            "recipe": portable_recipe(facts["recipe"]),
            **{key: facts[key] for key in ("recipe_hash", "data_hash", "sources", "versions", "seed")},
        },
    )


def first_card(recipe: PretrainRecipe, *, steps: int, paired: int, unpaired: int, data_hash: str, recipe_hash: str) -> str:
    """A model card of what is known without having judged the model.

    Args:
        steps: that were taken.
        paired, unpaired: images trained on, with and without words.
        data_hash, recipe_hash: of which the card shows the first twelve digits.
    """
    kinds = sorted(
        {"weak pairs (sentences made from labels)" if getattr(s, "reports", "") == "weak" else "reports" for s in recipe.sources}
    )
    return "\n".join(
        [
            "RESEARCH USE ONLY - not for clinical use.",
            "",
            f"MMCLIP pretrained for {steps} steps of {recipe.batch.paired} images with a report and {recipe.batch.unpaired} without, "
            f"seed {recipe.seed}.",
            f"Images: {paired} with words ({', '.join(kinds)}), {unpaired} without; data {data_hash[:12]}, recipe {recipe_hash[:12]}.",
            f"Source of the recipe: {recipe.source or 'not given'}",
            "Not evaluated: nothing is known yet of how well it tells findings apart.",
            "",
        ]
    )


def portable_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A dumped recipe as a model may carry it to others: of an absolute path, however deep it stands, only its last part."""
    return {key: _portable(value) for key, value in recipe.items()}


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return portable_recipe(value)
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


NAMES = {"full": "this classifier", "linear": "this classifier", "raw_pixels": "raw pixels, logistic regression", "zero_shot": "zero-shot"}


def save_finetuned(
    folder: Path, model: Bundle, name: str, recipe: FinetuneRecipe, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **more: Any
) -> None:
    """The bundle of a classifier.

    Args:
        model: the tower with its head.
        name: what the bundle is called.
        facts: as `classifier_facts` gives them.
        rows: of the learning curve, those of this fraction and of zero-shot.
        more: sections of its provenance beside the facts and the recipe.

    Raises:
        OutputError: it cannot be written.
    """
    save_bundle(
        folder,
        model.clip,
        model.tokenizer,
        model.preprocessing,
        name=name,
        card=classifier_card(name, facts, rows),
        provenance={**facts, "recipe": portable_recipe(recipe.model_dump(mode="json")), **more},
        head=model.head,
    )


def classifier_facts(
    recipe: FinetuneRecipe,
    recipe_hash: str,
    about: Mapping[str, Any],
    *,
    base_hash: str,
    parts: Mapping[str, Mapping[str, Any]],
    sources: Sequence[str],
) -> dict[str, Any]:
    """What the card and the bundle say of where a classifier comes from; of the model's path only its last part.

    Args:
        about: of the head: fraction, and strength or steps, whichever the validation part chose.
        parts: part -> patients, images, sha256.
    """
    return {
        "base": Path(recipe.model).name,
        "base_hash": base_hash,
        "mode": recipe.mode,
        "init": recipe.init,
        "fraction": about["fraction"],
        "seed": recipe.seed,
        "parts": parts,
        "steps": f"C = {about['strength']:g}" if "strength" in about else f"{about['steps']} steps of {recipe.batch} images",
        "pos_weight": recipe.pos_weight,
        "recipe_hash": recipe_hash,
        "sources": list(sources),
    }


def classifier_card(name: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown.

    Args:
        name: what the bundle is called.
        facts: as `classifier_facts` gives them.
        rows: of the learning curve, those of this fraction and of zero-shot.
    """
    parts = facts["parts"]
    how = "image tower and head trained together" if facts["mode"] == "full" else "a head trained on features that stand still"
    weights = "random weights (a control)" if facts["init"] == "random" else f"`{facts['base']}` ({facts['base_hash'][:12]})"
    lines = [
        f"# {name}",
        "",
        "**RESEARCH USE ONLY - not for clinical use.** A classifier made by `mmclip finetune`; its scores are not calibrated.",
        "",
        "| | |",
        "|---|---|",
        f"| made from | {weights} |",
        f"| how | {facts['mode']}: {how}; {facts['steps']}; seed {facts['seed']}; class weights {facts['pos_weight']} |",
        f"| labels | {100 * facts['fraction']:g} % of the training patients, drawn by patient |",
        *(
            f"| {part} part | {parts[part]['patients']} patients, {parts[part]['images']} images, sha256 {parts[part]['sha256'][:16]} |"
            for part in ("train", "validation", "test")
        ),
        f"| sources | {', '.join(facts['sources'])} |",
        f"| recipe | sha256 {facts['recipe_hash'][:16]} |",
        "",
        "## Figures",
        "",
        "On the test part, whose patients were neither trained on nor chosen by. AUROC with 95 % interval.",
        "",
        "| finding | images | positive | scored by | AUROC (95 %) | AUPRC |",
        "|---|---|---|---|---|---|",
        *(_row(row) for row in rows),
        "",
        "The raw-pixel baseline is trained on the same images as the classifier. What the model that it was made from had met of these",
        "patients, and of their labels, stands in that model's card, and counts.",
        "",
    ]
    return "\n".join(lines)


def _row(row: Mapping[str, Any]) -> str:
    head = f"| {row['finding']} | {row['n']} | {row['n_positive']} | {NAMES[row['method']]} |"
    if row["auroc"] is None:
        return f"{head} - ({row['reason']}) | - |"
    interval = "" if row["auroc_low"] is None else f" ({row['auroc_low']:.3f}-{row['auroc_high']:.3f})"
    return f"{head} {row['auroc']:.3f}{interval} | {row['auprc']:.3f} |"
