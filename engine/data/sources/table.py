"""Any CSV or Parquet table of images -> the image table: what a user without a named data set has.

The table has a column `file`, and optional study, patient, view, report, split and finding columns (recipe: `TableSource`).
A row that cannot be used is dropped with one of the codes of `DROPS`; nothing is dropped in silence.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from engine.data.sources.findings import NOTHING, Findings, TableFindings, table_findings
from engine.data.sources.image_table import COLUMNS, DROPS, FINDING_TYPE, LFS_POINTER, ImageTable, drops, facts_of, is_lfs_pointer
from engine.data.sources.published_splits import sha256_of
from engine.data.sources.table_rows import Row, TableRows, age_of, rows_of, sex_of
from engine.data.splits import TRAIN, check_split_names, labels_by_patient, patient_keys, split_use, stratified_draw
from engine.data.weak import Wordings, load_sentences, wordings
from engine.errors import ConfigError
from engine.intake.containers import file_facts
from engine.recipe.prompts import WeakSentences
from engine.recipe.sources import TableSource
from engine.tables.image_table import named_file

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")


def read_table(source: TableSource) -> ImageTable:
    """The images of one table.

    Split and unpaired share go by patient: every image of a patient falls on one side, no matter what else the table holds, because the
    side is a hash of the seed and the patient alone; with `split.stratified` it is a draw among the labelled patients. Where the table's
    own `split` column says something, that decides: what is not `train` is held out, with the patient's other images. Without a patient
    column every study, and without a study column every image, counts as itself. A file that is named again with the same labels is taken
    once; with other labels, not at all.

    Raises:
        InputMissing: there is no such table.
        ReadError: it is neither CSV nor Parquet.
        ConfigError: columns are missing, or no row is left.
    """
    path = Path(source.file)
    table = rows_of(path, source)
    name = source.name or path.stem
    root = Path(source.root).absolute() if source.root else path.absolute().parent
    sentences = load_sentences(source.sentences) if source.reports == "weak" else None
    rows = [row for row in table.rows if not row.left_out]
    check_split_names(row.split for row in rows)
    labels = table_findings([row for row in rows if not row.ragged], table.others, source)
    found_of = dict(zip((row.number for row in rows if not row.ragged), labels.rows, strict=True))

    dropped: list[tuple[str, str]] = []
    kept: list[dict[str, Any]] = []
    bank: dict[Any, Wordings] = {}
    seen: dict[Path, dict[str, int]] = {}
    disagreeing: set[Path] = set()
    for row in rows:
        file = _file(root, row.file)
        reason = _why_dropped(row, file, seen)
        found = found_of.get(row.number, NOTHING)
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
                "held_out": split_use(row.split) != TRAIN
                if row.split
                else not source.split.stratified and not _drawn(f"{source.split.seed}:{patient}", source.split.train),
                "source": name,
                "repeat": source.repeat,
                **{finding: value for finding, value in found.values.items() if value is not None},
            }
        )
    if disagreeing:
        dropped += [(each["file"], "labels_disagree") for each in kept if Path(each["file"]) in disagreeing]
        kept = [each for each in kept if Path(each["file"]) not in disagreeing]
    left_out = len(table.rows) - len(rows)
    if not kept:
        raise _nothing_left(name, rows, dropped, left_out, root)
    findings = _finding_names(kept, labels.named, source)
    frame = pl.DataFrame(kept, schema={**COLUMNS, **dict.fromkeys(findings, FINDING_TYPE)}, orient="row")
    if source.split.stratified:
        frame = _stratified(frame, findings, source)
    frame = frame.with_columns(held_out=pl.col("held_out").any().over("patient"))
    texts = {words.key: words.texts for words in bank.values() if words.texts}
    gone = drops(dropped)
    distinct = len({text for words in texts.values() for text in words})
    facts = facts_of(name, frame, findings, gone, left_out=left_out, texts=distinct)
    return ImageTable(
        frame,
        gone,
        findings,
        texts,
        {**facts, **_column_facts(table, rows, labels, source), "split": _split_facts(name, frame, source, table)},
    )


def _file(root: Path, name: str) -> Path:
    """The file of a row: as it is named, as a path of Windows, or with the suffix of an image added."""
    file = named_file(root, name)
    if name and not file.suffix and not file.exists():
        return next((each for suffix in _SUFFIXES if (each := file.with_name(file.name + suffix)).is_file()), file)
    return file


_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".PNG", ".JPG", ".JPEG", ".DCM", ".dicom")


def _nothing_left(name: str, rows: Sequence[Row], dropped: Sequence[tuple[str, str]], left_out: int, root: Path) -> ConfigError:
    """The error of a table of which no image can be used: by reason, and where names start from."""
    counts = Counter(code for _, code in dropped)
    why = "; ".join(f"{count} rows: {DROPS[code]}" for code, count in counts.items())
    filters = f"{left_out} rows are left out by `where`" if left_out else ""
    hint = "whole names with their suffix, which start from the table's folder or from --set sources.0.root=FOLDER"
    names = [row.file for row in rows if row.file]
    if names and re.match(r"[A-Za-z]:[\\/]", names[0]):
        hint = f"the names are absolute paths of Windows: {hint}"
    elif counts.get("file_missing") and names and (folder := _folder_of(root, names[0])):
        hint = f"a file of that name is in {folder}: --set sources.0.root={folder}"
    return ConfigError(
        f"no image is left of source {name}", why="; ".join(filter(None, [why, filters])) or "the table has no rows", hint=hint
    )


_SEARCHED = 2000
"""Most folders and files that are looked through for a file that a table misses."""


def _folder_of(root: Path, name: str) -> str | None:
    """The folder below `root`, as a relative path, that holds a file of this name; None where a short search finds none."""
    looked = 0
    for folder, _, files in os.walk(root):
        looked += 1 + len(files)
        if name in files and folder != str(root):
            return os.path.relpath(folder)
        if looked > _SEARCHED:
            break
    return None


def _stratified(frame: pl.DataFrame, findings: Sequence[str], source: TableSource) -> pl.DataFrame:
    """The frame with a share of the labelled patients held out, stratified by finding; where the table has splits, these decide."""
    if frame["split"].ne("").any() or source.split.train >= 1:
        return frame
    out = stratified_draw(labels_by_patient(frame, findings), 1 - source.split.train, f"{source.split.seed}:test")
    return frame.with_columns(held_out=pl.Series([key in out for key in patient_keys(frame)], dtype=pl.Boolean))


def _column_facts(table: TableRows, rows: Sequence[Row], labels: TableFindings, source: TableSource) -> dict[str, Any]:
    """What was recognised and what was not used, for the log, the dry run and the card."""
    said = [table.columns.taken.replace("columns taken: ", "")] if table.columns.taken else []
    blank = sum(not row.patient for row in rows) if "patient" in table.columns.by_role else 0
    return {
        "columns_taken": [*said, *labels.taken],
        "unused_columns": list(labels.unused),
        "other_columns": [name for name in table.others if name not in (*labels.used, *labels.unused, *source.where)],
        "uncertain_cells": labels.uncertain,
        "labels_unread": list(labels.unread or ()),
        "rows_without_patient": blank,
    }


def _split_facts(name: str, frame: pl.DataFrame, source: TableSource, table: TableRows) -> dict[str, Any]:
    """The split by name, and of the whole and of each part n and SHA-256 of the images; and how many patients are in several parts.

    `by` is patient, study or image: what the table names. Patients in several parts are held out whole here; what chooses or judges by
    the parts refuses them.
    """
    named = frame["split"].ne("").any()
    column = table.columns.by_role.get("split", "split")
    by = next((role for role in ("patient", "study") if role in table.columns.by_role), "image")
    how = "stratified by finding" if source.split.stratified else f"by a hash of the {by}"
    drawn = f"{source.split.train:g} of the {by}s trained on, {how}, seed {source.split.seed}"
    part = pl.when(pl.col("split") != "").then("split").otherwise(pl.when("held_out").then(pl.lit("held_out")).otherwise(pl.lit("train")))
    images = frame.select("image", "patient", part=part)
    shared = images.group_by("patient").agg(pl.col("part").n_unique()).filter(pl.col("part") > 1)
    return {
        "name": f"{name}, " + (f"column {column}" if named else drawn if source.split.train < 1 else "undivided"),
        "by": by,
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
        from engine.data.reports import clean, says_something

        text = clean(row.report)
        text = text if says_something(text) else ""
        key = "report:" + hashlib.sha256(text.encode()).hexdigest()[:16]
        return bank.setdefault(key, Wordings(key, key, passages(text, source.passage or len(text)) if text else ()))
    known = (found.present, found.absent)
    if known not in bank:
        bank[known] = wordings(*known, source.variants, sentences, context=source.context)
    return bank[known]


def passages(text: str, longest: int) -> tuple[str, ...]:
    """A text of at most `longest` characters as it is; of a longer one a passage from the beginning of each sentence, cut between words.

    A last passage of less than a quarter of `longest` says too little to be used alone, and is left out.
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


def _finding_names(kept: Sequence[Mapping[str, Any]], named: Sequence[str], source: TableSource) -> tuple[str, ...]:
    """Findings of the table's columns and of the recipe first, then others in the order in which the rows name them."""
    first = [*named, *source.exhaustive, *(name for name in source.rename.values() if name)]
    return tuple(dict.fromkeys([*first, *(name for row in kept for name in row if name not in COLUMNS)]))
