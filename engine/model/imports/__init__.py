"""Weights of other libraries: read without running anything in them, renamed, checked, resized.

checkpoint.py       a file's tensors by name; pickle_reader.py reads pickles without running them
layout.py           layouts of CLIP weights, and other image sizes; open_clip.py: its configuration files
published.py        facts of published weights: activation, normalisation
source.py           from a path or name to a model
"""
