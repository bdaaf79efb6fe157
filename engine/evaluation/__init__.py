"""Evaluation: scores and labels -> tables, figures, pages.

studies.py          scores and labels of the studies judged together
from_scores.py      the evaluation of a scoring run's output folder
tables.py           metric, subgroup and prediction tables of an evaluation
published.py        figures that papers print, for comparison
learning_curve.py   test figures of each label fraction, as table and drawing
events.py           what an evaluation yields while it runs
output.py           the files of an evaluation; html.py: its page
"""
