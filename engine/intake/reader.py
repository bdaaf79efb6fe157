"""Read one file into a ReadResult, in this process; workers.py calls it in processes that may die.

The steps of `read_file` are in the order in which reasons.py ranks their reasons. Any fault of the file becomes the result's reason;
nothing here raises for the content of a file, and MemoryError in a process with limited memory becomes `resource_limit`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isal import isal_zlib

from engine.dicom import checks, reasons, selection
from engine.dicom.elements import DEFLATED, EXPLICIT, IMPLICIT, PIXEL_DATA, DataSetLayout, FileMeta, read_meta, scan_elements
from engine.dicom.grey import least_decoded_side, to_grey_image
from engine.dicom.header import Header, read_header
from engine.dicom.pixels import FAMILIES, FallbackDecoder, Stored, expected_bytes, read_pixels, refuse_length
from engine.dicom.reasons import Refusal
from engine.dicom.special_exposures import exposure_flags
from engine.dicom.view_check import view_flags
from engine.dicom.vocabulary import is_placeholder
from engine.intake.containers import is_named_as_image, kind_of, load_inside
from engine.intake.limits import LIMITS, Limits
from engine.intake.read_result import KNOWN, ReadResult


@dataclass
class _Facts:
    """Metadata of a file so far, which go into its result also when it is rejected."""

    path: Path
    known: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    def reading(self, outcome: reasons.Outcome, reason: str | None, **more: Any) -> ReadResult:
        return ReadResult(self.path, outcome, reason, tuple(dict.fromkeys(self.flags)), **{**self.known, **more})


def read_file(
    path: Path,
    *,
    size: int,
    limits: Limits = LIMITS,
    plain_images: bool = False,
    known: Container[bytes] = frozenset(),
    hash_only: bool = False,
    second: FallbackDecoder | None = None,
) -> ReadResult:
    """Read one file whole: an image of shorter side `size`, or the reason why there is none.

    Args:
        plain_images: also read plain PNG and JPEG files (the files that an image table names), which are skipped or rejected otherwise.
        known: SHA-256 digests (32 bytes) of contents that need no reading: a skip for the reason `KNOWN`.
        hash_only: stop at the hash, as if every content were known.
        second: a decoder for codestreams that the first one raises an error for. It may crash: only a process that may die names one.
    """
    facts = _Facts(path)
    try:
        data = load_bytes(path, limits.file_bytes)
        digest = hashlib.sha256(data)
        facts.known["content_hash"] = digest.hexdigest()
        if hash_only or digest.digest() in known:
            return facts.reading("skip", KNOWN)
        return _read(data, facts, size, limits, plain_images, second)
    except Refusal as refusal:
        return facts.reading(reasons.REASONS[refusal.code].outcome, refusal.code, detail=refusal.detail)
    except (MemoryError, RecursionError):
        return facts.reading("reject", "resource_limit")


def load_bytes(path: Path, most: int) -> bytes:
    """The whole file, its kind and size checked on the open descriptor; a file inside a file as `engine.intake.containers` reads it.

    Raises:
        Refusal: `not_regular`, `resource_limit`, `vanished`, `unreadable`, `io_error` (after one more try), `in_progress` when it grew.
    """
    for attempt in (1, 2):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            try:
                before = os.fstat(handle)
                if not stat.S_ISREG(before.st_mode):
                    raise Refusal("not_regular")
                if before.st_size > most:
                    raise Refusal("resource_limit")
                with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
                    data = file.read(before.st_size + 1)
                after = os.fstat(handle)
            finally:
                os.close(handle)
            if len(data) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
                raise Refusal("in_progress")
            return data
        except FileNotFoundError:
            raise Refusal("vanished") from None
        except NotADirectoryError:
            return load_inside(path, most)
        except IsADirectoryError:
            raise Refusal("not_regular") from None
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP):
                raise Refusal("unreadable") from None
            if error.errno == errno.ENXIO:
                raise Refusal("not_regular") from None
            if attempt == 2:
                raise Refusal("io_error") from None
    raise AssertionError("unreachable")


def _read(data: bytes, facts: _Facts, size: int, limits: Limits, plain_images: bool, second: FallbackDecoder | None) -> ReadResult:
    if not data:
        raise Refusal("empty_file")
    kind = kind_of(data)
    if kind == "image":
        if plain_images:
            from engine.intake.png_jpeg import read_image

            picture, rows, columns, pixel_hash, flags = read_image(data, size, limits.pixels)
            facts.flags += flags
            facts.flags += view_flags(picture)
            return facts.reading("score", None, rows=rows, columns=columns, pixel_hash=pixel_hash, image=picture)
        return facts.reading("skip" if is_named_as_image(facts.path) else "reject", "not_dicom")
    if kind in ("archive", "os_junk"):
        raise Refusal(kind)
    view = memoryview(data)
    meta = read_meta(view)
    if meta.sop_class == selection.DICOMDIR:
        raise Refusal("dicomdir")
    facts.known["transfer_syntax"] = reasons.public_uid(meta.transfer_syntax)
    body, walked = _walk(view, meta, limits)
    syntax = meta.transfer_syntax
    if meta.bare:
        syntax = IMPLICIT if walked.implicit else EXPLICIT
        facts.flags.append("guessed_transfer_syntax")
    facts.flags += [*walked.flags, *(["misplaced_element"] if meta.repeated else [])]
    header = _identified(read_header(body, walked), meta)
    _note(header, facts)
    _refuse_by_header(header, walked, syntax, limits)
    facts.flags += _flags_of(header)

    def read(least: int) -> Stored:
        return read_pixels(body, walked, header, syntax, least=least, max_pixels=limits.pixels, second=second)

    stored = read(least_decoded_side(size))
    picture, raised = to_grey_image(stored, header, size, lambda: read(max(stored.rows, stored.columns)))
    facts.flags += raised
    facts.flags += view_flags(picture)
    return facts.reading("score", None, pixel_hash=stored.pixel_hash, image=picture)


def _walk(view: memoryview, meta: FileMeta, limits: Limits) -> tuple[memoryview, DataSetLayout]:
    if meta.transfer_syntax != DEFLATED:
        return view, scan_elements(view, meta.body, meta.transfer_syntax, max_depth=limits.depth)
    inflated = memoryview(inflate(view[meta.body :], limits.inflated_bytes))
    return inflated, scan_elements(inflated, 0, EXPLICIT, max_depth=limits.depth)


def inflate(deflated: memoryview, most: int) -> bytes:
    """A deflated data set (PS3.5 A.5), at most `most` bytes of it.

    Raises:
        Refusal: `resource_limit`, `truncated`, `corrupt_header`.
    """
    machine = isal_zlib.decompressobj(wbits=-15)
    try:
        result: bytes = machine.decompress(deflated, most + 1)
    except MemoryError:
        raise
    except Exception:  # IsalError, which its stubs do not show as an exception
        raise Refusal("corrupt_header") from None
    if len(result) > most:
        raise Refusal("resource_limit")
    if not machine.eof:
        raise Refusal("truncated")
    return result


def _note(header: Header, facts: _Facts) -> None:
    facts.known |= {
        "modality": reasons.public_code(header.modality, reasons.MODALITIES),
        "view": reasons.public_code(header.view, selection.FRONTAL_VIEWS | selection.LATERAL_VIEWS),
        "sop_class": reasons.public_uid(header.sop_class),
        "rows": header.rows,
        "columns": header.columns,
        "sop_instance_uid": checks.identifier(header.sop_instance_uid) or None,
        "series_instance_uid": checks.identifier(header.series_instance_uid) or None,
        "study_instance_uid": checks.identifier(header.study_instance_uid) or None,
        "patient": None if is_placeholder(header.patient) else header.patient or None,
        "age": header.age if re.fullmatch(r"[0-9]{3}[YMWD]", header.age) else None,
    }


def _identified(header: Header, meta: FileMeta) -> Header:
    """The header with the SOP class of the file meta group where it names none, and no modality where a placeholder is its value."""
    modality = "" if is_placeholder(header.modality) else header.modality
    return replace(header, sop_class=header.sop_class or meta.sop_class, modality=modality, class_in_data_set=bool(header.sop_class))


def _refuse_by_header(header: Header, walked: DataSetLayout, syntax: str, limits: Limits) -> None:
    """Reject by the header, in the order given at the top of reasons.py."""
    element = walked.elements.get(PIXEL_DATA)
    if (header.rows or 0) * (header.columns or 0) * (header.samples or 1) > limits.pixels:
        native = element is not None and not walked.encapsulated and None not in (header.samples, header.bits_allocated)
        short = native and element is not None and element.stop - element.value < expected_bytes(header)
        raise Refusal("pixel_length_mismatch" if short else "resource_limit")
    capture = header.sop_class in selection.CAPTURE_CLASSES
    if not header.modality and capture and not selection.shows_chest(header):
        raise Refusal("unsupported_sop_class")
    selection.refuse_class(header.sop_class, header.modality, has_image=walked.has_image)
    if walked.damage:
        raise Refusal(walked.damage)
    for keyword, is_missing in {
        "TransferSyntaxUID": not syntax,
        "SOPClassUID": not header.sop_class,
        "Modality": capture and not header.modality,
    }.items():
        if is_missing:
            raise Refusal("missing_attribute", keyword)
    if element is None or element.value == element.stop or (walked.encapsulated and not walked.fragments):
        raise Refusal("no_pixel_data", "PixelData")
    if header.rows and header.columns and 0 < min(header.rows, header.columns) < selection.MIN_SIDE:
        raise Refusal("too_small")
    checks.refuse_identity(header)
    selection.refuse_selection(header)
    if syntax not in FAMILIES:
        raise Refusal("unsupported_transfer_syntax", "TransferSyntaxUID")
    checks.refuse_description(header)
    if FAMILIES[syntax] == "native" and not walked.encapsulated:
        checks.refuse_arrangement(header)
        refuse_length(element.stop - element.value, header)
    if (header.frames or 1) > 1:
        raise Refusal("multi_frame", "NumberOfFrames")


def _flags_of(header: Header) -> list[str]:
    flags = list(header.flags)
    if header.sop_class in selection.CAPTURE_CLASSES:
        flags.append("secondary_capture")
    if _is_sloppy(header):
        flags.append("bad_attribute")
    if any(reasons.uid_fault(uid) for uid in (header.sop_instance_uid, header.study_instance_uid, header.series_instance_uid) if uid):
        flags.append("invalid_uid")
    if header.synthetic == "YES":
        flags.append("synthetic")
    if selection.is_animal(header):
        flags.append("out_of_distribution")
    if header.burned_in in ("YES", "Y", "TRUE"):
        flags.append("burned_in")
    elif header.burned_in != "NO" and (header.burned_in or header.sop_class == selection.DX_PRESENTATION):
        flags.append("burned_in_unknown")
    if not selection.names_view(header):
        flags.append("view_unknown")
    if selection.is_turned(header.patient_orientation):
        flags.append("orientation")
    return [*flags, *exposure_flags(header)]


_JUDGED = frozenset({*checks.NEEDED, "WindowCenter", "WindowWidth"})
"""Attributes whose faults have a reason or another flag."""


def _is_sloppy(header: Header) -> bool:
    """Whether an attribute that should be there is absent, out of its range or of the wrong kind, and was not needed."""
    if header.sop_class == selection.DX_PRESENTATION and header.presentation_intent != "FOR PRESENTATION":
        return True
    if not header.modality or "\\" in header.modality or header.high_bit is None or not header.class_in_data_set:
        return True
    if not (header.sop_instance_uid and header.series_instance_uid and header.study_instance_uid):
        return True
    if is_placeholder(header.body_part) or is_placeholder(header.view):
        return True
    return (header.frames is not None and header.frames < 1) or header.bits_allocated == 32 or bool(header.invalid - _JUDGED)
