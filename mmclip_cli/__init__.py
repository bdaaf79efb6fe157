"""The command line of mmclip: the only code that prints, asks or exits; no numbers, no tensors.

app.py        the Typer app; turns every error into one line on stderr and an exit code
console.py    progress bars, log lines, tables, JSON
options.py    options that several verbs share
score.py evaluate.py finetune.py ingest.py pretrain.py recipes.py models.py doctor.py     one verb each
"""
