"""A run looked at now and then: numbers about the masks of a batch, and figures of a sample that stays the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import OutputError
from engine.model.flops import StepFlops, step_flops
from engine.model.mask_diagnostics import figure, mask_facts, word_facts, write_figures
from engine.model.mmclip import MMCLIP
from engine.model.preprocessing import Preprocessing

ROWS = 32
"""Images of each half of a batch that are looked at: enough for a mean, little beside a step."""


@dataclass(frozen=True)
class Watch:
    """Looks at the model without changing it; what it draws at random has generators of its own.

    On several processes all look together, since sharded weights are gathered by all; the first tells.

    Attributes:
        prompts: ids and padding mask of the disease prompts.
        sample: images that every figure shows, as `MMCLIP.losses` takes a batch.
        batch_at: 0-based step -> the first rows of its batch, likewise.
        generator_at: (step, purpose) -> a fresh generator on the model's device.
        arithmetic: the context in which the run computes its losses, so that masks are the same.
        writes: False in processes beside the first.
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
        """What a step (0-based) costs, over all processes."""
        recipe = self.module.recipe
        count, length = self.prompts[0].shape
        text = self.sample["input_ids"].shape[1] if "input_ids" in self.sample else 0
        size, doing = recipe.batch, recipe.doing(step)
        return step_flops(self.module, paired=size.paired, unpaired=size.unpaired, text=text, prompts=(count, length), **doing)

    def masks(self, step: int) -> dict[str, dict[str, float]]:
        """`paired`, `unpaired`, `words` -> numbers about a step's masks (`mask_facts`, `word_facts`), brought to the host in one copy."""
        recipe, mask = self.module.recipe, self.module.recipe.doing(step)["mask"]
        batch, generator = self.batch_at(step), self.generator_at(step, "masks seen")
        facts: dict[str, dict[str, Tensor]] = {}
        if (mask or recipe.attmim.strategy) != "none":
            with self._looking():
                seen = self.module.see(batch, prompts=self.prompts, mask=mask, generator=generator)
            facts |= {half: mask_facts(each) for half, each in seen.items()}
        if "images" in batch and recipe.entmlm.strategy != "none":
            facts["words"] = word_facts(batch, recipe.entmlm, generator)
        if not facts:
            return {}
        numbers = iter(torch.stack([value.float() for each in facts.values() for value in each.values()]).tolist())
        return {half: {name: float(next(numbers)) for name in each} for half, each in facts.items()}

    def draw(self, step: int, path: Path) -> bool:
        """Draw the sample's figures as PNG; returns whether they were written. A disk that takes no picture does not end a run.

        A patch's mask is drawn with the same numbers after every step, so that what changes is what the model proposes.
        """
        recipe, mask = self.module.recipe, self.module.recipe.doing(step)["mask"]
        with self._looking():
            generator = self.generator_at(0, "pictures")
            seen = self.module.see(self.sample, prompts=self.prompts, mask=mask, generator=generator, predict=True)
        if not self.writes:
            return False
        mean, std, norm_pix = self.preprocessing.mean, self.preprocessing.std, recipe.model.image_decoder.norm_pix
        try:
            write_figures([figure(each, mean, std, norm_pix=norm_pix) for each in seen.values()], path)
        except OutputError:
            return False
        return True

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """As the run computes, but nothing is compiled for the few rows that are looked at."""
        with self.arithmetic(), torch.compiler.set_stance("force_eager"):
            yield
