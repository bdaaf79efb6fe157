"""Pretraining: a recipe and its data -> steps, checkpoints, a model bundle.

out/
    bundle/          the model, at the end of the run
    checkpoints/     where `resume` goes on from
    data/            prepared data, made again when a source or its section of the recipe changes
    pictures/      figures of masks and reconstructions of a few images; readable by their owner only
    tensorboard/     curves, with `logging.tensorboard`
    log.jsonl        every event of every run in this folder, one JSON object a line
    run.json         versions, device, seed, recipe and hashes, counts that add up, seconds
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.data.batches import TrainingBatches, normalised_views
from engine.data.build_store import StoreProgress
from engine.data.pretrain_data import PretrainDataSummary, prepare_images, recogniser_of, summary, words
from engine.data.pretrain_plan import PretrainPlan, plan_pretraining
from engine.errors import UsageError
from engine.model.cards import save_pretrained
from engine.model.grad_cache import micro_batch_losses, micro_batches_per_step, with_mask_noise
from engine.model.init import InitialModel, initial_model, prompt_tokens
from engine.model.mask_monitor import ROWS, MaskMonitor
from engine.model.mmclip import MMCLIP
from engine.model.population import Population
from engine.model.preprocessing import Preprocessing
from engine.recipe.pretraining import Augmentation
from engine.tables.atomic import locked
from engine.tables.disk_space import check_disk_space
from engine.tables.run_log import RunLog
from engine.training.checkpoint import Checkpoints, Refused, Saved, full_weights
from engine.training.distributed import SINGLE_PROCESS, Ranks, joined, local_device, resolved_device
from engine.training.loop import LossesOf, Plan, Step, arithmetic, train
from engine.training.monitor import FigureWritten, Meter, Vitals, peak_of, with_diagnostics
from engine.training.optimizer import learning_rate, make_optimizer
from engine.training.parallel import ParallelModule, compile_blocks, compiled, is_compiled, recompute_blocks
from engine.training.prefetch import generator_at
from engine.training.provenance import changed_keys, memory_hint, outcome_recorded, pretraining_facts, run_identity
from engine.training.tensorboard import TensorBoardWriter, check_tensorboard

if TYPE_CHECKING:
    from engine.data.sources import ImageTable
    from engine.recipe.pretraining import Compute, PretrainRecipe

CHECKPOINTS = "checkpoints"
READ_EVERY = 50
"""Steps between two readings of the losses on a GPU; each one is a synchronisation."""


@dataclass(frozen=True)
class Forced:
    """The run goes on from a checkpoint of another recipe, other data or other code (`force`): name -> its value there and here."""

    step: int
    differences: dict[str, str]


@dataclass(frozen=True)
class PretrainStarted:
    """Training starts with step `start` of `stop` (0-based).

    Attributes:
        parameters: number of trainable parameters.
        processes: number of processes.
        micro_batches: of each process in a step (`compute.micro_batch`).
    """

    device: str
    parameters: int
    start: int
    stop: int
    processes: int = 1
    micro_batches: int = 1


@dataclass(frozen=True)
class PretrainFinished:
    """The run has ended; the model is in `bundle`."""

    bundle: Path
    steps: int
    seconds: float


Event = (
    PretrainPlan
    | StoreProgress
    | PretrainDataSummary
    | Refused
    | Forced
    | PretrainStarted
    | Step
    | Vitals
    | FigureWritten
    | Saved
    | PretrainFinished
)


def pretrain(
    recipe: PretrainRecipe,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    max_steps: int | None = None,
    device: str = "auto",
    data: Path | None = None,
    dry_run: bool = False,
) -> Generator[Event, None, None]:
    """Train as `recipe` says, in the folder `out`; yield events.

    Under torchrun every process calls this. They share the images of each step; the first one prepares data, writes and yields events.

    Args:
        resume: go on from the last good checkpoint in `out`, to the bit (on a CPU with the same number of threads and processes), or begin
            where there is none. A newer checkpoint that is damaged is reported as `Refused`.
        force: `resume`, and go on even from a checkpoint of another recipe, other data or other code, whose weights must still fit;
            reported as `Forced`.
        max_steps: stop after this many steps in all; the learning rate still runs over the recipe's.
        device: auto | cpu | cuda.
        data: folder of prepared data, shared by several runs or made by `mmclip ingest`; None: `out/data`. Images that are there already
            are compared with their files by size and modification time.

        dry_run: check all that can be known without reading an image, yield the plan, and write nothing.

    Closing the generator, or a signal that raises, saves a checkpoint of the last finished step.

    Raises:
        UsageError: `out` holds checkpoints and `resume` is not set, or there is no such device.
        ModelError: a checkpoint of another recipe, other data or other code, or none that is sound.
        NotFinite: a loss is NaN or infinite. OutputError: the disk is full. LockHeld: another run works in `out`.
        ConfigError, InputMissing, ReadError: the recipe and its data do not fit each other.
        EngineError: the GPU's memory is too small, or another process of the run has died.
    """
    where = local_device(resolved_device(device))
    begun = time.monotonic()
    if dry_run:
        plan, _ = plan_pretraining(recipe)
        check_disk_space(data or out / "data", plan.store_bytes)
        yield plan
        return
    table: ImageTable | None = None
    with joined(where, timedelta(minutes=recipe.compute.timeout)) as ranks, contextlib.ExitStack() as held:
        with ranks.after_first():
            if ranks.is_first:
                held.enter_context(locked(out))
                _check_folder(recipe, out, resume or force, force)
                if recipe.logging.tensorboard:
                    check_tensorboard()
                plan, table = plan_pretraining(recipe)
                check_disk_space(data or out / "data", plan.store_bytes)
        log = RunLog(out, pretraining_facts(recipe, where, ranks), waits=resume or force, is_kept=ranks.is_first)
        run = _PretrainRun(recipe, out, data or out / "data", log, where, ranks, resume or force, force, table)
        with outcome_recorded(log, where, memory_hint(recipe)), contextlib.closing(_events(run, max_steps)) as events:
            board = None
            for event in events:
                log.append(event)
                if isinstance(event, PretrainStarted) and recipe.logging.tensorboard and ranks.is_first:
                    board = held.enter_context(contextlib.closing(TensorBoardWriter(out, event.start)))
                if board is not None:
                    board.write(event)
                log.facts["steps"] = event.step if isinstance(event, Step | Saved) else log.facts["steps"]
                if ranks.is_first:
                    yield event
        finished = PretrainFinished(out / "bundle", log.facts["steps"], round(time.monotonic() - begun, 3))
        log.append(finished)
        if ranks.is_first:
            yield finished


def _check_folder(recipe: PretrainRecipe, out: Path, resume: bool, force: bool) -> None:
    """Check before any work that `out` holds no other run."""
    changed = tuple(changed_keys(out, recipe))
    hint = "--resume without --set, which takes the run's own recipe; another --out; or --force-resume to go on all the same"
    checkpoints = Checkpoints(out / CHECKPOINTS, run_identity(recipe), forced=force, changed=changed, hint=hint)
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


@dataclass(frozen=True)
class _PretrainRun:
    """The arguments of a run, and its device and processes."""

    recipe: PretrainRecipe
    out: Path
    folder: Path
    log: RunLog
    device: torch.device
    ranks: Ranks
    resume: bool
    force: bool
    table: ImageTable | None


def _events(run: _PretrainRun, max_steps: int | None) -> Generator[Event, None, None]:
    """The events of a run in order: data, model, checkpoint to resume from, steps, bundle."""
    recipe, log, ranks, device = run.recipe, run.log, run.ranks, run.device
    begun = time.monotonic()
    with ranks.after_first():
        found = yield from prepare_images(recipe, run.folder, table=run.table, fill=ranks.is_first)
    initial = initial_model(recipe, [text for texts in found.texts.values() for text in texts])
    recogniser = recogniser_of(recipe)
    with ranks.after_first():
        bank = words(found.texts, initial.tokenizer, recogniser, initial.context, run.folder)
        batches = TrainingBatches(
            found.frame,
            found.store,
            bank,
            paired=ranks.share(recipe.batch.paired, "batch.paired"),
            unpaired=ranks.share(recipe.batch.unpaired, "batch.unpaired"),
            one_source=recipe.batch.one_source,
            seed=recipe.seed,
            rank=ranks.rank,
            world=ranks.world,
        )
    data_hash = ranks.agreed(found.content_hash if ranks.is_first else "")
    entities = None if recogniser is None else float((bank.entity_ids > 0).any(1).mean())
    prepared = summary(found, entities, time.monotonic() - begun)
    named = None if recogniser is None else {"name": recogniser.name, "version": recogniser.version}
    population = Population.of(found.frame.select("source", "age", "view").iter_rows()).as_section()
    log.update(data_hash=data_hash, population=population, sources=found.table.facts, prepared=prepared, entities=named)
    yield prepared

    module = initial.module.to(device)
    model = _parallel_module(module, recipe.compute, device, ranks)
    optimizer = make_optimizer(module, recipe.optimizer)
    identity = run_identity(recipe) | {"data": data_hash}
    checkpoints = Checkpoints(run.out / CHECKPOINTS, identity, recipe.checkpoint.keep, forced=run.force, ranks=ranks)
    start = 0
    if run.resume:
        with ranks.after_first():
            start, refused = checkpoints.last_good() if ranks.is_first else (0, [])
        yield from refused
        start = ranks.agreed(start)
        if start:
            checkpoints.load(start, module, optimizer)
        if start and (differences := checkpoints.differences(start)):
            log.update(forced={"step": start, **differences})
            yield Forced(start, differences)
    stop = max(start, min(recipe.steps, max_steps or recipe.steps))
    parameters = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    micro_batches = micro_batches_per_step(recipe, ranks.world)
    log.waits = False
    log.update(parameters=parameters, start=start, steps=start, micro_batches=micro_batches)
    yield PretrainStarted(str(device), parameters, start, stop, ranks.world, micro_batches)

    prompt_ids, prompt_padding = (tokens.to(device) for tokens in prompt_tokens(recipe, initial))
    losses_of = _losses_of(recipe, module, initial.preprocessing, (prompt_ids, prompt_padding), model, micro_batches)
    if ranks.world > 1:
        ranks.signals.defer()
    steps = train(module, optimizer, losses_of, batches.at, _plan(recipe, stop, device), checkpoints, start=start, parallel_module=model)
    yield from _with_diagnostics(run, steps, initial, batches, (prompt_ids, prompt_padding))
    weights, counts = full_weights(module.clip), {"steps": stop, "paired": prepared.paired, "unpaired": prepared.unpaired}
    ranks.first(lambda: save_pretrained(run.out, initial, weights, recipe, log.facts, **counts))


def _with_diagnostics(
    run: _PretrainRun,
    steps: Generator[Step | Saved, None, None],
    initial: InitialModel,
    batches: TrainingBatches,
    prompts: tuple[Tensor, Tensor],
) -> Generator[Event, None, None]:
    """The steps, with the diagnostics that the recipe's `logging` asks for."""
    recipe, device, logging, images = run.recipe, run.device, run.recipe.logging, initial.preprocessing

    def views(rows: int, step: int, augmentation: Augmentation) -> dict[str, Tensor]:
        """The first rows of a step's batch, as random views from a separate generator."""
        batch = {name: tensor[:rows].to(device) for name, tensor in batches.at(step).items()}
        generator = generator_at(recipe.seed, step, "views seen", device)
        return normalised_views(
            batch,
            augmentation,
            images.size,
            images.mean,
            images.std,
            lambda rows, columns: SINGLE_PROCESS.uniform(rows, columns, generator),
        )

    monitor = MaskMonitor(
        initial.module,
        images,
        prompts,
        sample=views(logging.pictures, 0, Augmentation()),
        batch_at=lambda step: views(ROWS, step, recipe.augmentation),
        generator_at=lambda step, purpose: generator_at(recipe.seed, step, purpose, device),
        arithmetic=lambda: arithmetic(device, recipe.precision),
        writes=run.ranks.is_first,
    )
    warmup = recipe.warmup.iterations
    flops = monitor.flops(0), monitor.flops(warmup)
    peak = peak_of(device, tflops=logging.peak_tflops, precision=recipe.precision)
    run.log.update(flops_per_warmup_step=flops[0], flops_per_step=flops[1], peak=peak)
    yield from with_diagnostics(
        steps,
        monitor,
        Meter(device, peak, run.ranks.world),
        (flops[0].total, flops[1].total),
        run.out,
        warmup=warmup,
        vitals_every=logging.vitals_every,
        pictures_every=logging.pictures_every if recipe.attmim.strategy != "none" else 0,
    )


# ---- the model -----------------------------------------------------------------------------------------------------------------


def _parallel_module(module: MMCLIP, compute: Compute, device: torch.device, ranks: Ranks) -> ParallelModule:
    """The module wrapped for its processes, with blocks compiled and recomputed as the recipe says."""
    blocks = module.blocks()
    if device.type == "cuda":
        torch.set_float32_matmul_precision(compute.matmul)
    if is_compiled(compute, device):
        compile_blocks(blocks)
        module.hidden_patches = compiled(module.hidden_patches)
    if compute.checkpoint_activations:
        recompute_blocks(blocks)
    return ParallelModule(module, ranks, parallel=compute.parallel, blocks=blocks, methods=("cached_features", "inspect_masks"))


def _losses_of(
    recipe: PretrainRecipe,
    module: MMCLIP,
    preprocessing: Preprocessing,
    prompts: tuple[Tensor, Tensor],
    model: ParallelModule,
    micro_batches: int,
) -> LossesOf:
    """The losses of one step: random views of the stored images, made on the device, then the model's losses by name."""
    ranks = model.ranks

    def losses_of(batch: Mapping[str, Tensor], step: int, generator: torch.Generator) -> Mapping[str, Tensor] | Iterator[dict[str, Tensor]]:
        def uniform(rows: int, columns: int) -> Tensor:
            return ranks.uniform(rows, columns, generator)

        views = normalised_views(batch, recipe.augmentation, preprocessing.size, preprocessing.mean, preprocessing.std, uniform)
        views = with_mask_noise(views, module.patches, uniform)
        doing = recipe.doing(step)
        if micro_batches == 1 and ranks.world == 1:
            return module.losses(views, prompts=prompts, **doing)
        return micro_batch_losses(module, model, views, micro_batches, ranks, prompts=prompts, **doing)

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
        ahead=recipe.compute.ahead,
    )
