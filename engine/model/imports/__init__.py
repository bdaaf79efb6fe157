"""Weights of other libraries: read without running anything in them, renamed, checked, made to fit.

archive.py and pickled.py read a file, checkpoint.py names its tensors, layout.py and open_clip.py know the layouts, knowledge.py what is on
record of published files, positions.py other sizes; source.py tells the story.
"""
