"""Imports of CLIP weights from other libraries: read without running code, checked, renamed, resized.

checkpoint.py       a file's tensors by name; pickle_reader.py reads pickles without running them
layout.py           layouts of CLIP weights, and other image sizes; open_clip.py: its configuration files
published.py        facts of published weights: activation, normalisation
source.py           a path or name -> a model
"""
