"""Scoring from files to tables, on real and drawn DICOM, with a toy model."""

import csv
import dataclasses
import hashlib
import hmac
import json
import os
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian, JPEGBaseline8Bit

from engine.errors import ConfigError, InputMissing, LabelsError, LockHeld, NotFinite, OutputError, RecipeError, UsageError
from engine.intake.limits import limits_from
from engine.model.bundle import load_bundle, save_bundle
from engine.model.head import Head
from engine.score import FileDone, HeatmapSheet, ScoresPublished, ScoringFinished, ScoringPlan, ScoringStarted, score
from engine.scoring.output import OUTPUTS
from engine.tables.atomic import locked
from engine.tables.columns import IMAGE_COLUMNS, METRIC_COLUMNS, NOTICE
from engine.tables.run_log import Notice

KEY = "a key for tests"
PROMPTS = """
version: 1
findings:
  Lung Opacity: {positive: [lung opacity, airspace opacity], negative: [no lung opacity]}
  "Odd, \\"name\\"": {positive: [odd], negative: [even]}
  Edema: {positive: [edema], negative: [no edema]}
"""
FINDINGS = ("Lung Opacity", 'Odd, "name"', "Edema")


@pytest.fixture(autouse=True)
def site_key(monkeypatch):
    monkeypatch.setenv("MMCLIP_SITE_KEY", KEY)


@pytest.fixture(scope="module")
def studies(make_studies, tmp_path_factory):
    """Six drawn studies with labels, beside a folder that the tests may fill."""
    folder = tmp_path_factory.mktemp("studies")
    rows = make_studies.make_synthetic(folder / "in", seed=1, each=2)
    with (folder / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["StudyInstanceUID", "Lung Opacity", "Edema"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, "Edema": 0} for row in rows)
    return folder


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    return tmp_path / "prompts.yaml"


@pytest.fixture
def run(tmp_path, toy, prompts):
    """Score to the end; the events."""

    def run(*inputs, out=tmp_path / "out", **options):
        return list(score(inputs, **{"prompts": prompts, "model": toy, "out": out, "workers": 1, "device": "cpu"} | options))

    return run


def published(events):
    """The event ScoresPublished of a run that has just ended, its tables in memory."""
    found = next(event for event in events if isinstance(event, ScoresPublished))
    return dataclasses.replace(found, studies=found.studies.collect(), images=found.images.collect())


def named(text):
    return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


def copy(source, target, **changes):
    """A DICOM file with other attributes."""

    data = pydicom.dcmread(source)
    for keyword, value in changes.items():
        setattr(data, keyword, value)
    if "SOPInstanceUID" in changes:
        data.file_meta.MediaStorageSOPInstanceUID = changes["SOPInstanceUID"]
    data.save_as(target)


# --- what is written ---------------------------------------------------------------------------------------------------------------


def test_the_promised_files_and_columns(run, studies, tmp_path):
    run(studies / "in", labels=studies / "labels.csv")
    out = tmp_path / "out"
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} >= {*OUTPUTS, "run.json"} - {"report.html"}
    headers = {path.stem: next(csv.reader(path.read_text("utf-8").splitlines())) for path in out.glob("*.csv")}
    assert headers["scores"] == ["study", "n_images", *FINDINGS, "flags", NOTICE]
    assert headers["images"] == [*IMAGE_COLUMNS, *FINDINGS, NOTICE]
    assert headers["metrics"] == [*METRIC_COLUMNS, NOTICE]
    scores, images = pl.read_parquet(out / "scores.parquet"), pl.read_parquet(out / "images.parquet")
    assert scores.columns == headers["scores"][:-1]
    assert images.columns == headers["images"][:-1]
    assert (out / "private").stat().st_mode & 0o777 == 0o700
    assert scores.height == images.height == 6
    assert all(scores[name].is_between(0, 1).all() for name in FINDINGS)
    for path in out.rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert NOTICE.encode() in path.read_bytes(), path.name


def test_nothing_of_a_patient_stands_outside_private(run, studies, tmp_path):
    folder = tmp_path / "CANARYFOLDER"
    folder.mkdir()
    source = next((studies / "in").iterdir())
    canaries = {"PatientName": "CANARY^NAME", "PatientID": "CANARYID", "StudyDescription": "CANARYTEXT", "StudyDate": "19450508"}
    copy(source, folder / "CANARY.dcm", **canaries)
    events = run(folder)
    data = (tmp_path / "out" / "private" / "files.parquet").read_bytes()
    assert b"CANARY" in data
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and "private" not in path.relative_to(tmp_path / "out").parts:
            assert not [word for word in (b"CANARY", b"19450508", b"1.2.826") if word in path.read_bytes()], path.name
    assert "CANARY" not in str([event for event in events if not isinstance(event, ScoresPublished)])


def test_studies_and_images_are_named_by_hmac_or_by_uid(run, studies, tmp_path):
    private = published(run(studies / "in")).images
    files = pl.read_parquet(tmp_path / "out" / "private" / "files.parquet")
    assert [named(uid) for uid in files["sop_instance_uid"]] == private["image"].to_list()
    assert [named(uid) for uid in files["study_instance_uid"]] == private["study"].to_list()
    retained = published(run(studies / "in", retain_uids=True)).images
    assert retained["image"].to_list() == files["sop_instance_uid"].to_list()
    assert retained["study"].to_list() == files["study_instance_uid"].to_list()


def test_run_json_tells_what_was_done_and_adds_up(run, studies, tmp_path, toy, prompts):
    run(studies / "in", labels=studies / "labels.csv")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["model"]["sha256"] == load_bundle(toy).content_hash
    assert record["recipe"]["sha256"] == hashlib.sha256(prompts.read_bytes()).hexdigest()
    assert record["labels"]["sha256"] == hashlib.sha256((studies / "labels.csv").read_bytes()).hexdigest()
    counts = record["counts"]
    assert counts["files"] == sum(counts[outcome] for outcome in ("score", "duplicate", "reject", "skip")) == 6
    for name, digest in record["outputs"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert record["seconds"]["total"] >= sum(value for name, value in record["seconds"].items() if name != "total") - 0.01


def test_an_empty_folder_is_an_empty_typed_report(run, tmp_path):
    (tmp_path / "empty").mkdir()
    last = run(tmp_path / "empty")[-1]
    assert isinstance(last, ScoringFinished)
    assert last.run["counts"]["files"] == 0
    assert pl.read_parquet(tmp_path / "out" / "scores.parquet").schema[FINDINGS[0]] == pl.Float32


# --- bad files, duplicates, studies -------------------------------------------------------------------------------------------------


def test_the_key_of_a_file_is_unique_and_stays(run, studies, tmp_path):
    shutil.copytree(studies / "in", tmp_path / "in")
    shutil.copy(tmp_path / "in/synthetic_01.dcm", tmp_path / "in/copy.dcm")
    done = published(run(tmp_path / "in", tmp_path / "in"))
    private = pl.read_parquet(tmp_path / "out/private/files.parquet")
    assert done.images["file"].n_unique() == private["file"].n_unique() == done.images.height == 14
    assert done.images.join(private, on="file").height == 14
    assert done.images["image"].n_unique() == 6
    again = published(run(tmp_path / "in")).images
    assert set(again["file"]) == set(done.images["file"][:7])


def test_one_bad_file_is_a_row_and_changes_no_other(run, studies, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder)
    alone = published(run(folder)).studies
    (folder / "aaa.dcm").write_bytes((folder / "synthetic_01.dcm").read_bytes()[:5000])
    (folder / "bbb.dcm").write_bytes(b"")
    (folder / "ccc.txt").write_text("a letter")
    found = published(run(folder, out=tmp_path / "other"))
    assert found.studies.equals(alone)
    assert found.images.height == 9
    assert found.run["counts"]["reasons"] == {"empty_file": 1, "not_dicom": 1, "truncated": 1}
    assert found.run["counts"]["failed"] == 2


def test_a_duplicate_has_a_score_and_is_counted_once(run, studies, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder)
    shutil.copy(folder / "synthetic_01.dcm", folder / "again.dcm")
    for attempt in ("fresh", "remembered"):
        found = published(run(folder))
        rows = found.images.filter(pl.col("image") == found.images["image"][0])
        assert sorted(rows["outcome"]) == ["duplicate", "score"], attempt
        assert rows["Edema"].n_unique() == 1
        assert rows["Edema"].null_count() == 0
        assert found.studies.height == 6
        assert found.studies["n_images"].to_list() == [1] * 6


@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_a_study_of_two_images(run, studies, tmp_path, aggregate):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(studies / "in" / "synthetic_01.dcm", folder / "a.dcm")
    import pydicom

    uid = str(pydicom.dcmread(folder / "a.dcm").StudyInstanceUID)
    patient = str(pydicom.dcmread(folder / "a.dcm").PatientID)
    copy(studies / "in" / "synthetic_02.dcm", folder / "b.dcm", StudyInstanceUID=uid, PatientID=patient)
    found = published(run(folder, aggregate=aggregate))
    assert found.studies["n_images"].to_list() == [2]
    both = found.images["Edema"].to_numpy()
    assert found.studies["Edema"][0] == pytest.approx(both.mean() if aggregate == "mean" else both.max())


def test_an_image_that_is_no_plain_exposure_is_left_out_of_its_study(run, studies, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    patient, bone = {"PatientID": "P"}, {"SeriesDescription": "Chest PA DE Bone"}
    copy(studies / "in" / "synthetic_01.dcm", folder / "1.dcm", StudyInstanceUID="1.2.7", **patient)
    copy(studies / "in" / "synthetic_02.dcm", folder / "2.dcm", StudyInstanceUID="1.2.7", **patient, **bone)
    copy(studies / "in" / "synthetic_03.dcm", folder / "3.dcm", StudyInstanceUID="1.2.8", **patient, **bone)
    found = published(run(folder))
    plain, other, _ = found.images["Edema"].to_list()
    assert plain != other and found.images["flags"].str.contains("dual_energy").to_list() == [False, True, True]
    assert found.studies.select("n_images", "Edema").rows() == [(1, plain)], "a study of such images alone has no row"
    assert "dual_energy" in found.studies["flags"].item()


def test_the_same_picture_in_every_encoding_gets_the_same_score(run, make_studies, tmp_path):
    folder = tmp_path / "in"
    make_studies.copy_real(folder)
    stored = make_studies.draw_chest("consolidation", np.random.default_rng(2))
    for number, syntax in enumerate(make_studies.SYNTAXES):
        make_studies.chest_dataset(stored, f"{number}", syntax).save_as(folder / f"drawn_{number}.dcm", enforce_file_format=True)
    lossy = make_studies.chest_dataset(stored, "j2k", ExplicitVRLittleEndian)
    lossy.PixelData = encapsulate(
        [bytes(imagecodecs.jpeg2k_encode(stored, level=50, codecformat="j2k", reversible=False, bitspersample=12))]
    )
    lossy["PixelData"].VR, lossy["PixelData"].is_undefined_length, lossy.file_meta.TransferSyntaxUID = "OB", True, JPEG2000
    lossy.save_as(folder / "drawn_j2k_lossy.dcm", enforce_file_format=True)
    lossy = make_studies.chest_dataset(stored, "jpeg", ExplicitVRLittleEndian)
    lossy.PixelData = encapsulate([bytes(imagecodecs.jpeg8_encode((stored >> 4).astype(np.uint8), level=90))])
    lossy.BitsAllocated, lossy.BitsStored, lossy.HighBit, lossy.WindowCenter, lossy.WindowWidth = 8, 8, 7, "118.75", "225"
    lossy["PixelData"].VR, lossy["PixelData"].is_undefined_length, lossy.file_meta.TransferSyntaxUID = "OB", True, JPEGBaseline8Bit
    lossy.save_as(folder / "drawn_jpeg.dcm", enforce_file_format=True)

    images = published(run(folder)).images
    paths = pl.read_parquet(tmp_path / "out" / "private" / "files.parquet")["path"]
    images = images.with_columns(paths.map_elements(lambda path: Path(path).name, pl.String).alias("name"))
    for start, copies in (("RG1", 4), ("drawn", 8)):
        same = images.filter(pl.col("name").str.starts_with(start), pl.col("outcome") != "reject")
        assert same.height == copies
        assert same["transfer_syntax"].n_unique() == {"RG1": 3, "drawn": 8}[start]
        for finding in FINDINGS:
            assert same[finding].max() - same[finding].min() < 0.01
    turned_away = images.filter(pl.col("outcome") == "reject")
    assert dict(turned_away["reason"].value_counts().iter_rows()) == {"wrong_body_part": 2, "wrong_modality": 1}


# --- the image table ----------------------------------------------------------------------------------------------------------------


def table_files(out):
    return {path: path.read_bytes() for path in (out / "table").rglob("*.parquet")}


def test_a_second_run_reads_nothing_again_and_says_the_same(run, studies, tmp_path):
    run(studies / "in")
    before, csv_before = table_files(tmp_path / "out"), (tmp_path / "out" / "scores.csv").read_bytes()
    events = run(studies / "in")
    assert all(event.reused for event in events if isinstance(event, FileDone))
    assert table_files(tmp_path / "out") == before
    assert (tmp_path / "out" / "scores.csv").read_bytes() == csv_before
    assert events[-1].run["counts"]["reused"] == 6


def test_too_few_files_end_the_run_and_leave_the_last_results(run, studies, tmp_path):
    run(studies / "in")
    before = (tmp_path / "out" / "scores.csv").read_bytes()
    (tmp_path / "unmounted").mkdir()
    with pytest.raises(InputMissing, match="0 files were found, at least 1"):
        run(tmp_path / "unmounted", min_files=1)
    assert (tmp_path / "out" / "scores.csv").read_bytes() == before
    assert published(run(studies / "in", min_files=6)).images.height == 6


def test_a_table_that_cannot_be_written_leaves_the_last_results(run, studies, tmp_path):
    shutil.copytree(studies / "in", tmp_path / "in")
    run(tmp_path / "in", labels=studies / "labels.csv")
    out = tmp_path / "out"
    (out / f".metrics.json.{os.getpid()}.part").mkdir()  # the last of the tables has no place to be written
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "table" not in path.parts}
    (tmp_path / "in" / "synthetic_01.dcm").unlink()
    with pytest.raises(OutputError, match=r"cannot write metrics\.json"):
        run(tmp_path / "in", labels=studies / "labels.csv")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and "table" not in path.parts} == before
    assert out / "run.json" in before


def test_a_folder_of_any_name_takes_the_results(run, studies, tmp_path):
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/out\xff[1]*"))
    assert published(run(studies / "in", out=out)).studies.height == 6


def test_other_prompts_cost_no_pixel_work(run, studies, tmp_path):
    run(studies / "in")
    fresh = published(run(studies / "in", prompts="chest14", out=tmp_path / "fresh")).studies
    events = run(studies / "in", prompts="chest14")
    assert all(event.reused for event in events if isinstance(event, FileDone))
    assert published(events).studies.equals(fresh)


def test_another_model_starts_anew(run, studies, tmp_path, toy):
    bundle = load_bundle(toy)
    with torch.no_grad():
        bundle.clip.visual_projection.weight.mul_(-1)
    save_bundle(tmp_path / "other", bundle.clip, bundle.tokenizer, bundle.preprocessing, name="other")
    first = published(run(studies / "in")).studies
    events = run(studies / "in", model=tmp_path / "other")
    assert not any(event.reused for event in events if isinstance(event, FileDone))
    assert not published(events).studies.select(FINDINGS).equals(first.select(FINDINGS))
    assert published(run(studies / "in")).studies.equals(first)


def test_rows_of_another_reader_are_read_again_and_said_once(run, studies, tmp_path, monkeypatch):
    run(studies / "in")
    before = (tmp_path / "out" / "scores.csv").read_bytes()
    monkeypatch.setattr("engine.score.reader_version", lambda: "reader 99 imagecodecs 1 pillow 1 simpleitk 1")
    monkeypatch.setattr("engine.score.same_readers", lambda: ())
    events = run(studies / "in")
    (notice,) = (event.message for event in events if isinstance(event, Notice))
    assert notice.startswith("6 files of the feature cache were written") and notice.endswith("are read again")
    assert not any(event.reused for event in events if isinstance(event, FileDone))
    assert (tmp_path / "out" / "scores.csv").read_bytes() == before
    third = run(studies / "in")
    assert all(event.reused for event in third if isinstance(event, FileDone))
    assert not any(isinstance(event, Notice) for event in third)


def test_only_what_is_new_is_read(run, studies, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder)
    moved = folder / "synthetic_01.dcm"
    moved.rename(tmp_path / "later.dcm")
    run(folder)
    (tmp_path / "later.dcm").rename(folder / "zz.dcm")
    events = run(folder)
    assert [event.reused for event in events if isinstance(event, FileDone)] == [True] * 5 + [False]
    whole = published(run(folder, out=tmp_path / "fresh")).studies
    assert published(events).studies.equals(whole)


def test_a_drained_folder_loses_its_studies_unless_they_are_kept(run, studies, tmp_path, monkeypatch):
    nights = [tmp_path / "1", tmp_path / "2", tmp_path / "3"]
    for number, folder in enumerate(nights):
        folder.mkdir()
        for name in (2 * number + 1, 2 * number + 2):
            shutil.copy(studies / f"in/synthetic_{name:02}.dcm", folder / f"{name}.dcm")
    first = published(run(nights[0], out=tmp_path / "all", keep=True))
    assert first.images["last_seen"].n_unique() == first.studies["last_seen"].n_unique() == 1
    # a study that is split over two nights is one row
    split = pydicom.dcmread(nights[0] / "1.dcm").StudyInstanceUID
    copy(nights[1] / "3.dcm", nights[1] / "3.dcm", StudyInstanceUID=split, PatientID=pydicom.dcmread(nights[0] / "1.dcm").PatientID)
    monkeypatch.setattr("engine.score.utc_time", lambda: "2030-01-02T00:00:00+00:00")
    shutil.rmtree(nights[0])
    second = published(run(nights[1], out=tmp_path / "all", keep=True))
    assert second.images.height == 4
    assert second.studies.height == 3
    row = second.studies.filter(pl.col("study") == named(split)).row(0, named=True)
    assert (row["n_images"], row["last_seen"]) == (2, "2030-01-02")
    assert second.run["counts"]["kept"] == 2
    shutil.rmtree(nights[1])
    third = published(run(nights[2], out=tmp_path / "all", keep=True))
    assert third.studies.height == 5
    assert set(second.studies["study"]) < set(third.studies["study"])
    scores = third.studies.filter(pl.col("study") == named(split)).select(FINDINGS)
    assert scores.equals(second.studies.filter(pl.col("study") == named(split)).select(FINDINGS))
    # a file that comes back is one row, whatever its name
    shutil.copy(studies / "in/synthetic_02.dcm", nights[2] / "again.dcm")
    assert published(run(nights[2], out=tmp_path / "all", keep=True)).images.height == third.images.height
    plain = run(nights[2], out=tmp_path / "all")
    assert "2 studies of the last run are not in these inputs" in " ".join(event.message for event in plain if isinstance(event, Notice))
    assert "last_seen" not in published(plain).images.columns


def test_a_run_that_is_broken_off_keeps_what_was_done(toy, prompts, studies, run, tmp_path):
    whole = published(run(studies / "in", out=tmp_path / "whole")).studies
    events = score([studies / "in"], prompts=prompts, model=toy, out=tmp_path / "out", workers=1, batch_size=2)
    seen = 0
    for event in events:
        seen += isinstance(event, FileDone)
        if seen == 3:
            break
    events.close()
    assert not (tmp_path / "out" / "scores.csv").exists()
    rest = run(studies / "in", batch_size=8)
    assert sum(event.reused for event in rest if isinstance(event, FileDone)) == 3
    scores = published(rest).studies.select(FINDINGS).to_numpy()
    assert scores == pytest.approx(whole.select(FINDINGS).to_numpy(), abs=1e-5)
    with locked(tmp_path / "out"):
        pass


def test_a_broken_run_ends_as_an_unbroken_one_to_the_byte(toy, prompts, studies, run, tmp_path):
    run(studies / "in", out=tmp_path / "whole", batch_size=2)
    events = score([studies / "in"], prompts=prompts, model=toy, out=tmp_path / "out", workers=1, batch_size=2)
    for _ in zip(range(4), events, strict=False):
        pass
    events.close()
    run(studies / "in", batch_size=2)
    for name in ("scores.csv", "images.csv", "scores.parquet", "images.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_damaged_part_is_read_again_and_said(run, studies, tmp_path):
    before = published(run(studies / "in")).studies
    (part,) = (tmp_path / "out" / "table").rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:50])
    events = run(studies / "in")
    assert any(isinstance(event, Notice) and "damaged" in event.message for event in events)
    assert published(events).studies.equals(before)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_batches_and_workers_do_not_change_scores(run, studies, tmp_path, size):
    eight = published(run(studies / "in")).studies.select(FINDINGS).to_numpy()
    other = published(run(studies / "in", batch_size=size, workers=2, out=tmp_path / "other")).studies.select(FINDINGS).to_numpy()
    assert other == pytest.approx(eight, abs=1e-5)


def test_reordering_findings_reorders_columns(run, studies, tmp_path, prompts):
    first = published(run(studies / "in")).studies
    head, *findings = prompts.read_text().rstrip("\n").split("\n  ")
    prompts.write_text("\n  ".join([head, *reversed(findings)]) + "\n")
    second = published(run(studies / "in")).studies
    assert second.columns == ["study", "n_images", *reversed(FINDINGS), "flags"]
    assert second.select(first.columns).equals(first)


def test_a_file_turned_away_for_a_limit_is_read_again_under_a_higher_one(run, studies, tmp_path):
    low = published(run(studies / "in", limits=limits_from(["megapixels=0.01"])))
    assert low.run["counts"]["reasons"] == {"resource_limit": 6}
    assert low.run["limits"] == {"seconds": 30, "memory_gb": 2, "file_mb": 512, "megapixels": 0.01, "nesting": 64}
    again = run(studies / "in")
    assert published(again).run["counts"]["score"] == 6
    assert not any(event.reused for event in again if isinstance(event, FileDone))


def test_a_file_nested_too_deep_is_read_again_under_a_higher_limit(run, studies, tmp_path):
    import pydicom
    from pydicom.dataset import Dataset

    (tmp_path / "in").mkdir()
    data = pydicom.dcmread(studies / "in" / "synthetic_01.dcm")
    inner = Dataset()
    for outer in (*(Dataset() for _ in range(9)), data):
        outer.RequestAttributesSequence = [inner]
        # sequences and items of a given length would be stepped over whole
        outer["RequestAttributesSequence"].is_undefined_length = inner.is_undefined_length_sequence_item = True
        inner = outer
    data.save_as(tmp_path / "in" / "deep.dcm")
    assert published(run(tmp_path / "in", limits=limits_from(["nesting=8"]))).images["reason"].to_list() == ["nesting_too_deep"]
    assert published(run(tmp_path / "in")).images["outcome"].to_list() == ["score"]


# --- heatmaps -----------------------------------------------------------------------------------------------------------------------


def test_every_scored_image_gets_a_sheet_that_only_its_owner_reads(run, studies, tmp_path):
    events = run(studies / "in", heatmaps=True)
    sheets = list((tmp_path / "out" / "private" / "heatmaps").iterdir())
    assert sorted(path.stem for path in sheets) == sorted(published(events).images["image"])
    assert (tmp_path / "out" / "private" / "heatmaps").stat().st_mode & 0o777 == 0o700
    for path in sheets:
        assert path.stat().st_mode & 0o777 == 0o600
        assert NOTICE.encode() in path.read_bytes()
        with Image.open(path) as picture:
            picture.load()
    assert [event.reused for event in events if isinstance(event, HeatmapSheet)] == [False] * 6
    assert events[-1].run["heatmaps"] == {"drawn": 6, "reused": 0}
    assert published(run(studies / "in", out=tmp_path / "plain")).run["heatmaps"] is None
    assert not (tmp_path / "plain" / "private" / "heatmaps").exists()


def test_a_classifier_draws_what_its_head_sees(run, studies, tmp_path, toy):
    bundle = load_bundle(toy)
    head = Head(("Edema", "Nodule"), np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32), np.zeros(2, np.float32))
    save_bundle(tmp_path / "classifier", bundle.clip, bundle.tokenizer, bundle.preprocessing, name="classifier", head=head)
    events = run(studies / "in", prompts=None, model=tmp_path / "classifier", heatmaps=True)
    assert events[-1].run["heatmaps"] == {"drawn": 6, "reused": 0}
    assert all(path.is_file() for path in published(events).sheets.values())


def test_a_second_run_draws_only_what_is_missing(run, studies, tmp_path, prompts):
    run(studies / "in")
    scores = published(run(studies / "in", heatmaps=True)).studies  # known images are read again: features hold no patches
    folder = tmp_path / "out" / "private" / "heatmaps"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    gone, damaged, *_ = before
    gone.unlink()
    damaged.write_bytes(before[damaged][:-5])
    again = run(studies / "in", heatmaps=True)
    assert {event.image for event in again if isinstance(event, HeatmapSheet) and not event.reused} == {gone.stem, damaged.stem}
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert published(again).studies.equals(scores)
    prompts.write_text(PROMPTS.replace("no edema", "clear lungs"))
    assert run(studies / "in", heatmaps=True)[-1].run["heatmaps"] == {"drawn": 6, "reused": 0}


def test_a_picture_that_goes_away_meanwhile_is_said(studies, tmp_path, toy, prompts):
    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder)
    events, seen, after = score([folder], prompts=prompts, model=toy, out=tmp_path / "out", workers=1, heatmaps=True), 0, []
    for event in events:
        seen += isinstance(event, FileDone)
        if seen == 6 and (folder / "synthetic_01.dcm").exists():
            (folder / "synthetic_01.dcm").unlink()
        after.append(event)
    assert "1 scored images have no heatmap" in " ".join(event.message for event in after if isinstance(event, Notice))
    assert after[-1].run["heatmaps"] == {"drawn": 5, "reused": 0}


def test_the_same_instance_in_two_encodings_has_one_sheet(run, make_studies, tmp_path):
    (tmp_path / "in").mkdir()
    stored = make_studies.draw_chest("normal", np.random.default_rng(0))
    for number, syntax in enumerate(make_studies.SYNTAXES[:2]):
        data = make_studies.chest_dataset(stored, "one", syntax)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.5"
        data.save_as(tmp_path / "in" / f"{number}.dcm", enforce_file_format=True)
    found = run(tmp_path / "in", heatmaps=True)
    assert published(found).images["outcome"].to_list() == ["score", "score"]
    assert found[-1].run["heatmaps"] == {"drawn": 1, "reused": 0}


# --- labels -------------------------------------------------------------------------------------------------------------------------


def test_figures_per_finding_with_labels(run, studies):
    found = published(run(studies / "in", labels=studies / "labels.csv"))
    rows = {row.finding: row for row in found.figures}
    assert (rows["Lung Opacity"].n, rows["Lung Opacity"].n_positive) == (6, 2)
    assert 0 <= rows["Lung Opacity"].auroc_low <= rows["Lung Opacity"].auroc <= rows["Lung Opacity"].auroc_high <= 1
    assert rows["Edema"].auroc is None
    assert rows["Edema"].reason == "no study with the finding"
    assert rows[FINDINGS[1]].reason == "no labels"
    assert rows["macro"].auroc == rows["Lung Opacity"].auroc


@pytest.mark.parametrize("key", ["hashed", "study", "file", "relative"])
def test_labels_join_by_any_name_of_the_study(run, studies, tmp_path, key):
    files = pl.read_parquet(tmp_path / "out" / "private" / "files.parquet") if run(studies / "in") else None
    names = {
        "hashed": ("study", [named(uid) for uid in files["study_instance_uid"]]),
        "study": ("study", files["study_instance_uid"].to_list()),
        "file": ("file", files["path"].to_list()),
        "relative": ("file", [os.path.relpath(path, tmp_path) for path in files["path"]]),
    }
    column, values = names[key]
    pl.DataFrame({column: values, "Edema": [1, 0, 1, 0, 1, 0]}).write_csv(tmp_path / "labels.csv")
    for retain in (False, True):
        found = published(run(studies / "in", labels=tmp_path / "labels.csv", retain_uids=retain))
        assert found.run["labels"]["matched_rows"] == 6
        assert next(row for row in found.figures if row.finding == "Edema").n_positive == 3


def test_unmatched_rows_are_said_and_counted(run, studies, tmp_path):
    (tmp_path / "labels.csv").write_text("StudyInstanceUID,Edema,Oedema\n9.9.9,1,0\n")
    events = run(studies / "in", labels=tmp_path / "labels.csv")
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    assert "match no scored study: 1" in said
    assert "without labels: 6" in said
    assert "Oedema" in said
    assert events[-1].run["labels"]["unknown_columns"] == ["Oedema"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["labels"]["listed"]["unmatched"] == [1]


def test_labels_are_not_joined_to_a_study_of_two_patients(run, studies, tmp_path):
    import pydicom

    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder)
    uid = str(pydicom.dcmread(folder / "synthetic_01.dcm").StudyInstanceUID)
    copy(folder / "synthetic_02.dcm", folder / "synthetic_02.dcm", StudyInstanceUID=uid)
    found = published(run(folder, labels=studies / "labels.csv"))
    assert found.run["labels"]["ambiguous_rows"] == 1
    conflict = found.images.filter(pl.col("study") == named(uid))
    assert conflict["flags"].str.contains("uid_conflict").to_list() == [True, True]


def test_earlier_figures_go_when_a_run_has_no_labels(run, studies, tmp_path):
    run(studies / "in", labels=studies / "labels.csv")
    run(studies / "in")
    assert not (tmp_path / "out" / "metrics.csv").exists()


def test_an_image_table_brings_pictures_studies_and_labels(run, tmp_path, make_studies):
    rows = []
    for number in range(4):
        picture = make_studies.draw_chest("normal", np.random.default_rng(number))
        Image.fromarray((picture >> 4).astype(np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,study {number // 2},patient {number // 2},PA,{number // 2}")
    rows += ["gone.png,study 9,,,1", "0.png,study 0,patient 0,LATERAL,0"]
    (tmp_path / "images.csv").write_text("file,study,patient,view,Edema\n" + "\n".join(rows) + "\n")
    found = published(run(tmp_path / "images.csv"))
    assert found.studies["study"].to_list() == [named("study 0"), named("study 1")]
    assert found.studies["n_images"].to_list() == [2, 2]
    assert found.images["reason"].to_list() == [None] * 4 + ["file_missing", "lateral_view"]
    assert found.run["counts"]["failed"] == 1
    edema = next(row for row in found.figures if row.finding == "Edema")
    assert (edema.n, edema.n_positive, found.run["labels"]["unmatched_rows"]) == (2, 1, 1)
    assert pl.read_parquet(tmp_path / "out" / "private" / "files.parquet")["patient"][:4].to_list() == ["patient 0"] * 2 + ["patient 1"] * 2


# --- what is refused ----------------------------------------------------------------------------------------------------------------


def test_missing_things_are_refused_before_anything_is_written(run, studies, tmp_path):
    with pytest.raises(InputMissing):
        run(tmp_path / "nowhere")
    with pytest.raises(InputMissing):
        run(studies / "in", prompts="chest41")
    with pytest.raises(InputMissing):
        run(studies / "in", labels=tmp_path / "none.csv")
    (tmp_path / "bad.yaml").write_text("version: 1\nfindings:\n  A: {positive: [], negativ: [x]}\nscore: cosin\n")
    with pytest.raises(RecipeError, match="negativ"):
        run(studies / "in", prompts=tmp_path / "bad.yaml")
    (tmp_path / "labels.csv").write_text("study,Edemma\na,1\n")
    with pytest.raises(LabelsError, match="Edema"):
        run(studies / "in", labels=tmp_path / "labels.csv")
    (tmp_path / "taken.yaml").write_text("version: 1\nfindings:\n  study: {positive: [a], negative: [b]}\n")
    with pytest.raises(ConfigError, match="study"):
        run(studies / "in", prompts=tmp_path / "taken.yaml")
    assert not (tmp_path / "out").exists()


def test_a_locked_folder_is_refused(run, studies, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(LockHeld):
        run(studies / "in")


def test_an_output_that_cannot_be_written_is_refused_first(run, studies, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError):
        run(studies / "in")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_model_that_sees_no_difference_is_refused(run, tmp_path, toy):
    noise = np.random.default_rng(5).integers(0, 256, (12, 96, 96), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "in.csv").write_text("file\n" + "".join(f"{number}.png\n" for number in range(len(noise))))
    bundle = load_bundle(toy)
    with torch.no_grad():
        bundle.clip.vision_model.post_layernorm.weight.zero_()
        bundle.clip.vision_model.post_layernorm.bias.copy_(torch.linspace(-1, 2, bundle.clip.config.vision_config.hidden_size))
        bundle.clip.logit_scale.fill_(4.6)
    save_bundle(tmp_path / "blind", bundle.clip, bundle.tokenizer, bundle.preprocessing, name="blind")
    with pytest.raises(NotFinite, match="same scores to all of 12 images"):  # in batches of 5, 5 and 2 they differ in the last bit
        run(tmp_path / "in.csv", model=tmp_path / "blind", batch_size=5)
    assert not (tmp_path / "out" / "scores.csv").exists()


def test_copies_of_one_picture_may_have_equal_scores(run, make_studies, tmp_path):
    stored = make_studies.draw_chest("normal", np.random.default_rng(0))
    for number in range(12):
        make_studies.chest_dataset(stored, f"{number}", ExplicitVRLittleEndian).save_as(
            tmp_path / f"{number}.dcm", enforce_file_format=True
        )
    assert published(run(tmp_path, out=tmp_path / "out")).studies["Edema"].n_unique() == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_usage_error(run, studies):
    with pytest.raises(UsageError, match="no GPU"):
        run(studies / "in", device="cuda")


def test_a_dry_run_counts_and_writes_nothing(run, studies, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder)
    (folder / "x.part").write_bytes(b"x")
    assert run(folder, dry_run=True) == [ScoringPlan(7, 0, {"in_progress": 1})]
    assert not (tmp_path / "out").exists()
    events = run(folder)
    assert events[0] == ScoringStarted(FINDINGS, "toy", "cpu", 0)
    assert run(folder, dry_run=True) == [ScoringPlan(7, 6, {"in_progress": 1})]


def test_output_and_labels_inside_the_input_are_not_input(run, studies, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder)
    shutil.copy(studies / "labels.csv", folder / "labels.csv")
    for out in (folder / "out", folder / "out", folder, folder):
        if out == folder:
            shutil.rmtree(folder / "out", ignore_errors=True)
        assert published(run(folder, out=out, labels=folder / "labels.csv")).images.height == 6
    assert run(folder, out=folder, labels=folder / "labels.csv", dry_run=True)[-1].files == 6


def test_links_are_followed_where_that_is_asked(run, studies, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(studies / "in", folder / ".git/annex")
    for file in (folder / ".git/annex").iterdir():
        (folder / file.name).symlink_to(file)
    assert published(run(folder)).studies.height == 0
    assert published(run(folder, follow_links=True)).studies.height == 6


def test_a_folder_of_images_alone_is_scored(run, tmp_path, make_studies):
    (tmp_path / "in").mkdir()
    for number in range(3):
        coarse = np.random.default_rng(number).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(coarse).resize((96, 96)).save(tmp_path / f"in/{number}.png")
    done = published(run(tmp_path / "in"))
    assert done.images["outcome"].to_list() == ["score"] * 3
    assert pl.read_csv(tmp_path / "out/private/files.csv")["path"].to_list() == ["0.png", "1.png", "2.png"]
    assert published(run(tmp_path / "in/1.png", out=tmp_path / "one")).studies.height == 1


def test_patients_outside_of_the_training_population_are_flagged_and_counted(run, studies, tmp_path, toy):
    (tmp_path / "in").mkdir()
    for age, name in (("004Y", 1), ("060Y", 2), (None, 3)):
        copy(studies / f"in/synthetic_{name:02}.dcm", tmp_path / f"in/{name}.dcm", PatientAge=age)
    bundle = load_bundle(toy)
    provenance = {
        "population": {"sources": {"x": 100}, "ages": {"0-5": 100}, "views": {}},
        "heatmaps": {"point": False, "measured": "never"},
    }
    save_bundle(tmp_path / "m", bundle.clip, bundle.tokenizer, bundle.preprocessing, name="m", provenance=provenance)
    for _ in range(2):  # the second run knows the files
        done = published(run(tmp_path / "in", model=tmp_path / "m"))
        flags = ["outside_training_population" in cell for cell in done.images["flags"]]
        assert flags == [False, True, False]
        assert done.run["counts"]["outside"] == 1
        assert sum("outside_training_population" in cell for cell in done.studies["flags"]) == 1
    with pytest.raises(UsageError, match=r"heatmaps of m do not point at findings: never.*--force-heatmaps"):
        run(tmp_path / "in", model=tmp_path / "m", heatmaps=True)
    drawn = run(tmp_path / "in", model=tmp_path / "m", heatmaps=True, force_heatmaps=True)
    assert sum(isinstance(event, HeatmapSheet) for event in drawn) == 3
