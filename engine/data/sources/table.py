"""Any CSV or Parquet table of images -> the image table: what a user without a named data set has.

The table has a column `file`, and optional study, patient, view, report, split and finding columns (recipe: `TableSource`).
A row that cannot be used is dropped with one of the codes of `DROPS`; nothing is dropped in silence.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.sources.findings import Findings, finding_columns, findings_of
from engine.data.sources.image_table import COLUMNS, DROPS, FINDING_TYPE, LFS_POINTER, ImageTable, drops, facts_of, is_lfs_pointer
from engine.data.sources.table_rows import Row, age_of, rows_of, sex_of
from engine.data.splits import sha256_of
from engine.data.weak import Wordings, load_sentences, wordings
from engine.errors import ConfigError
from engine.intake.containers import file_facts
from engine.recipe.prompts import WeakSentences
from engine.recipe.sources import TableSource

TRAIN = frozenset({"train", "training"})
SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")


def read_table(source: TableSource) -> ImageTable:
    """The images of one table.

    Split and unpaired share go by patient: every image of a patient falls on one side, whatever else the table holds, because the
    side is a hash of the seed and the patient alone. Where the table's own `split` column says something, that decides: what is not
    `train` is held out, with the patient's other images. Without a patient column every study, and without a study column every image,
    stands for itself. A file that is named again with the same labels is taken once; with other labels, not at all.

    Raises:
        InputMissing: there is no such table.
        ReadError: it is neither CSV nor Parquet.
        ConfigError: columns are missing, or no row is left.
    """
    path = Path(source.file)
    header, rows = rows_of(path, source)
    name = source.name or path.stem
    columns = finding_columns(header, source)
    root = Path(source.root).absolute() if source.root else path.absolute().parent
    sentences = load_sentences(source.sentences) if source.reports == "weak" else None

    dropped: list[tuple[str, str]] = []
    kept: list[dict[str, Any]] = []
    bank: dict[Any, Wordings] = {}
    left_out = 0
    seen: dict[Path, dict[str, int]] = {}
    disagreeing: set[Path] = set()
    for row in rows:
        if row.left_out:
            left_out += 1
            continue
        file = _there(root, row.file)
        reason = _why_dropped(row, file, seen)
        found = findings_of(row.cells, columns, source)
        if reason is None and found.contradicts:
            reason = "labels_contradict"
        if reason == "duplicate_image" and seen[file] != found.values:
            reason = "labels_disagree"
            disagreeing.add(file)
        if reason is not None:
            dropped.append((str(file) if row.file else "", reason))
            continue
        seen[file] = found.values
        words = _words(row, found, source, sentences, bank)
        study = row.study or row.file
        patient = row.patient or study
        kept.append(
            {
                "image": row.file,
                "file": str(file),
                "study": f"{name}:{study}",
                "patient": f"{name}:{patient}",
                "view": row.view,
                "split": row.split,
                "sex": sex_of(row.sex),
                "age": age_of(row.age),
                "report": words.texts[0] if words.texts else "",
                "report_key": words.key if words.texts else "",
                "report_group": words.group if words.texts else "",
                "paired": bool(words.texts) and not _drawn(f"{source.split.seed}:unpaired:{patient}", source.unpaired_share),
                "held_out": row.split.casefold() not in TRAIN
                if row.split
                else not _drawn(f"{source.split.seed}:{patient}", source.split.train),
                "source": name,
                "repeat": source.repeat,
                **{finding: value for finding, value in found.values.items() if value is not None},
            }
        )
    if disagreeing:
        dropped += [(each["file"], "labels_disagree") for each in kept if Path(each["file"]) in disagreeing]
        kept = [each for each in kept if Path(each["file"]) not in disagreeing]
    if not kept:
        why = "; ".join(f"{count} rows: {DROPS[code]}" for code, count in Counter(code for _, code in dropped).items())
        filters = f"{left_out} rows are left out by `where`" if left_out else ""
        raise ConfigError(
            f"no image is left of source {name}",
            why="; ".join(filter(None, [why, filters])) or "the table has no rows",
            hint="in the column `file`, whole names with their suffix, relative to the table or to `root`; and the values under `where`",
        )
    findings = _finding_names(kept, columns, source)
    frame = pl.DataFrame(kept, schema={**COLUMNS, **dict.fromkeys(findings, FINDING_TYPE)}, orient="row")
    frame = frame.with_columns(held_out=pl.col("held_out").any().over("patient"))
    texts = {words.key: words.texts for words in bank.values() if words.texts}
    gone = drops(dropped)
    distinct = len({text for words in texts.values() for text in words})
    facts = facts_of(name, frame, findings, gone, left_out=left_out, texts=distinct)
    return ImageTable(frame, gone, findings, texts, {**facts, "split": _split_facts(name, frame, source)})


def _there(root: Path, name: str) -> Path:
    """The file of a row; a name with backslashes that is not there is read as a path of Windows."""
    file = root / name
    return root / name.replace("\\", "/") if "\\" in name and not file.exists() else file


def _split_facts(name: str, frame: pl.DataFrame, source: TableSource) -> dict[str, Any]:
    """The split by name, and of the whole and of each part n and SHA-256 of the images; and how many patients stand in several parts.

    Patients in several parts are held out whole here; what chooses or judges by the parts refuses them.
    """
    named = frame["split"].ne("").any()
    column = source.columns.get("split", "split")
    drawn = f"{source.split.train:g} of the patients trained on, by a hash of the patient, seed {source.split.seed}"
    part = pl.when(pl.col("split") != "").then("split").otherwise(pl.when("held_out").then(pl.lit("held_out")).otherwise(pl.lit("train")))
    images = frame.select("image", "patient", part=part)
    shared = images.group_by("patient").agg(pl.col("part").n_unique()).filter(pl.col("part") > 1)
    return {
        "name": f"{name}, " + (f"column {column}" if named else drawn if source.split.train < 1 else "undivided"),
        "unit": "image",
        "n": len(frame),
        "sha256": sha256_of(frame["image"]),
        "parts": {
            str(key[0]): {"n": len(rows), "sha256": sha256_of(rows["image"])}
            for key, rows in sorted(images.partition_by("part", as_dict=True).items())
        },
        "shared_patients": len(shared),
    }


def _why_dropped(row: Row, file: Path, seen: Container[Path]) -> str | None:
    """A code of `DROPS`, or None for a row that can be used."""
    if row.ragged:
        return "row_ragged"
    if not row.file:
        return "file_blank"
    if file in seen:
        return "duplicate_image"
    try:
        size, _ = file_facts(file)
    except OSError:
        return "file_missing"
    if size == 0:
        return "empty_file"
    return "lfs_pointer" if row.report.startswith(LFS_POINTER) or is_lfs_pointer(file, size) else None


def _words(row: Row, found: Findings, source: TableSource, sentences: WeakSentences | None, bank: dict[Any, Wordings]) -> Wordings:
    """The texts of one row, made once for all rows that share them."""
    if source.reports == "none":
        return Wordings("", "", ())
    if sentences is None:
        from engine.data.reports import clean

        text = clean(row.report)
        key = "report:" + hashlib.sha256(text.encode()).hexdigest()[:16]
        return bank.setdefault(key, Wordings(key, key, passages(text, source.passage or len(text)) if text else ()))
    known = (found.present, found.absent)
    if known not in bank:
        bank[known] = wordings(*known, source.variants, sentences, context=source.context)
    return bank[known]


def passages(text: str, longest: int) -> tuple[str, ...]:
    """A text of at most `longest` characters as it is; of a longer one a passage from the beginning of each sentence, cut between words.

    A last passage of less than a quarter of `longest` says too little to stand alone, and is left out.
    """
    if len(text) <= longest:
        return (text,)
    starts = [0, *(found.end() for found in SENTENCE_END.finditer(text) if len(text) - found.end() >= longest / 4)]
    ends = [start + longest if start + longest < len(text) else len(text) for start in starts]
    cut = [
        text[start:end] if end == len(text) or text[end].isspace() else text[start:end].rpartition(" ")[0]
        for start, end in zip(starts, ends, strict=True)
    ]
    return tuple(dict.fromkeys(passage for passage in cut if passage))


def _drawn(salted: str, share: float) -> bool:
    """True for this share of all strings, always the same ones."""
    return int.from_bytes(hashlib.sha256(salted.encode()).digest()[:8], "big") < share * 2**64


def _finding_names(kept: Sequence[Mapping[str, Any]], columns: Mapping[str, str], source: TableSource) -> tuple[str, ...]:
    """Findings of the recipe first, then others in the order in which the table names them."""
    named = [*columns.values(), *source.exhaustive, *(name for name in source.rename.values() if name)]
    return tuple(dict.fromkeys([*named, *(name for row in kept for name in row if name not in COLUMNS)]))
