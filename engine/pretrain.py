"""Pretraining, whole: a recipe and its data -> steps, checkpoints, a model bundle.

out/
    bundle/          the model, once the run has ended
    checkpoints/     where `resume` goes on from
    data/            prepared once, and again when a source or its part of the recipe changes
    log.jsonl        every event of every run in this folder, one JSON object a line
    run.json         versions, device, seed, recipe and hashes, counts that add up, seconds
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.data.batches import Batches, augment
from engine.data.prepared import Pictures, pictures, words
from engine.errors import EngineError, UsageError
from engine.model.bundle import save_bundle
from engine.model.mmclip import MMCLIP
from engine.model.preprocessing import Preprocessing
from engine.model.starting import prompt_tokens, starting_model
from engine.tables.publish import locked
from engine.training.checkpoint import Checkpoints, Refused, Saved
from engine.training.loop import LossesOf, Plan, Step, train
from engine.training.optimizer import learning_rate, make_optimizer
from engine.training.record import RunRecord, code_version, device_facts, versions

if TYPE_CHECKING:
    from engine.data.entities import Recogniser
    from engine.recipe.pretraining import MaskStrategy, PretrainRecipe

CHECKPOINTS = "checkpoints"
READ_EVERY = 50
"""Steps between two readings of the losses on a GPU, which would otherwise wait for the host at every step."""
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "polars", "pillow", "spacy", "scispacy")


@dataclass(frozen=True)
class Prepared:
    """The data are ready.

    Attributes:
        images: that are trained on: `paired` with a report and `unpaired` without.
        held_out: images of patients that this run never sees.
        dropped: reason -> images that cannot be used.
        texts: different texts of the paired images.
        entities: share of them in which the recogniser found something; None where entities are not used.
        seconds: that preparing took.
    """

    images: int
    paired: int
    unpaired: int
    held_out: int
    dropped: dict[str, int]
    texts: int
    entities: float | None
    seconds: float


@dataclass(frozen=True)
class Started:
    """The first step is about to be taken: step `start` of `stop` (0-based), with this many trainable parameters."""

    device: str
    parameters: int
    start: int
    stop: int


@dataclass(frozen=True)
class Finished:
    """The run has ended and the model lies in `bundle`."""

    bundle: Path
    steps: int
    seconds: float


Event = Prepared | Refused | Started | Step | Saved | Finished


def pretrain(
    recipe: PretrainRecipe,
    out: Path,
    *,
    resume: bool = False,
    max_steps: int | None = None,
    device: str = "auto",
    data: Path | None = None,
) -> Generator[Event, None, None]:
    """Train as `recipe` says, in the folder `out`; tell what happens.

    Args:
        resume: go on from the last good checkpoint in `out`, to the bit (on a CPU with the same number of threads), or begin where
            there is none. A newer checkpoint that is damaged is told as `Refused`. Pictures that are prepared already are then compared
            with their files by size alone, not by content.
        max_steps: stop after this many steps in all; the learning rate still runs over the recipe's.
        device: auto | cpu | cuda.
        data: folder of prepared data, which several runs may share; None: `out/data`.

    Closing the generator, or a signal that raises, saves a checkpoint of the last finished step.

    Raises:
        UsageError: `out` holds checkpoints and `resume` is not set, or there is no such device.
        ModelError: a checkpoint of another recipe, other data or other code, or none that is sound.
        NotFinite: a loss is NaN or infinite. OutputError: the disk is full. LockHeld: another run works in `out`.
        ConfigError, InputMissing, ReadError: the recipe and its data do not fit each other.
    """
    where = resolved_device(device)
    with locked(out):
        _check_folder(recipe, out, resume)
        record = RunRecord(out, _facts(recipe, where), waits=resume)
        begun = time.monotonic()
        events = _events(recipe, out, record, resume, max_steps, where, data or out / "data")
        with _accounted(record, where), contextlib.closing(events):
            for event in events:
                record.log(event)
                record.facts["steps"] = event.step if isinstance(event, Step | Saved) else record.facts["steps"]
                yield event
        finished = Finished(out / "bundle", record.facts["steps"], round(time.monotonic() - begun, 3))
        record.log(finished)
        yield finished


@contextlib.contextmanager
def _accounted(record: RunRecord, device: torch.device) -> Iterator[None]:
    """Writes to `run.json` how the run ended, whatever ended it; the disk may be what failed, so that is no second error."""
    try:
        yield
        record.say(status="finished")
    except BaseException as error:
        is_ours = isinstance(error, EngineError)
        with contextlib.suppress(EngineError):
            status = "failed" if isinstance(error, Exception) else "stopped"
            record.say(status=status, error=str(error) if is_ours else type(error).__name__)
        if isinstance(error, torch.OutOfMemoryError):
            hint = "a smaller batch.paired and batch.unpaired"
            raise EngineError(f"the {device.type} has too little memory for a step", hint=hint) from error
        raise


def _check_folder(recipe: PretrainRecipe, out: Path, resume: bool) -> None:
    """Refuse, before any work, to write over a run or to go on with one of another recipe or other code."""
    checkpoints = Checkpoints(out / CHECKPOINTS, _identity(recipe))
    if not (steps := checkpoints.steps()):
        return
    if not resume:
        raise UsageError(
            "the output folder holds the checkpoints of a run",
            why=f"the last of them after step {steps[-1]}",
            hint="--resume to go on with it, or another --out",
        )
    for step in steps:
        checkpoints.check_identity(step)


def _identity(recipe: PretrainRecipe) -> dict[str, str]:
    """What of a run is known before its data are."""
    return {"recipe": recipe_hash(recipe), "code": code_version()}


def _events(
    recipe: PretrainRecipe, out: Path, record: RunRecord, resume: bool, max_steps: int | None, device: torch.device, folder: Path
) -> Generator[Event, None, None]:
    """The run as a story: data, model, where to go on, steps, bundle."""
    begun = time.monotonic()
    found = pictures(recipe, folder, verify=not resume)
    starting = starting_model(recipe, [text for texts in found.texts.values() for text in texts])
    recogniser = _recogniser(recipe)
    bank = words(found.texts, starting.tokenizer, recogniser, starting.context, folder)
    step = recipe.batch
    batches = Batches(
        found.frame, found.store, bank, paired=step.paired, unpaired=step.unpaired, one_source=step.one_source, seed=recipe.seed
    )
    prepared = _prepared(found, None if recogniser is None else float((bank.entity_ids > 0).any(1).mean()), begun)
    record.say(data_hash=found.content_hash, sources=found.table.facts, prepared=prepared, entities=_named(recogniser))
    yield prepared

    module = starting.module.to(device)
    optimizer = make_optimizer(module, recipe.optimizer)
    checkpoints = Checkpoints(out / CHECKPOINTS, _identity(recipe) | {"data": found.content_hash}, recipe.checkpoint.keep)
    start = 0
    if resume:
        start, refused = checkpoints.last_good()
        yield from refused
        if start:
            checkpoints.load(start, module, optimizer)
    stop = max(start, min(recipe.steps, max_steps or recipe.steps))
    parameters = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    record.waits = False
    record.say(parameters=parameters, start=start, steps=start)
    yield Started(str(device), parameters, start, stop)

    prompt_ids, prompt_padding = (tokens.to(device) for tokens in prompt_tokens(recipe, starting))
    losses_of = _losses_of(recipe, module, starting.preprocessing, (prompt_ids, prompt_padding))
    yield from train(module, optimizer, losses_of, batches.at, _plan(recipe, stop, device), checkpoints, start=start)

    save_bundle(
        out / "bundle",
        module.clip,
        starting.tokenizer,
        starting.preprocessing,
        name=out.name or "run",
        card=_card(recipe, found, stop),
        provenance={
            "steps": stop,
            "recipe": _portable(record.facts["recipe"]),
            **{key: record.facts[key] for key in ("recipe_hash", "data_hash", "sources", "versions", "seed")},
        },
    )


# ---- the model -----------------------------------------------------------------------------------------------------------------


def _losses_of(recipe: PretrainRecipe, module: MMCLIP, preprocessing: Preprocessing, prompts: tuple[Tensor, Tensor]) -> LossesOf:
    """The losses of one step: views of the stored pictures, drawn where the model is, then the model's own losses by name.

    Warm-up masks at random where the recipe says so, else by the run's own `attmim.strategy`.
    """
    device = prompts[0].device
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    warmup = recipe.warmup
    warmup_mask: MaskStrategy | None = "random" if warmup.mask == "random" and recipe.attmim.strategy != "none" else None

    def losses_of(batch: Mapping[str, Tensor], step: int, generator: torch.Generator) -> dict[str, Tensor]:
        seen = dict(batch)
        for name in ("images", "unpaired_images"):
            if name in seen:
                grey = augment(seen[name], recipe.augmentation, preprocessing.size, generator)
                seen[name] = (grey - mean) / std  # (B, 1, S, S) becomes (B, 3, S, S)
        if step < warmup.iterations:
            return module.losses(seen, prompts=prompts, objectives=warmup.objectives, mask=warmup_mask, generator=generator)
        return module.losses(seen, prompts=prompts, generator=generator)

    return losses_of


def _plan(recipe: PretrainRecipe, stop: int, device: torch.device) -> Plan:
    weights = recipe.objective.weights
    return Plan(
        stop=stop,
        seed=recipe.seed,
        weights={"align": weights.align, "mim": weights.mim, "mim_unpaired": weights.mim, "mlm": weights.mlm},
        lr_at=lambda step: learning_rate(recipe.optimizer, step, recipe.steps),
        save_every=recipe.checkpoint.every,
        read_every=READ_EVERY if device.type == "cuda" else 1,
        batch_size=recipe.batch.paired + recipe.batch.unpaired,
        precision=recipe.precision,
        clip_norm=recipe.optimizer.clip_norm,
    )


# ---- what is written about the run ---------------------------------------------------------------------------------------------


def resolved_device(device: str) -> torch.device:
    """auto: the GPU where there is one, else the CPU. UsageError for a GPU that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no device is called {device}", hint="auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no GPU that torch can use", hint="--device cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def recipe_hash(recipe: PretrainRecipe) -> str:
    """A sha256 over every key of the recipe, those left to their defaults included."""
    return hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()


def _facts(recipe: PretrainRecipe, device: torch.device) -> dict[str, Any]:
    return {
        "notice": "RESEARCH USE ONLY - not for clinical use",
        "versions": versions(PACKAGES),
        "device": device_facts(device),
        "seed": recipe.seed,
        "steps": 0,
        "recipe_hash": recipe_hash(recipe),
        "recipe": recipe.model_dump(mode="json"),
    }


def _portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as a model may carry it to others: of an absolute path only its last part."""

    def last(value: Any) -> Any:
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    sources = [{key: last(value) for key, value in source.items()} for source in recipe["sources"]]
    model = {key: last(value) for key, value in recipe["model"].items()}
    return {**recipe, "sources": sources, "model": model, "entities": last(recipe["entities"])}


def _recogniser(recipe: PretrainRecipe) -> Recogniser | None:
    """None where no switch of the recipe asks for entities."""
    if recipe.batch.paired == 0 or (recipe.entmlm.strategy != "entity" and recipe.entmlm.targets != "entities"):
        return None
    from engine.data.entities import load_recogniser

    return load_recogniser(recipe.entities)


def _named(recogniser: Recogniser | None) -> dict[str, str] | None:
    return None if recogniser is None else {"name": recogniser.name, "version": recogniser.version}


def _prepared(found: Pictures, entities: float | None, begun: float) -> Prepared:
    paired = int(found.frame["paired"].sum())
    return Prepared(
        images=len(found.frame),
        paired=paired,
        unpaired=len(found.frame) - paired,
        held_out=int(found.table.frame["held_out"].sum()),
        dropped=dict(found.dropped),
        texts=len({text for texts in found.texts.values() for text in texts}),
        entities=entities,
        seconds=round(time.monotonic() - begun, 3),
    )


def _card(recipe: PretrainRecipe, found: Pictures, steps: int) -> str:
    """A first model card: what is known without having judged the model."""
    paired = int(found.frame["paired"].sum())
    kinds = sorted(
        {"weak pairs (sentences made from labels)" if getattr(s, "reports", "") == "weak" else "reports" for s in recipe.sources}
    )
    return "\n".join(
        [
            "RESEARCH USE ONLY - not for clinical use.",
            "",
            f"MMCLIP pretrained for {steps} steps of {recipe.batch.paired} images with a report and {recipe.batch.unpaired} without, "
            f"seed {recipe.seed}.",
            f"Images: {paired} with words ({', '.join(kinds)}), {len(found.frame) - paired} without; data {found.content_hash[:12]}, "
            f"recipe {recipe_hash(recipe)[:12]}.",
            f"Source of the recipe: {recipe.source or 'not given'}",
            "Not evaluated: nothing is known yet of how well it tells findings apart.",
            "",
        ]
    )
