"""Time and memory of the whole table of figures: findings x studies x resamples of patients.

    python tests/benchmarks/metrics.py --findings 14 --studies 100000 --resamples 1000

AUROC, AUPRC, F1 at the threshold and the best F1 have intervals from the same resamples; a third of the patients have two studies.
"""

import argparse
import resource
import time

import numpy as np

from engine.metrics.findings import figures


def main() -> None:
    """Print seconds, peak memory and the macro row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--findings", type=int, default=14)
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    n = args.studies
    labels = (rng.random((n, args.findings)) < rng.uniform(0.02, 0.4, args.findings)).astype(float)
    scores = 1 / (1 + np.exp(-rng.normal(size=labels.shape) - labels))
    labels[rng.random(labels.shape) < 0.05] = np.nan
    patients = np.arange(n) * 3 // 4
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, used = time.perf_counter(), time.process_time()
    rows = figures([f"finding {k}" for k in range(args.findings)], scores, labels, patients, resamples=args.resamples)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{args.findings} findings x {n:,} studies x {args.resamples:,} resamples of {n * 3 // 4:,} patients:")
    print(f"{seconds:.1f} s by the clock, {cpu:.1f} s of CPU, peak {peak / 1024:.0f} MB, {(peak - before) / 1024:.0f} MB of it not data")
    macro = rows[-1]
    print(f"macro AUROC {macro.auroc:.4f} ({macro.auroc_low:.4f}-{macro.auroc_high:.4f}), intervals by {rows[0].interval}")


if __name__ == "__main__":
    main()
