import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from engine.intake.duplicates import DuplicateIndex
from engine.intake.read_result import ReadResult, coarse_image

PICTURE = np.random.default_rng(0).integers(0, 255, (70, 64), dtype=np.uint8).repeat(2, 0).repeat(2, 1)


def reconcile(readings: list[ReadResult]) -> list[ReadResult]:
    """All readings of a run as the duplicates leaves them once the last one was seen."""
    duplicates = DuplicateIndex()
    settled = [duplicates.resolve(reading) for reading in readings]
    return [replace(each, flags=duplicates.final_flags(each)) if each.outcome == "score" else each for each in settled]


def reading(number: int = 0, **changes: object) -> ReadResult:
    """A scored reading with its own content and UIDs."""
    one = ReadResult(
        Path(f"{number}.dcm"),
        "score",
        content_hash=hashlib.sha256(str(number).encode()).hexdigest(),
        pixel_hash=f"pixels {number}",
        transfer_syntax="1.2.840.10008.1.2.1",
        sop_instance_uid=f"1.2.{number}",
        series_instance_uid=f"1.3.{number}",
        study_instance_uid=f"1.4.{number}",
        patient=f"patient {number}",
        image=PICTURE,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def outcomes(*readings: ReadResult) -> list[tuple[str, str | None, tuple[str, ...]]]:
    return [(one.outcome, one.reason, one.flags) for one in reconcile(readings)]


SCORED = ("score", None, ())
DUPLICATE = ("duplicate", "same_pixels", ())


def test_other_pictures_are_scored() -> None:
    assert outcomes(reading(1), reading(2)) == [SCORED, SCORED]


def test_the_same_bytes_are_a_duplicate_and_drop_their_picture() -> None:
    settled = reconcile([reading(1), reading(1)])
    assert [(one.outcome, one.reason) for one in settled] == [("score", None), ("duplicate", "same_pixels")]
    assert settled[1].image is None


def test_the_same_instance_with_another_comment_is_a_duplicate() -> None:
    assert outcomes(reading(1), reading(1, content_hash="ab" * 32)) == [SCORED, DUPLICATE]


def test_the_same_instance_in_another_encoding_is_scored_and_flagged() -> None:
    lossy = reading(1, content_hash="ab" * 32, transfer_syntax="1.2.840.10008.1.2.4.91", pixel_hash=None, image=PICTURE ^ 1)
    inverted = reading(1, content_hash="cd" * 32, transfer_syntax="1.2.840.10008.1.2.4.91", pixel_hash=None, image=255 - PICTURE)
    assert outcomes(reading(1), lossy, inverted) == [SCORED, ("score", None, ("recoded",)), ("score", None, ("recoded",))]


def test_the_same_instance_with_another_picture_is_a_conflict() -> None:
    other = reading(1, content_hash="ab" * 32, pixel_hash="other")
    mirrored = reading(1, content_hash="ab" * 32, pixel_hash=None, image=np.ascontiguousarray(PICTURE[:, ::-1]))
    assert outcomes(reading(1), other) == [SCORED, ("reject", "uid_conflict", ())]
    assert outcomes(reading(1), mirrored) == [SCORED, ("reject", "uid_conflict", ())]


def test_shared_series_and_studies_flag_every_file_that_has_them() -> None:
    flagged = ("score", None, ("uid_conflict",))
    series = reading(2, series_instance_uid="1.3.1")
    assert outcomes(reading(1), series, reading(3)) == [flagged, flagged, SCORED]
    patient = reading(2, study_instance_uid="1.4.1")
    assert outcomes(reading(1), patient, reading(3)) == [flagged, flagged, SCORED]
    nobody = reading(2, study_instance_uid="1.4.1", patient=None, series_instance_uid="1.3.1")
    assert outcomes(nobody, reading(1)) == [SCORED, SCORED], "a patient without a name is not another one"
    again = reading(2, study_instance_uid="1.4.1", patient="patient 1", series_instance_uid="1.3.1")
    assert outcomes(reading(1), again) == [SCORED, SCORED]


def test_files_without_identity_never_meet() -> None:
    blank = {"sop_instance_uid": None, "series_instance_uid": None, "study_instance_uid": None, "patient": None}
    assert outcomes(*(reading(number, **blank) for number in range(3))) == [SCORED] * 3


def test_what_is_not_scored_takes_no_part() -> None:
    rejected = reading(1).without_image("reject", "lateral_view")
    assert outcomes(rejected, reading(1), rejected) == [("reject", "lateral_view", ()), SCORED, ("reject", "lateral_view", ())]


def test_a_registry_settles_one_by_one_as_it_does_all_at_once() -> None:
    several = [reading(1), reading(2, series_instance_uid="1.3.1"), reading(1), reading(4)]
    duplicates = DuplicateIndex()
    settled = [duplicates.resolve(one) for one in several]
    assert [(one.outcome, one.reason, duplicates.final_flags(one) if one.outcome == "score" else ()) for one in settled] == outcomes(
        *several
    )


def test_a_coarse_picture_is_its_own_coarse_picture(make: SimpleNamespace) -> None:
    coarse = coarse_image(make.chest().astype(np.uint8))
    again = coarse_image(np.frombuffer(coarse, np.uint8).reshape(16, 16))
    assert len(coarse) == 256 and coarse == again
