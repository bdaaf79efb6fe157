"""Periodic training diagnostics: mask statistics of the current batch, and figures of a fixed sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import OutputError
from engine.model.flops import StepFlops, step_flops
from engine.model.mask_diagnostics import figure, mask_statistics, word_statistics, write_figures
from engine.model.mmclip import MMCLIP
from engine.model.preprocessing import Preprocessing

ROWS = 32
"""Images of each half of a batch that are inspected: enough for a mean, cheap next to a step."""


@dataclass(frozen=True)
class MaskMonitor:
    """Mask statistics and figures of a model, which is not changed; random numbers come from separate generators.

    All processes of a run call these methods, since sharded weights are gathered; the first one writes.

    Attributes:
        prompts: ids and padding mask of the disease prompts.
        sample: the images of every figure, as a batch of `MMCLIP.losses`.
        batch_at: 0-based step -> the first rows of its batch.
        generator_at: (step, purpose) -> a new generator on the model's device.
        arithmetic: the context in which the run computes its losses, so that masks are the same.
        writes: True in the first process only.
    """

    module: MMCLIP
    preprocessing: Preprocessing
    prompts: tuple[Tensor, Tensor]
    sample: Mapping[str, Tensor]
    batch_at: Callable[[int], Mapping[str, Tensor]]
    generator_at: Callable[[int, str], torch.Generator]
    arithmetic: Callable[[], AbstractContextManager[None]]
    writes: bool = True

    def flops(self, step: int) -> StepFlops:
        """Floating-point operations of a step (0-based), over all processes."""
        recipe = self.module.recipe
        count, length = self.prompts[0].shape
        text = self.sample["input_ids"].shape[1] if "input_ids" in self.sample else 0
        size, doing = recipe.batch, recipe.doing(step)
        return step_flops(self.module, paired=size.paired, unpaired=size.unpaired, text=text, prompts=(count, length), **doing)

    def masks(self, step: int) -> dict[str, dict[str, float]]:
        """`paired`, `unpaired`, `words` -> the statistics of a step (`mask_statistics`, `word_statistics`), copied to the host at once."""
        recipe, mask = self.module.recipe, self.module.recipe.doing(step)["mask"]
        batch, generator = self.batch_at(step), self.generator_at(step, "masks seen")
        statistics: dict[str, dict[str, Tensor]] = {}
        if (mask or recipe.attmim.strategy) != "none":
            with self._eager():
                snapshots = self.module.inspect_masks(batch, prompts=self.prompts, mask=mask, generator=generator)
            statistics |= {half: mask_statistics(each) for half, each in snapshots.items()}
        if "images" in batch and recipe.entmlm.strategy != "none":
            statistics["words"] = word_statistics(batch, recipe.entmlm, generator)
        if not statistics:
            return {}
        numbers = iter(torch.stack([value.float() for each in statistics.values() for value in each.values()]).tolist())
        return {half: {name: float(next(numbers)) for name in each} for half, each in statistics.items()}

    def draw(self, step: int, path: Path) -> bool:
        """Write the figures of the sample as PNG; True where they were written. A full disk does not end a run.

        Masks are drawn with the same random numbers after every step, so that only the proposals of the model change.
        """
        recipe, mask = self.module.recipe, self.module.recipe.doing(step)["mask"]
        with self._eager():
            generator = self.generator_at(0, "pictures")
            snapshots = self.module.inspect_masks(self.sample, prompts=self.prompts, mask=mask, generator=generator, predict=True)
        if not self.writes:
            return False
        mean, std, norm_pix = self.preprocessing.mean, self.preprocessing.std, recipe.model.image_decoder.norm_pix
        try:
            write_figures([figure(each, mean, std, norm_pix=norm_pix) for each in snapshots.values()], path)
        except OutputError:
            return False
        return True

    @contextmanager
    def _eager(self) -> Iterator[None]:
        """The run's arithmetic, uncompiled: compiling is not worth it for so few rows."""
        with self.arithmetic(), torch.compiler.set_stance("force_eager"):
            yield
