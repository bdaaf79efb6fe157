"""Options that mean the same in every verb, so that they are spelt and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what would be done, and do nothing.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe, as in optimizer.lr=1e-4. Repeatable."),
]
