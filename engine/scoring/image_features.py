"""Files to read results and image features: from the feature cache where their content is known, from worker processes and the model
where it is not."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.intake.files import InputFile
from engine.intake.limits import LIMITS, Limits
from engine.intake.read_result import KNOWN, ReadResult
from engine.intake.shared_digests import shared_digests
from engine.intake.workers import read_files
from engine.scoring.feature_cache import ADD_ROWS, FeatureCache, holds
from engine.tables.shards import ShardFolder

Vector = NDArray[np.float32]
Encode = Callable[[Sequence[NDArray[np.uint8]]], Vector]
"""Grey images, uint8 (H, W) -> features (N, D)."""


@dataclass(frozen=True)
class FileResult:
    """An input file with its read result. `known`: from the cache, and then with its `scores` (F,) where it has features."""

    item: InputFile
    reading: ReadResult
    scores: Vector | None = None
    known: bool = False


def file_results(
    items: Iterator[InputFile], cache: FeatureCache | None, *, size: int, workers: int, limits: Limits = LIMITS
) -> Generator[FileResult, None, None]:
    """Every file with its read result, in the order given. Files are hashed by the worker processes, as a read may hang on a bad disk.

    Args:
        cache: contents that are not read again; None: none.
        size: the shorter side of images, in pixels.
        workers: reading processes; started when there is a file to open.
        limits: what one file may cost.
    """
    with shared_digests(b"" if cache is None else cache.digests()) as known:
        for plain_images, stretch in groupby(items, key=lambda item: item.plain_image):
            queue: deque[InputFile] = deque()
            for reading in read_files(
                _to_read(stretch, queue), size=size, workers=workers, limits=limits, plain_images=plain_images, known=known
            ):
                item = queue.popleft()
                yield FileResult(item, reading) if reading.reason != KNOWN else _known_result(item, reading.content_hash, cache)


def _known_result(item: InputFile, content_hash: str, cache: FeatureCache | None) -> FileResult:
    known = None if cache is None else cache.get(content_hash)
    if known is None:  # the worker process was taken over, or is broken
        return FileResult(item, ReadResult(item.path, "reject", "decode_crash"))
    if known.is_plain_image and not item.plain_image:  # read by an earlier run, which asked for PNG and JPEG too
        return FileResult(item, ReadResult(item.path, "skip", "not_dicom", content_hash=content_hash))
    return FileResult(item, known.reading(item.path), known.scores, known=True)


@dataclass(frozen=True)
class FileCounts:
    """How many files there are, how many of them are known, and those left out without being opened, by reason."""

    files: int
    known: int
    left_out: dict[str, int]


def count_files(items: Iterable[InputFile], known: NDArray[np.bytes_], *, workers: int) -> FileCounts:
    """Counts for a dry run. Files are read as far as their hash, and only where any content is `known` (sorted SHA-256 digests)."""
    files = 0
    left_out: Counter[str] = Counter()

    def to_open() -> Iterator[Path]:
        nonlocal files
        for item in items:
            files += 1
            if item.decided:
                left_out[item.decided[1]] += 1
            else:
                yield item.path

    opened, found = to_open(), 0
    if len(known):
        found = sum(holds(known, each.content_hash) for each in read_files(opened, size=1, workers=workers, hash_only=True))
    deque(opened, maxlen=0)  # where nothing is known, nothing was counted yet
    return FileCounts(files, found, dict(sorted(left_out.items())))


def _to_read(items: Iterable[InputFile], queue: deque[InputFile]) -> Iterator[Path | ReadResult]:
    """The path of each file, or its read result where that is decided; the item itself goes to the end of `queue`."""
    for item in items:
        queue.append(item)
        if item.decided:
            outcome, reason = item.decided
            yield ReadResult(item.path, outcome, reason)
        else:
            yield item.path


def with_features(results: Iterator[FileResult], encode: Encode, batch_size: int) -> Iterator[tuple[FileResult, Vector | None]]:
    """Each file with its features (D,), in order; None where it has no image, or is known. Images wait for a full batch."""
    waiting: list[FileResult] = []
    new: list[NDArray[np.uint8]] = []

    def flush() -> Iterator[tuple[FileResult, Vector | None]]:
        features = iter(encode(new) if new else ())
        for each in waiting:
            yield each, None if _new_image(each) is None else next(features)
        waiting.clear()
        new.clear()

    for each in results:
        waiting.append(each)
        image = _new_image(each)
        if image is not None:
            new.append(image)
        if len(new) == batch_size or not new or len(waiting) >= ADD_ROWS:
            yield from flush()
    yield from flush()


def _new_image(result: FileResult) -> NDArray[np.uint8] | None:
    return result.reading.image if result.reading.outcome == "score" and not result.known else None


@dataclass(frozen=True)
class FileFeatures:
    """One file: its features (D,), or None and the reason (a code of REASONS) why it has none. `known`: by an earlier run."""

    number: int
    features: Vector | None
    reason: str | None
    known: bool
    content_hash: str


def file_features(
    files: Sequence[Path], cache: FeatureCache, encode: Encode, *, size: int, batch_size: int, workers: int
) -> Generator[FileFeatures, None, None]:
    """The features of every file (DICOM, PNG or JPEG), in order. New ones are added to the cache, also when the generator is closed early.

    Args:
        files: their paths.
        cache: opened without `scores_of`, so that it gives features.
        encode: gets at most `batch_size` images.
        size: shorter side of the images, in pixels.
        workers: processes that read files.

    Raises:
        OutputError: the cache cannot be written. What `encode` raises.
    """
    items = iter([InputFile(path, plain_image=True) for path in files])
    try:
        with closing(file_results(items, cache, size=size, workers=workers)) as results:
            for number, (each, new) in enumerate(with_features(results, encode, batch_size)):
                features = each.scores if each.known else new
                if not each.known:
                    cache.add(each.reading, features)
                reason = None if features is not None else each.reading.reason or each.reading.outcome
                yield FileFeatures(number, features, reason, each.known, each.reading.content_hash)
    finally:
        cache.close()


def content_features(contents: Sequence[str], image: Callable[[int], NDArray[np.uint8]], shards: ShardFolder, encode: Encode) -> Vector:
    """The features (N, D) of images that are elsewhere (in a pixel store): cached ones, and new ones, which are added to the cache.

    Args:
        contents: SHA-256 of each image's file, hexadecimal.
        image: number (0 to N - 1) -> uint8 (H, W); called for new contents only.
        shards: of one model, and of a reader name that says how the images were made.

    Raises:
        OutputError: the cache cannot be written. What `encode` raises.
    """
    cache = FeatureCache(shards)
    features = cache.features(contents)
    new = {content: number for number, content in enumerate(contents) if np.isnan(features[number]).any()}
    made: dict[str, Vector] = {}
    try:
        for start in range(0, len(new), ADD_ROWS):
            chunk = list(new.items())[start : start + ADD_ROWS]
            for (content, _), row in zip(chunk, encode([image(number) for _, number in chunk]), strict=True):
                made[content] = row
                cache.add(ReadResult(Path(), "score", content_hash=content), row)
    finally:
        cache.close()
    for number, content in enumerate(contents):
        if content in made:
            features[number] = made[content]
    return features
