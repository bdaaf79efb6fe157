"""Metrics: pure functions of arrays. Labels are 1 = present, 0 = absent; a higher score means more likely present.

roc.py              ROC curve, AUROC, average precision; macro means
intervals.py        intervals of an AUROC, a mean and a difference
bootstrap.py        bootstrap over patients, for the intervals of AUPRC and F1
significance.py     paired tests of two models on the same patients: where a p-value is made
thresholds.py       how a threshold is chosen
calibration.py      calibration maps, Brier score, calibration error
findings.py         all figures of all findings at once
pointing.py         whether heatmaps point at boxes
"""
