"""Speed of pretraining, one table: our full step, a plain contrastive loop as a peer writes it, our contrastive step, the data path alone.

    python tests/benchmarks/pretrain.py --size vit-b16 --batch 256 --steps 50     (a GPU)
    python tests/benchmarks/pretrain.py --size tiny --batch 16 --steps 3          (any CPU)

    full            our loop: views, masks, both decoders, all losses; half of the images with a report, half without
    peer            the same towers, `transformers.CLIPModel` with its own loss: autocast, default attention, AdamW, loss.item() at every
                    step. Its pictures lie ready in memory as float32; what a DataLoader would cost is not charged to it
    contrastive     our loop with the contrastive loss alone, all images with a report
    data            store -> batch -> device -> views, nothing learned

The contenders take turns within one run, `--rounds` times `--steps` steps each; the table gives medians over the rounds, and ratios with
their range, round by round. A step's operations are counted by formula (engine/model/flops.py, useful work only) and MFU is their share of
a bf16 product measured here. GPU memory is the most while a contender works, with the weights of the others beside it. Towers are drawn
at random: speed does not depend on what they know. Pictures and words are made up.

It runs from a plain checkout. Needs torch, numpy, pillow, transformers, safetensors, pyyaml and pydantic; no polars, pydicom or spaCy.
A machine without network takes them from wheels:  pip install --no-index --find-links WHEELS pydantic transformers pyyaml pillow
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
try:
    import numpy as np
    import torch
    from transformers import CLIPModel

    from engine.data.batches import TrainingBatches, normalised_views
    from engine.data.store import PixelStore, filling
    from engine.data.texts import TextBank
    from engine.model.flops import StepFlops, step_flops
    from engine.model.mmclip import MMCLIP
    from engine.model.preprocessing import GREY_MEAN, GREY_STD, Preprocessing
    from engine.model.towers import clip_config
    from engine.pretrain import READ_EVERY, _losses_of, _parallel_module, _plan
    from engine.recipe.pretraining import PretrainRecipe
    from engine.tables.run_log import versions
    from engine.training.distributed import SINGLE_PROCESS, resolved_device
    from engine.training.loop import Step, train
    from engine.training.monitor import measured_peak, memory_gib
    from engine.training.optimizer import make_optimizer
    from engine.training.prefetch import generator_at
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed; see the last lines of the text above the imports of {Path(__file__).name}")

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model": {
            "image": {"width": 192, "layers": 8, "heads": 3, "size": 112, "patch": 16},
            "text": {"width": 128, "layers": 3, "heads": 2, "context": 56},
            "projection": 128,
            "image_decoder": {"width": 64, "layers": 8, "heads": 4},
            "text_decoder": {"layers": 3, "heads": 2},
        },
        "store_size": 144,
        "tokenizer": {"vocab": 1000},
    },
    "vit-b16": {"model": {}, "store_size": 256, "tokenizer": {"vocab": 49408}},
}
"""Towers and decoders of recipes/tiny.yaml and of recipes/mimic_padchest.yaml."""
PROMPT_TOKENS = {"tiny": 40, "vit-b16": 57}
LR = 1e-5


@dataclass
class Contender:
    """Somebody who takes steps: `take(n)` takes n of them; `images` and `flops` are those of one step."""

    name: str
    images: int
    flops: int
    take: Callable[[int], None]
    seconds: list[float]
    memory: float = 0.0


class Column(list[Any]):
    """A column of the image table, as far as batches ask for one."""

    def to_list(self) -> list[Any]:
        """Itself."""
        return self


def recipe_of(size: str, paired: int, unpaired: int, *, full: bool) -> PretrainRecipe:
    """The recipe of a contender of ours: no warm-up, AdamW, bf16."""
    return PretrainRecipe.model_validate(
        {
            "version": 1,
            "sources": [{"kind": "table", "file": "none"}],
            "steps": 1_000_000,
            "batch": {"paired": paired, "unpaired": unpaired},
            "warmup": {"iterations": 0},
            "optimizer": {"name": "adamw", "lr": LR, "weight_decay": 0.1},
            "augmentation": {"scale": (0.75, 1.0), "rotate": 10},
            "attmim": {"strategy": "attmim" if full else "none"},
            "entmlm": {"strategy": "entity" if full else "none"},
            "checkpoint": {"every": 1_000_000},
            **SIZES[size],
        }
    )


def made_up_data(folder: Path, size: str, images: int) -> tuple[dict[str, Column], PixelStore, TextBank]:
    """As many pictures of noise with a report, and as many without; reports fill half of the text tower, with six entities each."""
    recipe = recipe_of(size, 1, 1, full=True)
    rng = np.random.default_rng(0)
    names = [f"i{number}" for number in range(2 * images)]
    with filling(folder, recipe.store_size, "squash") as writer:
        for name in names:
            picture = rng.integers(0, 256, (recipe.store_size, recipe.store_size), dtype=np.uint8)
            writer.add(name, picture, size=1, mtime_ns=0, sha256=name, reason=None)
    keys = [f"r{number}" for number in range(images)]
    context, vocabulary = recipe.model.text.context, recipe.tokenizer.vocab or 0
    lengths = rng.integers(context // 4, 3 * context // 4, images, dtype=np.int32)
    ids = rng.integers(2, vocabulary, (images, context), dtype=np.int32)
    places = np.arange(context)
    ids[:, 0] = 0
    ids[places[None] >= lengths[:, None] - 1] = 1
    entities = np.where((places % 3 == 1) & (places[None] < lengths[:, None] - 1), np.minimum(places // 3 + 1, 6), 0).astype(np.int16)
    bank = TextBank(ids, lengths, entities, {key: np.array([place]) for place, key in enumerate(keys)})
    frame = {
        "image": Column(names),
        "study": Column(names),
        "paired": Column([number < images for number in range(2 * images)]),
        "held_out": Column([False] * (2 * images)),
        "report_key": Column([*keys, *([None] * images)]),
        "report_group": Column([*keys, *([""] * images)]),
        "repeat": Column([1] * (2 * images)),
        "source": Column(["made up"] * (2 * images)),
    }
    return frame, PixelStore.open(folder), bank


def ours(name: str, recipe: PretrainRecipe, data: tuple[Any, PixelStore, TextBank], device: torch.device, size: str) -> Contender:
    """Our own loop, as `mmclip pretrain` runs it, without checkpoints."""
    torch.manual_seed(0)
    module = MMCLIP.from_recipe(recipe, vocab_size=recipe.tokenizer.vocab or 0, sot=0, eot=1).to(device)
    model = _parallel_module(module, recipe.compute, device, SINGLE_PROCESS)
    batches = TrainingBatches(*data, paired=recipe.batch.paired, unpaired=recipe.batch.unpaired, seed=0)
    prompts = torch.full((1, PROMPT_TOKENS[size]), 5, device=device), torch.zeros(1, PROMPT_TOKENS[size], dtype=torch.bool, device=device)
    like = Preprocessing(recipe.model.image.size, "squash", GREY_MEAN, GREY_STD)
    losses_of = _losses_of(recipe, module, like, prompts, model, 1)
    steps = train(
        module,
        make_optimizer(module, recipe.optimizer),
        losses_of,
        batches.at,
        _plan(recipe, recipe.steps, device),
        parallel_module=model,
    )
    return Contender(
        name,
        recipe.batch.paired + recipe.batch.unpaired,
        counted(module, recipe, size).total,
        lambda count: taken(steps, count, device),
        [],
    )


def counted(module: MMCLIP, recipe: PretrainRecipe, size: str) -> StepFlops:
    """What a step of ours costs."""
    doing = recipe.doing(0)
    text, prompts = recipe.model.text.context, (1, PROMPT_TOKENS[size])
    return step_flops(module, paired=recipe.batch.paired, unpaired=recipe.batch.unpaired, text=text, prompts=prompts, **doing)


def taken(steps: Generator[Any, None, None], count: int, device: torch.device) -> None:
    """So many steps more. On a GPU the loop tells steps when it reads them back, some at once; the work behind them is done by then."""
    told = 0
    while told < count:
        told += isinstance(next(steps), Step)
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peer(recipe: PretrainRecipe, data: tuple[Any, PixelStore, TextBank], device: torch.device, flops: int) -> Contender:
    """The contrastive loop that one writes first, on the same towers."""
    torch.manual_seed(0)
    model = CLIPModel(clip_config(recipe, vocab_size=recipe.tokenizer.vocab or 0, sot=0, eot=1)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1)
    batches = TrainingBatches(*data, paired=recipe.batch.paired, unpaired=0, seed=0)
    loader = []
    for step in range(4):  # a few batches, over and over, as float pictures on the host
        batch = normalised_views(batches.at(step), recipe.augmentation, recipe.model.image.size, GREY_MEAN, GREY_STD, torch.rand)
        loader.append({"pixel_values": batch["images"], "input_ids": batch["input_ids"], "attention_mask": (~batch["padding_mask"]).long()})

    def endless() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from loader

    source = endless()

    def take(count: int) -> None:
        for _ in range(count):
            batch = {name: tensor.to(device) for name, tensor in next(source).items()}
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                loss = model(**batch, return_loss=True).loss
            loss.backward()
            optimizer.step()
            loss.item()

    return Contender("peer", recipe.batch.paired, flops, take, [])


def data_path(recipe: PretrainRecipe, data: tuple[Any, PixelStore, TextBank], device: torch.device) -> Contender:
    """What it takes to have a batch of the full step ready for the towers."""
    batches = TrainingBatches(*data, paired=recipe.batch.paired, unpaired=recipe.batch.unpaired, seed=0)
    place = [0]

    def take(count: int) -> None:
        for _ in range(count):
            batch = {name: tensor.to(device) for name, tensor in batches.at(place[0]).items()}
            generator = generator_at(0, place[0], "views", device)
            uniform = lambda rows, columns: torch.rand(rows, columns, generator=generator, device=device)  # noqa: E731, B023
            normalised_views(batch, recipe.augmentation, recipe.model.image.size, GREY_MEAN, GREY_STD, uniform)
            place[0] += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return Contender("data", recipe.batch.paired + recipe.batch.unpaired, 0, take, [])


def race(contenders: list[Contender], steps: int, rounds: int, device: torch.device) -> None:
    """Everyone's seconds per step, round by round, in turns; the first turn of each, in which kernels are made, is not counted."""
    for number in range(rounds + 1):
        for contender in contenders:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            begun = time.perf_counter()
            contender.take(steps)
            seconds = (time.perf_counter() - begun) / steps
            if number:
                contender.seconds.append(seconds)
                contender.memory = max(contender.memory, memory_gib(device))


def ratio(one: Contender, other: Contender) -> str:
    """Images a second of the one over the other's, by round: median and range."""
    rates = [(one.images / mine) / (other.images / theirs) for mine, theirs in zip(one.seconds, other.seconds, strict=True)]
    return f"{statistics.median(rates):.2f} ({min(rates):.2f}-{max(rates):.2f})"


def main() -> None:
    """Race, and print the table."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--size", choices=sorted(SIZES), default="tiny")
    arguments.add_argument("--batch", type=int, default=16, help="images in a step of each contender")
    arguments.add_argument("--steps", type=int, default=3, help="in a turn")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--device", default="auto")
    given = arguments.parse_args()
    device = resolved_device(given.device)
    if device.type == "cuda" and given.steps % READ_EVERY:
        arguments.error(f"--steps must be a multiple of {READ_EVERY} on a GPU, where losses are read that often")
    half = given.batch // 2
    full, contrastive = recipe_of(given.size, half, given.batch - half, full=True), recipe_of(given.size, given.batch, 0, full=False)
    with tempfile.TemporaryDirectory() as folder:
        data = made_up_data(Path(folder) / "store", given.size, max(4 * given.batch, 64))
        mine, alone = ours("full", full, data, device, given.size), ours("contrastive", contrastive, data, device, given.size)
        theirs, path = peer(contrastive, data, device, alone.flops), data_path(full, data, device)
        race([mine, theirs, alone, path], given.steps, given.rounds, device)
    peak = measured_peak(device, side=8192 if device.type == "cuda" else 512)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} thread(s)"
    print(f"{date.today()}  {device.type}: {name}  size {given.size}, {given.batch} images a step, {given.steps} x {given.rounds} steps")
    print("  ".join(f"{package} {version}" for package, version in versions().items() if package in ("torch", "transformers", "numpy")))
    print(f"peak: {peak.flops_per_second / 1e12:.3g} TFLOP/s ({peak.source})\n")
    memory = "GPU memory, GiB" if device.type == "cuda" else "process so far, GiB"
    print(f"| contender | images/s | s/step | GFLOP/image | MFU | {memory} |\n|---|---|---|---|---|---|")
    for each in (mine, theirs, alone, path):
        seconds = statistics.median(each.seconds)
        work = f"{each.flops / each.images / 1e9:.2f} | {each.flops / seconds / peak.flops_per_second:.1%}" if each.flops else "- | -"
        print(f"| {each.name} | {each.images / seconds:.1f} | {seconds:.4g} | {work} | {each.memory:.2f} |")
    print("\n| images/s of | over | ratio, range of the rounds |\n|---|---|---|")
    for one, other in ((mine, theirs), (alone, theirs), (path, mine)):
        print(f"| {one.name} | {other.name} | {ratio(one, other)} |")


if __name__ == "__main__":
    main()
