"""What a classifier is worth on the test split, in words: ahead of, level with or behind raw pixels and zero-shot; and the run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.learning_curve import METHODS, curve_svg
from engine.metrics.bootstrap import patient_weights, percentiles
from engine.metrics.roc import auroc
from engine.tables.atomic import publish
from engine.tables.columns import NOTICE

RESAMPLES = 1000
PAGE = "finetune.html"


@dataclass(frozen=True)
class Verdict:
    """The classifier of one fraction beside another way of scoring, on the same test images.

    Attributes:
        against: raw_pixels or zero_shot.
        findings: those that both score and whose test labels have both classes; macro AUROC is their mean.
        difference: macro AUROC of the classifier minus that of the other, with its 95 % interval by a bootstrap over patients.
    """

    fraction: float
    method: str
    against: str
    findings: tuple[str, ...]
    difference: float
    low: float
    high: float

    @property
    def word(self) -> Literal["ahead of", "level with", "behind"]:
        """ahead of or behind where the interval excludes zero."""
        return "ahead of" if self.low > 0 else "behind" if self.high < 0 else "level with"

    def __str__(self) -> str:
        """The verdict as a sentence."""
        return (
            f"{METHODS[self.method]} on {100 * self.fraction:g} % is {self.word} {METHODS[self.against]}: macro AUROC "
            f"{self.difference:+.3f} (95 % {self.low:+.3f} to {self.high:+.3f}, paired, {len(self.findings)} findings)"
        )


@dataclass(frozen=True)
class TestScores:
    """Scores (N, S) of some findings on the test split, by one way of scoring."""

    method: str
    findings: tuple[str, ...]
    scores: NDArray[np.float64]

    __test__ = False  # no test class


def compare(
    fraction: float, mine: TestScores, other: TestScores, findings: Sequence[str], labels: NDArray[Any], patients: NDArray[Any]
) -> Verdict | None:
    """The verdict on two ways of scoring; None where they share no finding that can be judged.

    Args:
        findings: F names of the columns of labels.
        labels: (N, F) of 1, 0 and NaN. patients: (N,) any label of each image's patient.
    """
    truth = {name: labels[:, column] for column, name in enumerate(findings)}
    shared = tuple(name for name in mine.findings if name in other.findings and {0.0, 1.0} <= set(truth[name][~np.isnan(truth[name])]))
    if not shared:
        return None
    pairs = [(mine.scores[:, mine.findings.index(name)], other.scores[:, other.findings.index(name)], truth[name]) for name in shared]
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    weights = patient_weights(patient, RESAMPLES, np.random.default_rng(0))
    differences = np.array([_macro_difference(pairs, row) for row in weights])
    low, high = percentiles(differences)
    return Verdict(fraction, mine.method, other.method, shared, _macro_difference(pairs, np.ones(len(patient), np.int32)), low, high)


def _macro_difference(pairs: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], weights: NDArray[np.int32]) -> float:
    """Mean over findings of the difference of two AUROCs, images weighted; NaN where no finding has both classes."""
    found = []
    for one, other, truth in pairs:
        chosen = np.repeat(np.arange(len(truth)), weights)
        chosen = chosen[~np.isnan(truth[chosen])]
        if {0.0, 1.0} <= set(truth[chosen]):
            found.append(auroc(one[chosen], truth[chosen]) - auroc(other[chosen], truth[chosen]))
    return float(np.mean(found)) if found else float("nan")


def finetuning_page(out: Path, rows: Sequence[Mapping[str, Any]], verdicts: Sequence[Verdict], notices: Sequence[str]) -> Path:
    """Write finetune.html to `out`: verdicts, the curve, its rows and what to know about the data.

    Raises:
        OutputError: it cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined)
    text = environment.get_template("finetune.html.jinja").render(
        notice=NOTICE,
        styles=Markup((here.parent / "report.css").read_text("utf-8")),
        curve=Markup("<svg" + curve_svg(rows).decode("utf-8").partition("<svg")[2]),  # without the declaration of XML
        rows=rows,
        methods=METHODS,
        verdicts=[str(each) for each in verdicts],
        notices=notices,
    )

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode("utf-8", "xmlcharrefreplace"))

    publish(out / PAGE, write)
    return out / PAGE
