"""The card of a fine-tuned classifier: what it was made of and what was measured, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {"full": "this classifier", "linear": "this classifier", "raw_pixels": "raw pixels, logistic regression", "zero_shot": "zero-shot"}


def classifier_card(name: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown.

    Args:
        name: what the bundle is called.
        facts: base, base_hash, mode, init, fraction, seed, parts (part -> patients, images, sha256), steps, pos_weight, recipe_hash and
            sources, as `engine.finetune` fills them.
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
