"""Why does a masked objective help, or not? What a run's masks hide, how they change, and what leaks past them.

    python examples/study_masks.py runs/NAME [--data runs/ablation/data] [--batches 8] [--boxes BBox_List_2017.csv]

prints a Markdown table with a row per checkpoint of a run that has an image objective, on batches of its own training images:

    mim          loss of eq 12 under the run's own masks; a decoder that knows nothing of a patch stands at about 1 (norm_pix)
    mim, swapped the same, when the encoder saw another radiograph's pixels in the hidden places. What it adds is what the visible tokens
                 had carried past the mask: with `mask_level: feature` the encoder has seen the whole image (eq 9); with `input` it has not,
                 and both are equal
    of the swapped   that reconstruction against the swapped-in pixels, which the decoder was never shown: as low as `mim` where the visible
                 tokens tell it what lies under the mask
    same place   loss of a decoder that answers every patch with the mean of that place over the other images of the batch
    overlap      mean intersection over union of the maps of report, prompts and image; 0.54 for maps that choose by chance at 0.7
    union        share of the patches that eq 7 proposes; eq 8 draws from these
    flat, lively hidden share of the quarter of each image's patches with the least and the most contrast; 0.75 for both by chance
    boxed        with --boxes: hidden share of the patches that lie in a radiologist's box, over the run's NIH images that have one, masks
                 drawn from prompts and image; 0.75 by chance
    still        rank correlation (Spearman) of the image's own map with that of the checkpoint before

Under it: how many entities reports have, and the words that are hidden most often.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.data.batches import TrainingBatches, augment
from engine.data.pretrain_data import training_images, words
from engine.data.sources.nih14 import PICTURE_SIZE, Box, read_boxes
from engine.data.store import PixelStore
from engine.data.texts import TextBank
from engine.model import attmim, entmlm
from engine.model.init import InitialModel, initial_model, prompt_tokens
from engine.model.losses import mim_loss, patchify
from engine.recipe.pretraining import Augmentation, PretrainRecipe

MAPS = ("report", "prompt", "self")


def swapped(images: Tensor, hidden: Tensor, patch: int) -> Tensor:
    """(B, 3, S, S) with the hidden (B, N) patches taken from the next image of the batch."""
    grid = images.shape[-1] // patch
    there = hidden.view(-1, 1, grid, grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    return torch.where(there, images.roll(1, 0), images)


def same_place(images: Tensor, hidden: Tensor, patch: int) -> float:
    """The loss of answering each hidden patch with the mean of the other images' normalised patches there."""
    target = patchify(images, patch)
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
    others = (target.sum(0, keepdim=True) - target) / (len(target) - 1)
    error = (others - target).square().mean(-1)
    return float((error * hidden).sum() / hidden.sum())


def spearman(first: Tensor, second: Tensor) -> float:
    """Mean rank correlation of the rows of two (B, N)."""
    ranks = [scores.argsort(1).argsort(1).float() for scores in (first, second)]
    centred = [each - each.mean(1, keepdim=True) for each in ranks]
    return float(((centred[0] * centred[1]).sum(1) / (centred[0].norm(dim=1) * centred[1].norm(dim=1))).mean())


@torch.no_grad()
def measures_of(initial: InitialModel, recipe: PretrainRecipe, batches: list[dict[str, Tensor]]) -> tuple[dict[str, float], list[Tensor]]:
    """The table's figures for the weights that `initial` holds, and the image's own map of every batch."""
    module, prompts = initial.module.eval(), prompt_tokens(recipe, initial)
    patch, switches = recipe.model.image.patch, recipe.attmim
    sums: Counter[str] = Counter()
    own = []
    for number, batch in enumerate(batches):
        generator = torch.Generator().manual_seed(number)
        images = batch["seen"]
        tokens = module.encode_images(images)
        image = module.clip.visual_projection(tokens[:, 1:])
        report = module.clip.text_projection(module.encode_texts(batch["input_ids"]))
        contexts = {
            "report": (report, batch["padding_mask"]),
            "prompt": (module.prompt_tokens(prompts[0]), prompts[1].flatten()[None]),
            "self": (image, None),
        }
        scores = {name: attmim.patch_scores(image, *contexts[name], switches) for name in MAPS}
        tops = [attmim.top_patches(each, switches.top) for each in scores.values()]
        hidden = attmim.hidden_patches(
            image,
            contexts["prompt"][0],
            switches,
            prompt_padding=contexts["prompt"][1],
            report=report,
            padding_mask=batch["padding_mask"],
            generator=generator,
        )
        contrast = patchify(images, patch).std(-1)
        place = contrast.argsort(1).argsort(1) / contrast.shape[1]
        both = [(a & b).sum() / (a | b).sum() for at, a in enumerate(tops) for b in tops[at + 1 :]]
        # _reconstruct takes the encoder's tokens of what it is to have seen; with `input` it encodes the visible patches itself
        decoded = module._reconstruct(images, tokens, hidden)
        other = swapped(images, hidden, patch)
        decoded_other = module._reconstruct(other, module.encode_images(other), hidden)
        norm_pix = recipe.model.image_decoder.norm_pix
        found = {
            "mim": float(mim_loss(decoded, images, hidden, norm_pix=norm_pix)),
            "mim, swapped": float(mim_loss(decoded_other, images, hidden, norm_pix=norm_pix)),
            "of the swapped": float(mim_loss(decoded_other, other, hidden, norm_pix=norm_pix)),
            "same place": same_place(images, hidden, patch),
            "overlap": float(torch.stack(both).mean()),
            "union": float(torch.stack(tops).any(0).float().mean()),
            "flat": float(hidden[place < 0.25].float().mean()),
            "lively": float(hidden[place >= 0.75].float().mean()),
        }
        sums.update(found)
        own.append(scores["self"])
    return {name: value / len(batches) for name, value in sums.items()}, own


def boxed_images(store: PixelStore, boxes: Mapping[str, Sequence[Box]], grid: int) -> tuple[Tensor, Tensor]:
    """uint8 (K, S0, S0) pictures of the store that have boxes, and (K, N): True where the centre of a patch lies in one."""
    images = [image for image in store.entries if f"{Path(image).stem}.png" in boxes and image not in store.dropped()]
    inside = torch.zeros(len(images), grid, grid, dtype=torch.bool)
    for number, image in enumerate(images):
        for box in boxes[f"{Path(image).stem}.png"]:
            centres = (torch.arange(grid) + 0.5) * PICTURE_SIZE / grid
            rows = (centres >= box.y) & (centres < box.y + box.height)
            columns = (centres >= box.x) & (centres < box.x + box.width)
            inside[number] |= rows[:, None] & columns[None]
    pictures = torch.stack([torch.from_numpy(np.array(store.picture(image))) for image in images])
    return pictures, inside.flatten(1)


@torch.no_grad()
def boxed_share(initial: InitialModel, recipe: PretrainRecipe, seen: Tensor, inside: Tensor) -> float:
    """The hidden share of the patches in boxes, over 16 draws of the mask; `seen` (K, 3, S, S) as the model sees them."""
    module, (ids, padding) = initial.module.eval(), prompt_tokens(recipe, initial)
    image = module.clip.visual_projection(module.encode_images(seen)[:, 1:])
    generator, prompts = torch.Generator().manual_seed(0), module.prompt_tokens(ids)
    shares = []
    for _ in range(16):
        hidden = attmim.hidden_patches(image, prompts, recipe.attmim, prompt_padding=padding.flatten()[None], generator=generator)
        shares.append(float(hidden[inside].float().mean()))
    return sum(shares) / len(shares)


def entities(bank: TextBank, initial: InitialModel, recipe: PretrainRecipe) -> list[str]:
    """What EntMLM hides in the bank's texts, in plain lines."""
    ids = torch.from_numpy(bank.entity_ids.astype("int64"))
    length = torch.arange(ids.shape[1])[None]
    inside = (length > 0) & (length < torch.from_numpy(bank.lengths.astype("int64"))[:, None] - 1)
    hidden = entmlm.hidden_positions(ids, inside, recipe.entmlm, torch.Generator().manual_seed(0))
    counts = ids.max(1).values
    tokens: Counter[str] = Counter()
    for row, places in zip(bank.input_ids, hidden.numpy(), strict=True):
        tokens.update(initial.tokenizer.decode([int(token)]).strip() for token in row[places])
    return [
        f"{len(ids)} texts, {float((counts > 0).float().mean()):.3f} with an entity, {float(counts.float().mean()):.2f} entities each",
        f"hidden: {float(hidden.sum() / inside.sum()):.3f} of all words; most often: "
        + ", ".join(f"{word} ({count})" for word, count in tokens.most_common(12)),
    ]


def main() -> None:
    """Print the table of one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="folder of prepared data; RUN/data where it is the run's own")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--boxes", type=Path, help="NIH's table of boxes; the run must have NIH images, in pictures of 1:1")
    args = parser.parse_args()
    recipe = PretrainRecipe.model_validate(json.loads((args.run / "run.json").read_text("utf-8"))["recipe"])
    found = training_images(recipe, args.data or args.run / "data", verify=False)
    initial = initial_model(recipe, [text for texts in found.texts.values() for text in texts])
    recogniser = None
    if recipe.entmlm.strategy == "entity":
        from engine.data.entities import load_recogniser

        recogniser = load_recogniser(recipe.entities)
    bank = words(found.texts, initial.tokenizer, recogniser, initial.context, args.data or args.run / "data")
    drawn = TrainingBatches(found.frame, found.store, bank, paired=64, unpaired=0, seed=recipe.seed)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (initial.preprocessing.mean, initial.preprocessing.std))
    batches = [dict(drawn.at(number)) for number in range(args.batches)]

    def as_seen(stored: Tensor, views: Augmentation, seed: int) -> Tensor:
        return (augment(stored, views, initial.preprocessing.size, torch.Generator().manual_seed(seed)) - mean) / std

    for number, batch in enumerate(batches):
        batch["seen"] = as_seen(batch["images"], recipe.augmentation, number)
    boxed = None
    if args.boxes:
        stored, inside = boxed_images(found.store, read_boxes(args.boxes), recipe.model.image.size // recipe.model.image.patch)
        boxed = as_seen(stored, Augmentation(), 0), inside
    before: list[Tensor] | None = None
    names: list[str] = []
    for folder in sorted((args.run / "checkpoints").glob("step-*")):
        initial.module.load_state_dict(load_file(folder / "weights.safetensors"))
        row, own = measures_of(initial, recipe, batches)
        if boxed is not None:
            row["boxed"] = boxed_share(initial, recipe, *boxed)
        if not names:
            names = [*row, "still"]
            print(f"| step | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
        still = "-" if before is None else f"{sum(map(spearman, before, own)) / len(own):.3f}"
        print(f"| {int(folder.name[5:])} | {' | '.join(f'{value:.3f}' for value in row.values())} | {still} |", flush=True)
        before = own
    if recogniser is not None:
        print("\n".join(["", *entities(bank, initial, recipe)]))


if __name__ == "__main__":
    main()
