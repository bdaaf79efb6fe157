"""The command line of mmclip: the only code that prints, asks or exits; no numbers, no tensors.

app.py        the Typer app, and the one place where an error becomes one line and an exit code
console.py    progress, log lines, tables
score.py pretrain.py models.py recipes.py doctor.py     one verb each
"""
