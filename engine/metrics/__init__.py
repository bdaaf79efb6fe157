"""Metrics: pure functions of arrays. Labels are 1 = present, 0 = absent; a higher score means more likely present.

roc.py              AUROC, average precision, their intervals; macro means
bootstrap.py        bootstrap over patients
significance.py     paired tests of two models on the same patients: where a p-value is made
thresholds.py       how a threshold is chosen
calibration.py      calibration maps, Brier score, calibration error
findings.py         all figures of all findings at once
pointing.py         whether heatmaps point at boxes
"""
