"""`mmclip models`: list the models that come with mmclip, show one."""

from __future__ import annotations

from typing import Annotated

import typer

from mmclip_cli import console
from mmclip_cli.options import Json

app = typer.Typer(help="List and show models.", no_args_is_help=True)


@app.command("list")
def list_models(json: Json = False) -> None:
    """List the models that come with mmclip."""
    from engine.model.bundle import shipped_models
    from engine.model.catalogue import describe

    found = [describe(name) for name in shipped_models()]
    if json:
        brief = ("name", "content_hash", "parameters", "megabytes", "image_size", "text_tokens")
        console.say_json({"models": [{key: getattr(each, key) for key in brief} for each in found]})
        return
    columns = ["name", "million weights", "MB", "pixels", "tokens", "content hash"]
    rows = [
        [each.name, f"{each.parameters / 1e6:.1f}", each.megabytes, each.image_size, each.text_tokens, each.content_hash[:12]]
        for each in found
    ]
    console.table(columns, rows)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A shipped name or the folder of a bundle.", show_default=False)], json: Json = False
) -> None:
    """Print a model's card; with --json, everything it says about itself."""
    from engine.model.catalogue import describe

    found = describe(model)
    if json:
        console.say_json(found)
        return
    console.say(found.card.rstrip("\n") or f"{found.name} has no card")
    console.say(f"\ncontent hash {found.content_hash}, {found.parameters:,} weights, {found.megabytes} MB, files whole")
