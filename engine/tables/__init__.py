"""Tables between verbs: schemas, atomic writes, locks and pseudonyms.

The output folder of a scoring run:

    scores.csv, .parquet     one row per study with a scored image; a study is the mean or maximum over its images of outcome `score`
    images.csv, .parquet     one row per input file, always. A duplicate has the scores of its own pixels and is not counted again
    metrics.csv, .json       one row per finding and one of means, where labels were given; the json also holds the account of the labels
    report.html              the same for people, written by engine/html_report.py
    run.json                 provenance, counts, a hash of every file above; removed first and written last: where it is, all files
                             belong to one run
    table/                   the feature cache, see shards.py; rows are valid for one model and one version of the reader
    private/                 mode 0700: files.parquet maps rows to files, UIDs and patients, and files.csv has their outcomes too; there are
                             no identifiers elsewhere
    .lock                    one run at a time; the kernel drops it with the process

"RESEARCH USE ONLY - not for clinical use" is the name of a last, empty column of every CSV, and metadata of every Parquet file.

    columns.py      columns and types, cells that are safe to open, CSV and Parquet writers
    atomic.py       atomic file writes, the lock
    identity.py     the site key, and pseudonyms
    shards.py       append-only Parquet shards of the feature cache, and how they are folded
    temp_store.py   temporary key-value store on the disk
    batches.py      tables that may not fit into memory
    results.py      result rows of a run, and the tables made of them
    studies.py      images to studies: mean or maximum, union of flags
    labels.py       labels files, and the join
    image_table.py   image tables as users write them
    run_log.py       run.json and log.jsonl of every verb: versions, timings, events
"""
