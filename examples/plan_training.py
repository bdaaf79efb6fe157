"""What will a recipe ask of a GPU? Worked out without one: weights, memory that a step keeps, operations, hours. A quarter of a minute.

    python examples/plan_training.py mimic_padchest [mimic_padchest_modern ...] [--tflops 395] [--gpus 1 8]

Weights are counted. Memory that an image keeps until the way back is measured on this machine, in bf16 autocast, as the bytes that autograd
saves for four images less those for two; blocks are not compiled here, which on a GPU saves some of it. Operations come by formula
(engine/model/flops.py). Hours are arithmetic, not a measurement: all steps' operations at `--tflops` sustained by each GPU, shared equally,
with nothing lost between them. 395 is half of the 790 TFLOP/s that dense bf16 products reach on one H200.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from transformers import CLIPModel

from engine.model.flops import step_flops
from engine.model.mmclip import MMCLIP, clip_config
from engine.recipe import load_recipe
from engine.recipe.pretraining import PretrainRecipe

GIB = 2**30
VOCABULARY, SOT, EOT = 49_408, 49_406, 49_407
"""OpenAI's: what the paper's recipes start from."""


def built(recipe: PretrainRecipe) -> MMCLIP:
    """The recipe's model with random weights."""
    torch.manual_seed(0)
    return MMCLIP(CLIPModel(clip_config(recipe, vocab_size=VOCABULARY, sot=SOT, eot=EOT)), recipe)


def kept_bytes(model: MMCLIP, images: int, prompts: tuple[Tensor, Tensor]) -> int:
    """Bytes that autograd keeps for the way back of a batch of so many images, half of them with a report; weights are not counted."""
    recipe, own = model.recipe, {each.untyped_storage().data_ptr() for each in model.parameters()}
    seen: dict[int, int] = {}

    def keep(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return saved

    size, text = recipe.model.image.size, recipe.model.text.context
    pairs = images // 2
    batch = {
        "images": torch.randn(pairs, 3, size, size),
        "unpaired_images": torch.randn(images - pairs, 3, size, size),
        "input_ids": torch.cat([torch.full((pairs, 1), SOT), torch.randint(0, SOT, (pairs, text - 2)), torch.full((pairs, 1), EOT)], 1),
        "padding_mask": torch.zeros(pairs, text, dtype=torch.bool),
        "entity_ids": torch.arange(text).expand(pairs, text) % 7,
    }
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        losses = model.losses(batch, prompts=prompts, generator=torch.Generator().manual_seed(0))
        total = sum(losses.values())  # held until here: a freed tensor's address could be another's
    del total
    return sum(seen.values())


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--tflops", type=float, default=395.0)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8])
    args = parser.parse_args()
    hours = [f"hours on {count}" for count in args.gpus]
    memory = [f"GiB on each of {count}" for count in args.gpus]
    columns = ["recipe", "million weights", "images a step", "steps", "TFLOP a step", "weights and optimizer, GiB", "kept, MiB an image"]
    print(f"| {' | '.join([*columns, *memory, *hours])} |")
    print("|---" * (len(columns) + len(memory) + len(hours)) + "|")
    for name in args.recipes:
        recipe = load_recipe(name, PretrainRecipe)
        model = built(recipe)
        weights = sum(each.numel() for each in model.parameters())
        length = min(60, recipe.model.text.context)  # the fourteen findings, joined, in OpenAI's tokens, rounded up
        prompts = (torch.randint(0, SOT, (1, length)), torch.zeros(1, length, dtype=torch.bool))
        kept = (kept_bytes(model, 4, prompts) - kept_bytes(model, 2, prompts)) / 2
        # float32 weights and gradients, and the optimizer's state: momentum, or AdamW's two moments
        fixed = weights * 4 * (2 + (1 if recipe.optimizer.name == "sgd" else 2))
        batch = recipe.batch
        flops = step_flops(model, paired=batch.paired, unpaired=batch.unpaired, text=recipe.model.text.context, prompts=(1, length)).total
        images = batch.paired + batch.unpaired
        at_once = [min(images // count, recipe.compute.micro_batch or images) for count in args.gpus]
        # a step in parts goes forward once more: a third of the way forward and back
        done = [flops * (4 / 3 if part * count < images else 1.0) for part, count in zip(at_once, args.gpus, strict=True)]
        cells = [
            name,
            f"{weights / 1e6:.0f}",
            f"{images}",
            f"{recipe.steps:,}",
            f"{flops / 1e12:.1f}",
            f"{fixed / GIB:.1f}",
            f"{kept / 2**20:.0f}",
            *(f"{(fixed + part * kept) / GIB:.0f}" for part in at_once),
            *(f"{recipe.steps * each / (args.tflops * 1e12 * count) / 3600:.1f}" for each, count in zip(done, args.gpus, strict=True)),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
