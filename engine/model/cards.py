"""Model cards, and the bundles of pretrained and fine-tuned models. A card says how a model was made and what was measured, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.model.bundle import save_bundle

if TYPE_CHECKING:
    from engine.model.bundle import Bundle
    from engine.model.init import InitialModel
    from engine.recipe.finetuning import FinetuneRecipe
    from engine.recipe.pretraining import PretrainRecipe

METHODS = {
    "full": "this classifier",
    "linear": "this classifier",
    "raw_pixels": "raw pixels, logistic regression",
    "zero_shot": "zero-shot",
}


def portable_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A dumped recipe without the folders of this machine: of each absolute path only the last name."""
    return {key: _portable(value) for key, value in recipe.items()}


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return portable_recipe(value)
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


# ---- pretrained models ------------------------------------------------------------------------------------------------------------


def save_pretrained(
    folder: Path, initial: InitialModel, weights: dict[str, Tensor], recipe: PretrainRecipe, facts: Mapping[str, Any], **counts: int
) -> None:
    """Write the bundle of a pretraining run.

    Args:
        initial: gives the towers' configuration, tokenizer and preprocessing.
        weights: of the trained towers, on the host.
        facts: of `run.json`.
        counts: `steps`, `paired` and `unpaired`, as `pretrained_card` takes them.
    """
    from transformers import CLIPModel

    with torch.device("meta"):
        clip = CLIPModel(initial.module.clip.config)
    clip.load_state_dict(weights, assign=True)  # the trained towers may be sharded
    save_bundle(
        folder / "bundle",
        clip,
        initial.tokenizer,
        initial.preprocessing,
        name=folder.name or "run",
        card=pretrained_card(recipe, **counts, data_hash=facts["data_hash"], recipe_hash=facts["recipe_hash"]),
        provenance={
            "steps": counts["steps"],
            "recipe": portable_recipe(facts["recipe"]),
            **{key: facts[key] for key in ("recipe_hash", "data_hash", "sources", "population", "versions", "seed")},
        },
    )


def pretrained_card(recipe: PretrainRecipe, *, steps: int, paired: int, unpaired: int, data_hash: str, recipe_hash: str) -> str:
    """The card of a model that has not been evaluated.

    Args:
        steps: number of steps taken.
        paired, unpaired: number of images with and without text.
        data_hash, recipe_hash: the card shows the first twelve digits.
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
            f"Images: {paired} with text ({', '.join(kinds)}), {unpaired} without; data {data_hash[:12]}, recipe {recipe_hash[:12]}.",
            f"Source of the recipe: {recipe.source or 'not given'}",
            "Not evaluated: it is not known how well this model recognises any finding.",
            "",
        ]
    )


# ---- fine-tuned classifiers --------------------------------------------------------------------------------------------------------


def save_finetuned(
    folder: Path, model: Bundle, name: str, recipe: FinetuneRecipe, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], **more: Any
) -> None:
    """Write the bundle of a classifier.

    Args:
        model: the tower with its head.
        name: of the bundle.
        facts: of `classifier_facts`.
        rows: of the learning curve, for this fraction and for zero-shot.
        more: further sections of the provenance.

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
    split_by: str,
) -> dict[str, Any]:
    """How a classifier was made, for its card and provenance; of the model's path only the last name.

    Args:
        about: of the head: fraction, and the strength or number of steps chosen on the validation split.
        parts: split -> patients, images, sha256.
        split_by: what the splits go by: patient, study or image.
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
        "split_by": split_by,
    }


def classifier_card(name: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The card of a classifier, as Markdown.

    Args:
        name: of the bundle.
        facts: of `classifier_facts`.
        rows: of the learning curve, for this fraction and for zero-shot.
    """
    parts, by = facts["parts"], facts["split_by"]
    how = "image tower and head trained together" if facts["mode"] == "full" else "head trained on frozen features"
    weights = "random weights (a control)" if facts["init"] == "random" else f"`{facts['base']}` ({facts['base_hash'][:12]})"
    lines = [
        f"# {name}",
        "",
        "**RESEARCH USE ONLY - not for clinical use.** A classifier of `mmclip finetune`. Its scores are not calibrated probabilities.",
        "",
        "| | |",
        "|---|---|",
        f"| base model | {weights} |",
        f"| training | {facts['mode']}: {how}; {facts['steps']}; seed {facts['seed']}; class weights {facts['pos_weight']} |",
        f"| labels | {100 * facts['fraction']:g} % of the training {_owners(by)}, drawn by {by} |",
        *([f"| split | **by {by}**: no patient is named, so patients may be on both sides and the figures too good |"] * (by != "patient")),
        *(
            f"| {split} split | {each['patients']} patients, {each['images']} images, sha256 {each['sha256'][:16]} |"
            for split, each in ((split, parts[split]) for split in ("train", "validation", "test"))
        ),
        f"| sources | {', '.join(facts['sources'])} |",
        f"| recipe | sha256 {facts['recipe_hash'][:16]} |",
        "",
        "## Figures",
        "",
        f"On the test split. Its {_owners(by)} were not used to train this classifier or to choose its settings. AUROC with 95 % interval.",
        "",
        "| finding | images | positive | scored by | AUROC (95 %) | AUPRC |",
        "|---|---|---|---|---|---|",
        *(_row(row) for row in rows),
        "",
        "The raw-pixel baseline is trained on the same images as the classifier. If the base model was trained on images or labels of",
        "these patients (see its card), the figures are optimistic.",
        "",
    ]
    return "\n".join(lines)


def _owners(by: str) -> str:
    return {"patient": "patients", "study": "studies"}.get(by, "images")


def _row(row: Mapping[str, Any]) -> str:
    head = f"| {row['finding']} | {row['n']} | {row['n_positive']} | {METHODS[row['method']]} |"
    if row["auroc"] is None:
        return f"{head} - ({row['reason']}) | - |"
    interval = "" if row["auroc_low"] is None else f" ({row['auroc_low']:.3f}-{row['auroc_high']:.3f})"
    return f"{head} {row['auroc']:.3f}{interval} | {row['auprc']:.3f} |"
