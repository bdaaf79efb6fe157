"""Columns of users' tables by the names that the field gives them: file, study, patient, view, sex, age, split, report."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.errors import ConfigError

Role = Literal["file", "study", "patient", "view", "report", "split", "sex", "age"]
ROLES: tuple[Role, ...] = ("file", "study", "patient", "view", "report", "split", "sex", "age")

USUAL_NAMES: dict[Role, tuple[str, ...]] = {
    "file": (
        "file", "filename", "filepath", "path", "imagepath", "imagefile", "imagefilename", "imagename", "imageindex", "imageid", "image",
        "imgpath", "imgfile", "imgname", "imgid", "img", "dicomid", "dicompath", "dicomfile", "dicom", "pngpath", "jpgpath", "fullpath",
        "relativepath", "relpath",
    ),
    "study": ("study", "studyinstanceuid", "studyuid", "studyid", "examid", "exam"),
    "patient": (
        "patient", "patientid", "patientids", "patientuid", "patientnumber", "patientno", "patientnr", "patientkey", "patientcode",
        "patienthash", "patientidentifier", "subject", "subjectid", "subjectids", "subjectuid", "subjectnumber", "participantid",
        "participant", "personid", "person", "ptid", "mrn", "pid",
    ),
    "view": ("view", "viewposition", "viewpos", "projection", "appa", "viewcodesequencecodemeaning"),
    "report": ("report", "reporttext", "radiologyreport"),
    "split": ("split", "datasplit", "datasetsplit", "partition", "subset"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "age": ("age", "patientage", "ageyears", "patientageyears", "ageatstudy"),
}  # fmt: skip
"""mmclip's column -> the names that public data sets and exports give it, in order of preference, as `plain_column` writes them."""

_PATIENT_FACTS = frozenset(
    (
        *("age", "sex", "gender", "birth", "birthdate", "birthday", "dob", "weight", "height", "size", "orientation", "position"),
        *("race", "ethnicity", "ethnicgroup", "comments", "insuranceprimary", "state", "address", "country", "class", "category"),
        *("type", "status", "history", "report"),
    )
)
"""Endings of names of columns about a patient that do not identify one."""
_NEAR_PATIENT = re.compile(r"(patient|subject|participant|person|pat|subj|pt|mrn)(.*)")


@dataclass(frozen=True)
class Columns:
    """Columns of a table by role.

    Attributes:
        by_role: mmclip's name -> the table's.
        taken: columns that were recognised under another name than mmclip's own, as a sentence for the user; "" = none.
    """

    by_role: Mapping[Role, str]
    taken: str


def plain_column(name: str) -> str:
    """A column's name as it is compared: lower-case letters and digits only."""
    return re.sub(r"[\W_]+", "", name.casefold())


def columns_by_role(
    header: Sequence[str], given: Mapping[Role, str] | None = None, *, error: Callable[..., ConfigError] = ConfigError, key: str = "columns"
) -> Columns:
    """The columns of a table that have a role, by the names that the user gave, then mmclip's, then the field's usual names.

    Args:
        header: the table's column names.
        given: role -> column, as the user named them; they must be in the header (checked by the caller).
        error: makes the errors.
        key: how the error writes the setting that names a column, for instance `sources.0.columns`.

    Raises:
        error: two columns could be the patient, or a column looks like the patient's (a typing error, or another word) and is not taken:
            a split that ignores the patient leaks.
    """
    by_role: dict[Role, str] = dict(given or {})
    used = set(by_role.values())
    said = []
    for role in ROLES:
        if role in by_role:
            continue
        found = _found(header, role, used)
        if role == "patient" and len(found) > 1 and found[0].casefold().strip() != "patient":
            raise error(
                f"two columns may name the patient: {found[0]!r} and {found[1]!r}",
                why="the split goes by patient",
                hint=f"{key}.patient={found[0]} (or the other one)",
            )
        if found:
            by_role[role] = found[0]
            used.add(found[0])
            if plain_column(found[0]) not in (role, "studyinstanceuid"):
                said.append(f"{found[0]!r} as {role}")
    if "patient" not in by_role and (near := [name for name in header if name not in used and _near_patient(name)]):
        raise error(
            f"column {near[0]!r} looks like the patient's and is not taken for it",
            why="the split goes by patient, and without the right column images of one patient fall on both sides",
            hint=f"{key}.patient={near[0]}, or another name for the column if it is not the patient's",
        )
    return Columns(by_role, f"columns taken: {', '.join(said)}" if said else "")


def near_file_columns(header: Sequence[str]) -> list[str]:
    """The column that was perhaps meant to name the files: at most one."""
    plain = {plain_column(name): name for name in header}
    near = difflib.get_close_matches("file", plain, n=1) or [
        match for usual in USUAL_NAMES["file"] for match in difflib.get_close_matches(usual, plain, n=1, cutoff=0.85)
    ]
    return [plain[name] for name in near[:1]]


def _found(header: Sequence[str], role: Role, used: set[str]) -> list[str]:
    exact = [name for name in header if name == role and name not in used]
    by_plain: dict[str, list[str]] = {}
    for name in header:
        if name not in used and name not in exact:
            by_plain.setdefault(plain_column(name), []).append(name)
    return exact + [name for usual in USUAL_NAMES[role] for name in by_plain.get(usual, [])]


def _near_patient(name: str) -> bool:
    plain = plain_column(name)
    if plain in {each for names in USUAL_NAMES.values() for each in names}:
        return False
    found = _NEAR_PATIENT.fullmatch(plain)
    if found and found[1] in ("pat", "subj", "pt", "mrn", "person"):
        # short beginnings of many words: only with an ending that identifies
        if re.fullmatch(r"id|ids|no|nr|num|number|key|code|uid|name|hash|s|\d+", found[2]):
            return True
    elif found:
        return found[2] not in _PATIENT_FACTS
    return bool(difflib.get_close_matches(plain, ("patient", "patientid", "subjectid", "subject"), n=1, cutoff=0.82))
