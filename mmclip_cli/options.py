"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only results and errors.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the inputs, print what would be done, and write nothing.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, e.g. optimizer.lr=1e-4. Repeatable."),
]
FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Follow symbolic links into the inputs (DataLad, DVC, Hugging Face)."),
]
Uncertain = Annotated[
    Literal["unknown", "present", "absent"] | None,
    typer.Option(help="How uncertain labels (-1, u) are read.", show_default="unknown"),
]
LabelThreshold = Annotated[
    float | None, typer.Option(min=0, max=1, metavar="X", help="Soft labels (0 to 1) from X on are present.", show_default="an error")
]
LabelColumn = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The column that names the findings or class of a row.", show_default="a column for each finding"),
]
