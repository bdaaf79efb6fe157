"""A fine-tuned classifier as it is kept: its bundle, and the card that says what it was made of and what was measured, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.model.bundle import save_bundle
from engine.model.pretrained import portable_recipe

if TYPE_CHECKING:
    from engine.model.bundle import Bundle
    from engine.recipe.finetuning import FinetuneRecipe

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
