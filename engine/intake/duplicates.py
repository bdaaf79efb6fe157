"""Duplicates and conflicts of identity among the files of a run."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace

import numpy as np

from engine.intake.read_result import COARSE, ReadResult, coarse_image
from engine.tables.temp_store import TempStore

_SAME_GREY = 4.0
"""Of 255: coarse images of one radiograph in two encodings (lossy ones included) differ by less, other radiographs by far more."""


@dataclass(frozen=True)
class _Copy:
    """One scored copy of a SOP instance; coarse: its coarse image."""

    transfer_syntax: str | None
    pixel_hash: str | None
    coarse: bytes

    def packed(self) -> bytes:
        return self.coarse + f"{self.transfer_syntax or ''} {self.pixel_hash or ''}".encode()

    @classmethod
    def unpacked(cls, packed: bytes) -> _Copy:
        size = math.prod(COARSE)
        transfer_syntax, _, pixel_hash = packed[size:].decode().partition(" ")
        return cls(transfer_syntax or None, pixel_hash or None, packed[:size])

    def repeats(self, known: _Copy) -> bool:
        """Whether it is the same image in the same encoding."""
        return self.transfer_syntax == known.transfer_syntax and self._equals(known) and self._looks_like(known, inverted=False)

    def recodes(self, known: _Copy) -> bool:
        """Whether it is the same image in another encoding, or with its grey scale inverted."""
        return self._equals(known) and (self._looks_like(known, inverted=False) or self._looks_like(known, inverted=True))

    def _equals(self, known: _Copy) -> bool:
        return None in (self.pixel_hash, known.pixel_hash) or self.pixel_hash == known.pixel_hash

    def _looks_like(self, known: _Copy, *, inverted: bool) -> bool:
        mine, theirs = (np.frombuffer(coarse, np.uint8).astype(np.float32) for coarse in (self.coarse, known.coarse))
        return bool(np.abs(mine - (255 - theirs if inverted else theirs)).max() <= _SAME_GREY)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).digest()


@dataclass
class DuplicateIndex:
    """Finds duplicates and UID conflicts among read results, one by one in their order; its index is on the disk (temp_store.py).

    The first of several equal files is scored, later ones are duplicates (`same_pixels`): the same bytes, or the same SOP instance UID
    in the same transfer syntax with the same stored values. The same instance in another encoding, or with its grey scale inverted, is
    scored with the flag `recoded`. The same UID with another image is a reject (`uid_conflict`). Where stored values cannot be
    compared exactly (lossy, or decoded at a fraction of their size) the coarse image decides.

    A series UID in two studies, or a study UID with two patients, flags every file of the run that has it: `resolve` flags the later
    files, and `final_flags` all of them once every file is known.
    """

    scratch: TempStore = field(default_factory=TempStore)
    conflicting: set[bytes] = field(default_factory=set)

    def resolve(self, reading: ReadResult) -> ReadResult:
        """The read result with its final outcome; a later conflict may add a flag, see final_flags."""
        if reading.outcome != "score" or reading.image is None:
            return reading
        if self.scratch.first("content", bytes.fromhex(reading.content_hash)[:12]) is not None:
            return reading.without_image("duplicate", "same_pixels")
        if reading.sop_instance_uid:
            instance = _digest(reading.sop_instance_uid)
            copies = [_Copy.unpacked(each) for each in self.scratch.values("copy", instance)]
            copy = _Copy(reading.transfer_syntax, reading.pixel_hash, coarse_image(reading.image))
            if any(copy.repeats(known) for known in copies):
                return reading.without_image("duplicate", "same_pixels")
            if copies and not any(copy.recodes(known) for known in copies):
                return reading.without_image("reject", "uid_conflict")
            if copies:
                reading = replace(reading, flags=(*reading.flags, "recoded"))
            self.scratch.add("copy", instance, copy.packed())
        self._connect(reading)
        return replace(reading, flags=self.final_flags(reading))

    def _connect(self, reading: ReadResult) -> None:
        series, study, patient = (_digest(uid or "") for uid in (reading.series_instance_uid, reading.study_instance_uid, reading.patient))
        if reading.series_instance_uid and self.scratch.first("study of series", series, study) not in (None, study):
            self.conflicting.add(series)
        known = self.scratch.first("patient of study", study, patient) if reading.study_instance_uid and reading.patient else None
        if known not in (None, patient):
            self.conflicting.add(study)

    def final_flags(self, reading: ReadResult) -> tuple[str, ...]:
        """The flags of a resolved result, with those of conflicts that were found after it."""
        uids = (reading.series_instance_uid, reading.study_instance_uid)
        if "uid_conflict" not in reading.flags and any(uid and _digest(uid) in self.conflicting for uid in uids):
            return (*reading.flags, "uid_conflict")
        return reading.flags
