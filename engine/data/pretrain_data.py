"""Everything a run reads, made once and kept: image table, pixel store, text bank, under names that say what they were made from.

    pictures-<sources, size, resize>/    the pixel store
    texts-<texts, tokenizer, recogniser>.npz    the text bank

Runs on the same sources may share the folder. A changed source is noticed: the tables are read again by every run, a text bank's name is
a hash of its texts, and the pixel store compares the files it was made from.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.data.build_store import StoreProgress, fill_store
from engine.data.store import PixelStore
from engine.data.texts import TextBank, text_bank
from engine.errors import ConfigError
from engine.tables.atomic import make_folder, publish

if TYPE_CHECKING:
    import polars as pl

    from engine.data.entities import Recogniser
    from engine.data.sources import ImageTable
    from engine.recipe.pretraining import PretrainRecipe
    from engine.recipe.sources import Source


@dataclass(frozen=True)
class TrainingImages:
    """The images of a recipe's sources that are trained on, with their pixels.

    Attributes:
        table: as the sources give it.
        frame: the rows of `table.frame` that are trained on: neither held out nor without an image.
        store: pixels of every image of the table, held out or not.
        dropped: reason -> number of images, over tables and images.
    """

    table: ImageTable
    frame: pl.DataFrame
    store: PixelStore
    dropped: Mapping[str, int]

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """Report key -> its texts, of the images that are trained on in pairs."""
        import polars as pl

        keys = self.frame.filter(pl.col("paired"))["report_key"].unique().sort()
        return {key: self.table.texts[key] for key in keys}

    @property
    def content_hash(self) -> str:
        """A sha256 over what is learned from: each image's bytes, its study and its pool, and every text. Paths do not count."""
        digest = hashlib.sha256()
        for image, *rest in self.frame.select("image", "study", "paired", "repeat", "report_key", "report_group").iter_rows():
            digest.update(json.dumps([image, self.store.entries[image].sha256, *rest]).encode() + b"\n")
        digest.update(json.dumps(self.texts, sort_keys=True).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class PretrainDataSummary:
    """The data are ready.

    Attributes:
        images: that are trained on: `paired` with a report and `unpaired` without.
        held_out: images of patients that this run never sees.
        dropped: reason -> images that cannot be used.
        texts: different texts of the paired images.
        entities: share of them in which the recogniser found something; None where entities are not used.
        seconds: that preparing took.
    """

    images: int
    paired: int
    unpaired: int
    held_out: int
    dropped: dict[str, int]
    texts: int
    entities: float | None
    seconds: float


def training_images(recipe: PretrainRecipe, folder: Path, *, verify: bool = False, fill: bool = True) -> TrainingImages:
    """As `prepare_images`, all of it at once."""
    steps = prepare_images(recipe, folder, verify=verify, fill=fill)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: TrainingImages = end.value
            return found


def prepare_images(
    recipe: PretrainRecipe, folder: Path, *, table: ImageTable | None = None, verify: bool = False, fill: bool = True
) -> Generator[StoreProgress, None, TrainingImages]:
    """Fill the pixel store of the sources; yields progress, and returns the images.

    Args:
        table: the image table of the sources; None: it is read.
        folder: of prepared data, which runs may share; `mmclip ingest` fills it too.
        verify: compare the content of files that the store has already; False compares their sizes and times of change.
        fill: False opens the store as another process of the run has just filled it.

    Raises:
        EngineError: as `read_sources` and `fill_store`.
        ConfigError: no image is left to train on.
    """
    import polars as pl

    from engine.data.sources import read_sources

    make_folder(folder)
    table = table or read_sources(recipe.sources)
    place = folder / store_name(recipe.sources, recipe.store_size, recipe.resize)
    if fill:
        yield from fill_store(table.frame, place, recipe.store_size, recipe.resize, verify=verify)
    store = PixelStore.open(place)
    images = set(table.frame["image"])
    without = {image: reason for image, reason in store.dropped().items() if image in images}
    frame = table.frame.filter(~pl.col("held_out") & ~pl.col("image").is_in(list(without)))
    dropped = Counter(table.dropped["reason"].to_list()) + Counter(without.values())
    if frame.is_empty():
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        raise ConfigError("no image is left to train on", why=reasons or "all images are held out", hint="check `root` and `split`")
    return TrainingImages(table, frame, store, dict(sorted(dropped.items())))


def summary(found: TrainingImages, entities: float | None, seconds: float) -> PretrainDataSummary:
    """Summary of data that are ready."""
    paired = int(found.frame["paired"].sum())
    return PretrainDataSummary(
        images=len(found.frame),
        paired=paired,
        unpaired=len(found.frame) - paired,
        held_out=int(found.table.frame["held_out"].sum()),
        dropped=dict(found.dropped),
        texts=len({text for texts in found.texts.values() for text in texts}),
        entities=entities,
        seconds=round(seconds, 3),
    )


def store_name(sources: Sequence[Source], size: int, resize: str) -> str:
    """The name of the pixel store of these sources: the same for all runs on the same folders and tables with images of one size."""
    places = ("file", "root", "jpg_root")
    made_from = [[source.kind, *(str(Path(at).absolute()) for key in places if (at := getattr(source, key, None)))] for source in sources]
    return f"pictures-{digest_of([made_from, size, resize])}"


def recogniser_of(recipe: PretrainRecipe) -> Recogniser | None:
    """The recogniser that the recipe names; None where no switch of the recipe asks for entities."""
    if recipe.batch.paired == 0 or (recipe.entmlm.strategy != "entity" and recipe.entmlm.targets != "entities"):
        return None
    from engine.data.entities import load_recogniser

    return load_recogniser(recipe.entities)


def words(texts: Mapping[str, Sequence[str]], tokenizer: Any, recogniser: Recogniser | None, context: int, folder: Path) -> TextBank:
    """The text bank of these texts: the one in `folder` that was made from the same ones in the same way, or a new one.

    Args:
        tokenizer: a fast tokenizer of transformers.
        recogniser: its name and version are part of the bank's name; None: no text has an entity.
    """
    by = None if recogniser is None else [recogniser.name, recogniser.version]
    key = digest_of([texts, tokenizer.backend_tokenizer.to_str(), tokenizer.pad_token_id, by, context])
    file = folder / f"texts-{key}.npz"
    if (bank := _read_bank(file)) is not None:
        return bank
    bank = text_bank(texts, tokenizer, recogniser, context)
    arrays: dict[str, NDArray[Any]] = {
        "input_ids": bank.input_ids,
        "lengths": bank.lengths,
        "entity_ids": bank.entity_ids,
        "keys": np.array(list(bank.places), dtype=np.str_),
        "counts": np.array([len(places) for places in bank.places.values()], np.int64),
        "places": np.concatenate([*bank.places.values(), np.zeros(0, np.int64)]),
    }
    publish(file, lambda stream: np.savez_compressed(stream, **arrays))
    return bank


def _read_bank(file: Path) -> TextBank | None:
    """The bank in that file; None where there is none, or only what a careless copy left of one."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            ends = np.cumsum(stored["counts"])
            places = dict(zip(stored["keys"].tolist(), np.split(stored["places"], ends)[:-1], strict=True))
            return TextBank(stored["input_ids"], stored["lengths"], stored["entity_ids"], places)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def digest_of(value: Any) -> str:
    """The first 12 hex digits of a sha256 over a JSON value: enough for a file's name."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
