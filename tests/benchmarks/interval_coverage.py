"""How often a 95 % interval of an AUROC, of a mean of AUROCs and of a difference holds the true value, by simulation.

    python tests/benchmarks/interval_coverage.py --draws 1000

Scores are normal with equal variance in both classes; 100 patients lack the finding. Clustered: one to four studies per patient, half of
the variance shared by the studies of a patient; positives are then counted in patients. Methods of one area:

    delong        value +- 1.96 DeLong standard errors (studies of a patient summed), cut to [0, 1]
    logit_delong  the same on the logit scale with the t distribution
    newcombe      Newcombe's method 5, counted over patients
    bootstrap     percentiles of 1,000 resamples of patients (a tenth of the draws)
    mmclip        what metrics.csv gives: newcombe below ten patients of a class, else logit_delong

The mean is over three findings of the same patients, with the given number of positives, twice and four times as many, correlation 0.5. The
difference is of two models on the same studies, correlation 0.5.
"""

import argparse
import math
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from scipy.stats import norm

from engine.metrics import intervals
from engine.metrics.bootstrap import patient_weights, percentiles
from engine.metrics.intervals import Area, area_interval, area_of, difference_interval, mean_interval, newcombe_interval

POSITIVES = (3, 5, 7, 9, 10, 12, 15, 20, 40, 80)
AREAS = (0.64, 0.75, 0.86, 0.95)
NEGATIVES = 100
METHODS = ("delong", "logit_delong", "newcombe", "bootstrap", "mmclip")
Rng = np.random.Generator
Scores = np.ndarray


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--positives", type=int, nargs="+", default=POSITIVES)
    args = parser.parse_args()
    print(f"{args.draws} draws a figure, {datetime.now(UTC):%Y-%m-%d}. In each cell: true AUROC {', '.join(map(_figure, AREAS))}.")
    for clustered in (False, True):
        print(f"\n{'One to four studies' if clustered else 'One study'} per patient:\n")
        columns = ("positives", *METHODS, "mean", "difference")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for positives in args.positives:
            single = [single_coverage(positives, true, clustered, args.draws) for true in AREAS]
            cells = [[each[method] for each in single] for method in METHODS]
            cells.append([mean_coverage(positives, true, clustered, args.draws) for true in AREAS])
            cells.append([difference_coverage(positives, true, clustered, args.draws) for true in AREAS])
            print(f"| {positives} | {' | '.join(' '.join(map(_figure, cell)) for cell in cells)} |", flush=True)


def single_coverage(positives: int, true: float, clustered: bool, draws: int) -> dict[str, float]:
    """Method -> share of draws whose interval holds the true AUROC."""
    rng = np.random.default_rng([positives, round(100 * true), clustered])
    hits = dict.fromkeys(METHODS, 0)
    for draw in range(draws):
        patients = drawn_patients(positives, clustered, rng)
        present = patients < positives
        scores = noise(patients, clustered, rng) + shift(true) * present
        area = area_of(scores, present, patients, positives + NEGATIVES)
        for method, bounds in simple_intervals(area).items():
            hits[method] += bounds[0] <= true <= bounds[1]
        if draw % 10 == 0:
            low, high = bootstrap_interval(scores, present, patients, rng)
            hits["bootstrap"] += low <= true <= high
    return {method: count / (math.ceil(draws / 10) if method == "bootstrap" else draws) for method, count in hits.items()}


def simple_intervals(area: Area) -> dict[str, tuple[float, float]]:
    """The intervals that need no resamples."""
    half = intervals.Z_95 * math.sqrt(float(area.influence @ area.influence))
    newcombe = newcombe_interval(area.value, area.positives, area.negatives)
    ours = area_interval(area)
    # logit_delong where mmclip would not take it: the same area said to have patients enough
    logit = area_interval(Area(area.value, NEGATIVES, NEGATIVES, area.influence, area.degrees_of_freedom))
    return {
        "delong": (max(0.0, area.value - half), min(1.0, area.value + half)),
        "logit_delong": (logit.low, logit.high) if logit.method == "logit_delong" else newcombe,
        "newcombe": newcombe,
        "mmclip": (ours.low, ours.high),
    }


def bootstrap_interval(scores: Scores, present: Scores, patients: Scores, rng: Rng) -> tuple[float, float]:
    """Percentiles of the AUROC over resamples of patients."""
    x, y = scores[present], scores[~present]
    wins = (x[:, None] > y).astype(np.float64)
    weights = patient_weights(patients, 1000, rng).astype(np.float64)
    with np.errstate(invalid="ignore"):
        ours, theirs = weights[:, present], weights[:, ~present]
        return percentiles(np.einsum("rm,mn,rn->r", ours, wins, theirs, optimize=True) / (ours.sum(axis=1) * theirs.sum(axis=1)))


def mean_coverage(positives: int, true: float, clustered: bool, draws: int) -> float:
    """Share of draws in which the interval of the mean of three findings holds the true AUROC."""
    rng = np.random.default_rng([positives, round(100 * true), clustered, 3])
    count = 4 * positives + NEGATIVES

    def interval() -> tuple[float, float]:
        patients = drawn_patients(count - NEGATIVES, clustered, rng)
        common, areas = noise(patients, clustered, rng), []
        for times in (1, 2, 4):
            present = patients < times * positives
            scores = mixed(common, noise(patients, clustered, rng)) + shift(true) * present
            areas.append(area_of(scores, present, patients, count))
        found = mean_interval(areas)
        return found.low, found.high

    return coverage(interval, true, draws)


def difference_coverage(positives: int, true: float, clustered: bool, draws: int) -> float:
    """Share of draws in which the interval of the difference to a model of AUROC 0.75 holds the true difference."""
    rng = np.random.default_rng([positives, round(100 * true), clustered, 2])

    def interval() -> tuple[float, float]:
        patients = drawn_patients(positives, clustered, rng)
        present, common, areas = patients < positives, noise(patients, clustered, rng), []
        for area in (true, 0.75):
            scores = mixed(common, noise(patients, clustered, rng)) + shift(area) * present
            areas.append(area_of(scores, present, patients, positives + NEGATIVES))
        found = difference_interval(*areas)
        return found.low, found.high

    return coverage(interval, true - 0.75, draws)


def coverage(interval: Callable[[], tuple[float, float]], true: float, draws: int) -> float:
    """Share of intervals that hold `true`."""
    hits = 0
    for _ in range(draws):
        low, high = interval()
        hits += low <= true <= high
    return hits / draws


def drawn_patients(positives: int, clustered: bool, rng: Rng) -> Scores:
    """The patient of each study: 0..positives-1 show the finding, `NEGATIVES` more do not."""
    count = positives + NEGATIVES
    return np.repeat(np.arange(count), rng.integers(1, 5, count) if clustered else 1)


def noise(patients: Scores, clustered: bool, rng: Rng) -> Scores:
    """Normal scores of variance 1, half of it shared by the studies of a patient where `clustered`."""
    if not clustered:
        return rng.normal(size=patients.size)
    return math.sqrt(0.5) * (rng.normal(size=int(patients.max()) + 1)[patients] + rng.normal(size=patients.size))


def mixed(common: Scores, own: Scores) -> Scores:
    """Scores of variance 1 and correlation 0.5 with others of the same `common` part."""
    return math.sqrt(0.5) * (common + own)


def shift(area: float) -> float:
    """Difference of means at which normal scores of variance 1 have this AUROC."""
    return float(norm.ppf(area)) * math.sqrt(2)


def _figure(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")


if __name__ == "__main__":
    main()
