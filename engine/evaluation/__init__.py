"""Evaluation: scores and labels to tables, figures and a page.

studies.py          scored studies: thresholds, figures, subgroups, calibration
row_data.py         data of a recipe's row, and its checks before the first image is read
image_encoder.py    features of its images, cached
from_scores.py      evaluation of a scoring run, or of a table of scores
tables.py           metric, subgroup and prediction tables
published.py        figures that papers print, for comparison
learning_curve.py   test figures of each label fraction, as table and figure
events.py           events of an evaluation
output.py           the files of an evaluation; html.py: its page
"""
