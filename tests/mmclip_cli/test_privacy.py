"""Nothing that names a patient leaves `private/`: not into a table, a report, a log line or a temporary file, whatever the tags hold."""

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl
import pytest
from pydicom.config import disable_value_validation
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

HOSTILE = '=HYPERLINK("http://CANARY")\r\n<script>CANARY</script>\x1b[31m\x07{{7*7}}\n{"level": "error", "message": "CANARY"}'
TEXTS = {
    "AE": "CANARYAE", "CS": "CANARYCS", "LO": "=CANARYLO", "LT": HOSTILE, "PN": "CANARY^JANE^^<b>Dr</b>", "SH": "@CANARYSH", "ST": HOSTILE,
    "UC": "+CANARYUC", "UR": "http://canary.example/CANARY", "UT": HOSTILE, "DA": "19450508", "DT": "19450508235917.98", "TM": "235917.98",
    "IS": "194505081", "DS": "19450508.5",
}  # fmt: skip
FORBIDDEN = ("CANARY", "canary.example", "19450508", "235917", "1.2.826.0.1.3680043.8.498.")
"""The texts above, and the root of the UIDs that pydicom makes."""
READ = {"SpecificCharacterSet", "BurnedInAnnotation", "PresentationLUTShape", "PatientOrientation", "BodyPartExamined", "ViewPosition",
        "ImageType", "Modality", "PresentationIntentType", "SyntheticData"}  # fmt: skip
"""Attributes that decide what becomes of a file; the rest, 4,000 of them, may hold anything."""


@pytest.fixture(scope="module")
def study(make_studies):
    """Make a radiograph with a canary in every text, date and number of the dictionary, in nested and in private elements."""
    stored = make_studies.draw_chest("normal", np.random.default_rng(3))[::2, ::2].copy()
    with disable_value_validation():
        everything, nested = stuffed(), stuffed(0x0010, 0x0011)

    @disable_value_validation()
    def study(name, **changes):
        data = make_studies.chest_dataset(stored, name, ExplicitVRLittleEndian)
        data.update(everything)
        request = Dataset()
        request.RequestedProcedureDescription, request.PatientName = HOSTILE, TEXTS["PN"]
        request.RequestedProcedureCodeSequence = [nested]
        data.RequestAttributesSequence = [request]
        block = data.private_block(0x0011, "CANARYCREATOR", create=True)
        block.add_new(0x01, "LO", "CANARYPRIVATE")
        block.add_new(0x02, "UN", b"CANARY\0\xff" * 3)
        block.add_new(0x03, "SQ", [nested])
        data.preamble = b"CANARY".ljust(128, b"\0")
        for keyword, value in changes.items():
            setattr(data, keyword, value)
        return data

    return study


def stuffed(first=0x0008, beyond=0x7000):
    """A data set with TEXTS in every element of the dictionary that they fit and that reading a picture does not depend on."""
    data = Dataset()
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in TEXTS and keyword and keyword not in READ and first <= tag >> 16 < beyond and tag >> 16 != 0x0028:
            data.add_new(tag, vr, TEXTS[vr])
    return data


def content(data):
    """The data set as a file, checked by nobody."""
    stream = BytesIO()
    with disable_value_validation():
        dcmwrite(stream, data, enforce_file_format=True)
    return stream.getvalue()


def compressed(data):
    """The same in JPEG 2000, with a comment in the codestream cut off in its midst."""
    picture = np.frombuffer(data.PixelData, "<u2").reshape(data.Rows, data.Columns)
    frame = bytes(imagecodecs.jpeg2k_encode(picture, level=0, reversible=True, codecformat="j2k", bitspersample=12))
    comment = b"\xff\x64" + (4 + 6).to_bytes(2, "big") + b"\0\1CANARY"
    tile = frame.index(b"\xff\x90")
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = encapsulate([(frame[:tile] + comment + frame[tile:])[: len(frame) // 2]])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    return data


@pytest.fixture(scope="module")
def inputs(study, tmp_path_factory):
    """Hostile files under hostile names, an image table, and labels that fit badly."""
    folder = tmp_path_factory.mktemp("CANARYFOLDER")
    whole = content(study("scored"))
    files = {
        b"CANARY^JANE_19450508.dcm": whole,
        b"again CANARY.dcm": whole,
        b"CANARY\xff\xe9.dcm": content(study("bytes", BodyPartExamined="CANARY CHEST", ViewPosition="CANARYVIEW")),
        b"=cmd|CANARY.dcm": content(study("modality", Modality="CANARYMOD")),
        b"CANARY\n{\"level\": \"info\"}.dcm": whole[: len(whole) // 2],
        b"\x1b[31mCANARY.dcm": content(study("uid", SOPInstanceUID="1.2.CANARY.3")),
        b"<script>CANARY.dcm": content(study("path", StudyInstanceUID="../../CANARY")),
        b"CANARY_number.dcm": content(study("number")).replace(b"194505081", b"CANARYNUM"),
        b"CANARY_slope.dcm": content(study("slope")).replace(b"DS\x02\x001 ", b"DS\x02\x00CA"),
        b"CANARY_charset.dcm": content(study("charset", SpecificCharacterSet="ISO_IR 6")).replace(b"ISO_IR 6", b"CANARYCS"),
        b"CANARY_j2k.dcm": content(compressed(study("compressed"))),
        b"CANARY.txt": b"CANARY" * 100,
        b"CANARY_empty.dcm": b"",
    }  # fmt: skip
    (folder / "in").mkdir()
    for name, data in files.items():
        with open(os.path.join(os.fsencode(folder / "in"), name), "wb") as file:  # noqa: PTH118, PTH123 - names that are no text
            file.write(data)
    (folder / "CANARY_table.dcm").write_bytes(content(study("table")))
    (folder / "CANARY.csv").write_text(
        "file,study,patient,view,report\nCANARY_table.dcm,CANARYSTUDY,CANARYPATIENT,CANARYVIEW,CANARY report\nCANARY gone.dcm,=CANARY,,,\n"
    )
    (folder / "labels.csv").write_text(
        f"StudyInstanceUID,Edema,note\n{study('scored').StudyInstanceUID},1,x\n"
        f"{study('path').StudyInstanceUID},0,x\nCANARYSTUDY,0,x\nCANARYSTUDY,1,x\nCANARYNOBODY,1,x\n"
    )
    return folder


def leaks(text, words=FORBIDDEN):
    return [(word, text[max(0, text.index(word) - 60) :][:140]) for word in words if word in text]


def public_texts(out):
    """Every file of the output folder that is not private, as text; the cells of Parquet too, which are compressed on disk."""
    for path in sorted(out.rglob("*")):
        if path.is_file() and "private" not in path.relative_to(out).parts:
            yield path.name, path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                yield path.name, repr(pl.read_parquet(path).to_dicts())


def test_no_canary_leaves_private(mmclip, toy, inputs, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = ["score", inputs / "in", inputs / "CANARY.csv", "--prompts", "chest14", "--model", toy, "--labels", inputs / "labels.csv"]
    environment = {"TMPDIR": str(temporary), "MMCLIP_SITE_KEY": "a key for tests"}
    first = mmclip(*command, **environment)
    again = mmclip(*command, "--json", **environment)
    for done in (first, again):
        assert done.returncode == 1, done.stderr  # some of the files are damaged
        assert leaks(done.stdout) == leaks(done.stderr) == []
        assert all(json.loads(line)["level"] for line in done.stderr.splitlines())
        assert not {character for character in done.stdout + done.stderr if ord(character) < 32} - {"\n"}
    out = mmclip.folder / "mmclip-out"
    for name, text in public_texts(out):
        assert leaks(text) == [], name
        assert "{{7*7}}" not in text
    assert list(temporary.rglob("*")) == []
    assert {path.name for path in mmclip.folder.iterdir()} == {"mmclip-out"}

    images, private = pl.read_parquet(out / "images.parquet"), pl.read_parquet(out / "private" / "files.parquet")
    assert images.height == len(list((inputs / "in").iterdir())) + 2
    assert {"score", "duplicate", "reject"} == set(images["outcome"])
    assert images.filter(pl.col("outcome") == "score").height >= 4
    assert {"truncated", "wrong_modality", "invalid_uid", "invalid_rescale", "not_dicom", "empty_file", "file_missing"} <= set(
        images["reason"]
    )
    assert leaks(repr(private.to_dicts()), ("CANARYPATIENT", "CANARYLO", "CANARY_empty")), "the canaries were read"


def test_retained_uids_are_uids(mmclip, toy, inputs):
    done = mmclip("score", inputs / "in", "--prompts", "chest14", "--model", toy, "--retain-uids", "--quiet")
    text = "".join(text for _, text in public_texts(mmclip.folder / "mmclip-out"))
    assert FORBIDDEN[-1] in text
    assert leaks(done.stdout + done.stderr + text, FORBIDDEN[:-1]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["CANARY nowhere", "--prompts", "chest14"],
        [".", "CANARY\x1b[31m", "--prompts", "chest14"],
        ["CANARY.dcm/x", "--prompts", "chest14"],
        ["CANARY.csv", "--prompts", "chest14"],
        [".", "--prompts", "chest14", "--labels", "CANARY.csv"],
        [".", "--prompts", "chest14", "--labels", "CANARY nowhere.csv"],
    ],
)
def test_errors_name_no_input(mmclip, arguments):
    (mmclip.folder / "CANARY.dcm").write_bytes(b"CANARY")
    (mmclip.folder / "CANARY.csv").write_text("CANARY^JANE,19450508\nCANARY,x\n")
    done = mmclip("score", *arguments)
    assert done.returncode in (66, 78)
    assert leaks(done.stdout + done.stderr) == []
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process are read by prlimit")
def test_a_crash_leaves_no_core_dump(mmclip, toy):
    (mmclip.folder / "empty").mkdir()
    command = shlex.join([str(Path(sys.executable).with_name("mmclip")), "score", "empty", "--prompts", "chest14", "--model", str(toy)])
    shell = ["bash", "-c", f"ulimit -S -c $(ulimit -H -c); exec {command}"]
    soft = None
    with subprocess.Popen(shell, cwd=mmclip.folder, env=mmclip.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and soft != 0:
            soft, _ = resource.prlimit(run.pid, resource.RLIMIT_CORE)
            time.sleep(0.01)
        run.kill()
    assert soft == 0
