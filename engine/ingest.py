"""Ingest: a data set's own layout, a recipe's sources or a folder of DICOM -> an image table and its pixels, prepared once.

    out/
        images.parquet     one row per image that was read: what `mmclip score` and `kind: table` of a recipe take
        dropped.parquet    rows without an image, with their reasons (data sets; of a DICOM folder: private/files.parquet)
        pictures-.../      the pixel store, 8-bit squares in one memory map; `mmclip pretrain --data out` reads it
        run.json           versions, sources, counts that add up, seconds
        private/           DICOM folders only, mode 0700: paths, UIDs, patients

A run that was stopped continues where it was, and a run over unchanged sources reads no image again. In the table of a data set,
`file` is the file as published and identifiers are the data set's own. Of a DICOM folder the table holds no path and no identifier:
studies, images and patients are named by HMAC, and `file` is the image's row in the store.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.build_store import StoreProgress, fill_store
from engine.data.dicom_folder import Ingested, ingest_folder
from engine.data.pretrain_data import store_name
from engine.data.sources import read_sources
from engine.data.sources.published import sources_in
from engine.data.store import PixelStore
from engine.dicom.reasons import FAILURES
from engine.errors import InputMissing, UsageError
from engine.intake.containers import is_named_as_image
from engine.intake.files import check_inputs, input_files
from engine.recipe.document import Document
from engine.recipe.loader import KINDS, check_recipe, find_recipe, kind_of, read_recipe
from engine.recipe.sources import SourcesRecipe, StoreRecipe
from engine.tables.atomic import locked, make_folder
from engine.tables.columns import NOTICE, write_parquet
from engine.tables.identity import Names, site_key
from engine.tables.run_log import Notice, publish_json, versions

_JOURNAL = "files.jsonl"
"""Journal of files of builds before 2026-12-02; it holds paths and UIDs, and is removed."""
RECIPE_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Recognised:
    """The kind of each source, or `dicom`; and the side of the stored images."""

    kinds: tuple[str, ...]
    size: int
    resize: str


@dataclass(frozen=True)
class IngestPlan:
    """The end of a dry run: rows of the sources' tables by their outcome without opening an image; some of `images` may not be readable."""

    images: int
    dropped: dict[str, int]
    left_out: int


@dataclass(frozen=True)
class IngestFinished:
    """The run is complete: `run` is what run.json holds."""

    run: dict[str, Any]


Event = Recognised | Notice | StoreProgress | IngestPlan | IngestFinished


def ingest(
    inputs: Sequence[str | Path],
    out: Path,
    *,
    kind: str | None = None,
    settings: Sequence[str] = (),
    workers: int | None = None,
    verify: bool = False,
    follow_links: bool = False,
    dry_run: bool = False,
) -> Iterator[Event]:
    """Prepare images once; yields the kinds of the inputs, progress, and the run's record.

    Args:
        inputs: one recipe with sources; or folders of published data sets and CSV or Parquet tables; or folders of DICOM.
        kind: what the folders are (`mimic_cxr`, `padchest`, `dicom`, ...); None: recognised by their tables.
        settings: `key=value` put over the recipe, or over the one that the inputs amount to: `sources.0.exclude_eval_patients=false`,
            `store_size=320`.
        workers: processes that read; None: as many as this process has cores.
        verify: compare the content of files that are known; False compares their sizes and times of change.
        follow_links: follow symbolic links into the trees of the inputs (folders of DICOM).
        dry_run: read the tables, look for the files, write nothing.

    Closing the generator keeps what was done.

    Raises:
        InputMissing: an input is not there. UsageError: inputs that do not go together, or a setting that names no key.
        RecipeError: a fault of the recipe. ConfigError: pieces of a data set are missing (all are named at once), or no image is left.
        ReadError: a table or a report cannot be read. OutputError, LockHeld: `out` cannot be written, or another run is at it.
    """
    begun = time.monotonic()
    recipe, folders = _recipe_of(inputs, kind, settings)
    sources = recipe.sources if isinstance(recipe, SourcesRecipe) else ()
    yield Recognised(tuple(source.kind for source in sources) or ("dicom",), recipe.store_size, recipe.resize)
    if dry_run:
        yield _plan_of_sources(recipe) if isinstance(recipe, SourcesRecipe) else _plan_of_folders(folders, out, follow_links)
        return
    processes = workers or len(os.sched_getaffinity(0))
    with locked(out):
        if isinstance(recipe, SourcesRecipe):
            account = yield from _from_sources(recipe, out, workers, verify)
        else:
            account = yield from _from_folders(folders, recipe, out, processes, verify, follow_links)
        run = {
            "notice": NOTICE,
            "versions": versions(),
            "options": {"store_size": recipe.store_size, "resize": recipe.resize, "workers": processes, "verify": verify},
            **account,
            "seconds": round(time.monotonic() - begun, 3),
        }
        publish_json(out / "run.json", run)
        yield IngestFinished(run)


def _recipe_of(inputs: Sequence[str | Path], kind: str | None, settings: Sequence[str]) -> tuple[StoreRecipe, list[Path]]:
    """The inputs as `SourcesRecipe`; for folders of DICOM only the size of the stored images, and the folders."""
    paths = [Path(each) for each in inputs]
    recipes = [path for path in paths if path.suffix.lower() in RECIPE_SUFFIXES or (not path.exists() and _is_shipped(path))]
    if recipes and (len(paths) > 1 or kind):
        raise UsageError("a recipe says by itself which data it needs", hint="the recipe alone, with --set sources.0.root=FOLDER and so on")
    if recipes:
        return _sources_of(str(inputs[0]), settings), []
    check_inputs(paths)
    sources = sources_in(paths, kind)
    written: dict[str, Any] = {"version": 1, "sources": sources} if sources else {"version": 1}
    document = Document(written)
    if sources:
        return check_recipe(document, SourcesRecipe, settings, name="of the inputs"), []
    return check_recipe(document, StoreRecipe, settings, name="of the inputs"), paths


def _is_shipped(name: Path) -> bool:
    try:
        find_recipe(name)
    except InputMissing:
        return False
    return True


def _sources_of(name: str, settings: Sequence[str]) -> SourcesRecipe:
    """The sources and image size of a recipe of any kind."""
    path, document = read_recipe(name)
    found = kind_of(document.values) or "pretraining"
    recipe = check_recipe(document, KINDS[found], settings, name=path.name)
    sources = getattr(recipe, "sources", None)
    if not sources:
        raise UsageError(f"a {found} recipe names no images", hint="a recipe with `sources`, or the folders themselves")
    told = {key: getattr(recipe, key) for key in ("store_size", "resize") if hasattr(recipe, key)}
    return SourcesRecipe(version=1, sources=sources, **told)


def _from_sources(recipe: SourcesRecipe, out: Path, workers: int | None, verify: bool) -> Generator[StoreProgress, None, dict[str, Any]]:
    """Make image table and pixel store of data sets; their part of run.json."""
    table = read_sources(recipe.sources)
    place = out / store_name(recipe.sources, recipe.store_size, recipe.resize)
    read = 0
    for filled in fill_store(table.frame, place, recipe.store_size, recipe.resize, workers=workers, verify=verify):
        read = filled.read
        yield filled
    without = PixelStore.open(place).dropped()
    gone = table.frame.select("image", "file", "source").with_columns(
        reason=pl.col("image").replace_strict(without, default=None, return_dtype=pl.String)
    )
    images = table.frame.filter(gone["reason"].is_null())
    gone = gone.filter(pl.col("reason").is_not_null()).select("file", "reason")
    dropped = pl.concat([table.dropped, gone])
    write_parquet(images, out / "images.parquet")
    write_parquet(dropped, out / "dropped.parquet")
    facts = table.facts.get("sources", [table.facts])
    counts = _counts(sum(each["rows"] for each in facts), images, dropped, sum(each.get("left_out", 0) for each in facts), read)
    return {"sources": facts, "store": place.name, "counts": counts}


def _from_folders(
    folders: Sequence[Path], recipe: StoreRecipe, out: Path, workers: int, verify: bool, follow_links: bool
) -> Generator[Notice | StoreProgress, None, dict[str, Any]]:
    """Make image table and pixel store of folders of DICOM; their part of run.json."""
    private, place = out / "private", out / f"pictures-{recipe.store_size}-{recipe.resize}"
    make_folder(private, mode=0o700)
    if (journal := private / _JOURNAL).exists():
        yield Notice(
            f"every file is read again: private/{_JOURNAL} was written by a build before 2026-12-02, in a format that is not used now"
        )
        journal.unlink()
    items = input_files(folders, {}, out=out, follow_links=follow_links)
    read = 0
    steps = ingest_folder(items, Names(site_key()), place, recipe.store_size, recipe.resize, workers=workers, verify=verify)
    while True:
        try:
            filled = next(steps)
        except StopIteration as end:
            found: Ingested = end.value
            break
        read = filled.read
        yield filled
    write_parquet(found.private, private / "files.parquet", mode=0o600)
    write_parquet(found.frame, out / "images.parquet")
    dropped = found.private.filter(pl.col("outcome") != "score")
    return {"sources": ["dicom"], "store": place.name, "counts": _counts(len(found.private), found.frame, dropped, 0, read)}


def _counts(rows: int, images: pl.DataFrame, dropped: pl.DataFrame, left_out: int, read: int) -> dict[str, Any]:
    """Counts that add up: rows = images + dropped + left_out. `failed` of those dropped are damaged or out of reach.

    `read`: files opened by this run, the others were known.
    """
    why = _by_reason(dropped)
    return {
        "rows": rows,
        "images": len(images),
        "studies": images["study"].n_unique(),
        "patients": images["patient"].n_unique(),
        "paired": int(images["paired"].sum()),
        "held_out": int(images["held_out"].sum()),
        "dropped": why,
        "failed": sum(count for reason, count in why.items() if reason in FAILURES | {"lfs_pointer", "zip_damaged"}),
        "left_out": left_out,
        "read": read,
    }


def _plan_of_sources(recipe: SourcesRecipe) -> IngestPlan:
    table = read_sources(recipe.sources)
    left_out = sum(each.get("left_out", 0) for each in table.facts.get("sources", [table.facts]))
    return IngestPlan(len(table.frame), _by_reason(table.dropped), left_out)


def _plan_of_folders(folders: Sequence[Path], out: Path, follow_links: bool) -> IngestPlan:
    left: Counter[str] = Counter()
    files = 0
    for item in input_files(folders, {}, out=out, follow_links=follow_links):
        reason = item.decided[1] if item.decided else "not_dicom" if is_named_as_image(item.path) else None
        files += reason is None
        left.update([reason] if reason else [])
    return IngestPlan(files, dict(sorted(left.items())), 0)


def _by_reason(dropped: pl.DataFrame) -> dict[str, int]:
    return dict(sorted(dropped["reason"].value_counts().iter_rows()))
