"""`mmclip models`: list and show models, import weights of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmclip_cli import console
from mmclip_cli.options import DryRun, Json

app = typer.Typer(help="List, show and import models.", no_args_is_help=True)


@app.command("list")
def list_models(json: Json = False) -> None:
    """List the models that come with mmclip."""
    from engine.model.bundle import shipped_models
    from engine.model.bundle_folder import describe

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
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped name or the folder of a bundle.", show_default=False)],
    json: Json = False,
) -> None:
    """Check a model's files and print its card.

    With --json: configuration, provenance and hashes.
    """
    from engine.model.bundle_folder import describe
    from engine.model.population import Population

    found = describe(model)
    if json:
        console.say_json(found)
        return
    console.say(found.card.rstrip("\n") or f"{found.name} has no card")
    if (population := Population.read(found.provenance)) is not None:
        console.say(f"\ntrained on {population}")
    console.say(f"\ncontent hash {found.content_hash}, {found.parameters:,} weights, {found.megabytes} MB, files whole")


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A Hugging Face CLIP (id or folder), OpenAI's .pt, an open_clip file or folder, CheXzero's .pt, a bundle, a shipped name.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the new bundle; must be empty or absent.", show_default=False)],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model.", show_default="the folder's name")] = None,
    preprocessing: Annotated[
        Literal["clip", "chexzero"] | None,
        typer.Option(help="Image preprocessing, if the source does not declare it.", show_default="from the source or a known release"),
    ] = None,
    activation: Annotated[
        Literal["quick_gelu", "gelu"] | None,
        typer.Option(help="Activation function, if the source does not declare it.", show_default="from the source or a known release"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, metavar="PIXELS", help="Image size; position embeddings are interpolated.", show_default="as trained"),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=1, metavar="TOKENS", help="Text length; position embeddings are cut or extended.", show_default="as trained"),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Import CLIP weights of other libraries as a bundle.

    No pickle and no code of the source is executed.

    The bundle works as --model of score, as model.init of a recipe, and in transformers.CLIPModel.from_pretrained. If neither the
    source nor the list of known releases declares activation or preprocessing, the import fails and names the option to set.
    """
    from engine.model.imports.source import check_free, import_model, save_imported

    check_free(out)
    found = import_model(
        source,
        name=name or out.resolve().name,
        preprocessing=preprocessing,
        activation=activation,
        image_size=size,
        context=context,
    )
    if not dry_run:
        save_imported(found, out)
    about = found.provenance["imported"]
    if json:
        summary = {"name": found.name, "out": out, "written": not dry_run, "preprocessing": found.preprocessing, "context": found.context}
        console.say_json({**summary, "parameters": found.parameters, **found.provenance})
        return
    console.table(
        [found.name, f"from {about['file']}"],
        [
            ["source", f"{about['maker']}, {about['format']}, sha256 {about['sha256'][:12]}"],
            ["activation", f"{about['activation']['value']}: {about['activation']['because']}"],
            ["preprocessing", f"{about['preprocessing']['value']}: {about['preprocessing']['because']}"],
            ["towers", f"{found.parameters / 1e6:.1f} million weights, {found.preprocessing.size} pixels, {found.context} tokens"],
            *[["changed", line] for line in about.get("changed", ())],
        ],
    )
    console.say(f"{'would be written to' if dry_run else 'written to'} {console.shown(out)}")
