"""The tables that verbs exchange: their columns, how they are published whole, who may write them, and who is who in them.

What a scoring run leaves in its output folder, and the choices behind it:

    scores.csv, .parquet     one row per study with a scored image; a study is the mean or maximum over its images of outcome `score`
    images.csv, .parquet     one row per input file, always. A duplicate has the scores of its own pixels and is not counted again
    metrics.csv, .json       one row per finding and one of means, where labels were given; the json also holds the account of the labels
    report.html              the same for people, written by engine/html_report.py
    run.json                 provenance, counts, a hash of every file above; removed first and written last, so where it stands all belong
                             together
    table/                   what makes the next run cheap, see shards.py; rows live as long as the model and the code that read them
    private/                 mode 0700: files.parquet leads from names back to files, UIDs and patients, and files.csv also says what became
                             of them; nothing outside holds any of these
    .lock                    one run at a time; the kernel drops it with the process

"RESEARCH USE ONLY - not for clinical use" is the name of a last, empty column of every CSV, and metadata of every Parquet file.

    columns.py      columns and types, cells that are safe to open, CSV and Parquet writers
    atomic.py       files that appear whole or not at all, the lock
    identity.py     the site key and the names made with it
    shards.py       append-only Parquet shards of the feature cache, and how they are folded
    temp_store.py   what a run must know of every file, on the disk and without a name
    batches.py      tables that may be longer than memory
    results.py      rows of a run, and the tables that come of them
    studies.py      images to studies: mean or maximum, union of flags
    labels.py       labels files, and the join
    image_table.py   image tables as users write them
    run_log.py       run.json and log.jsonl of every verb: versions, timings, events
"""
