"""Scoring: read results and a model -> scores, rows and heatmaps.

feature_cache.py    read results and features by content hash, in Parquet shards: what a second run need not compute again
image_features.py   files -> read results and features, from the cache where they are known
targets.py          the findings of a run, and what scores them: prompts, or the head of a classifier
scorers.py          features -> scores; image batches -> features; ensembles
output.py           the files of a scoring run, and which of them an earlier run left
run_state.py        the state of a scoring run: result rows, duplicates, UID conflicts
heatmaps.py         which patches of an image speak for a finding; heatmap_sheets.py: one sheet an image, cached
"""
