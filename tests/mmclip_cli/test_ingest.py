import json


def test_a_data_set_is_told_in_counts_and_reasons(mmclip, make_padchest):
    rows = [{"ImageID": f"{n}.png", "PatientID": str(n), "StudyID": str(n), "Projection": view} for n, view in enumerate(["PA", "L"])]
    done = mmclip("ingest", make_padchest(rows), "--out", "table")
    assert done.returncode == 0, done.stderr
    assert "2 rows: 1 images, 1 dropped; 1 files read" in done.stdout
    assert "lateral_view" in done.stdout and "only frontal ones" in done.stdout
    assert json.loads(done.stderr.splitlines()[0])["message"] == "reading padchest"
    assert (mmclip.folder / "table" / "images.parquet").is_file()


def test_json_and_dry_run(mmclip, make_padchest):
    root = make_padchest([{"ImageID": "a.png", "PatientID": "1", "StudyID": "1"}])
    plan = mmclip("ingest", root, "--out", "table", "--dry-run", "--json", "--quiet")
    assert json.loads(plan.stdout) == {"images": 1, "dropped": {}, "left_out": 0}
    assert plan.stderr == "" and not (mmclip.folder / "table").exists()
    done = mmclip("ingest", root, "--as", "padchest", "--out", "table", "--json")
    assert json.loads(done.stdout)["counts"]["images"] == 1


def test_what_is_missing_is_said_at_once(mmclip):
    done = mmclip("ingest", "mimic_padchest", "--out", "table")
    assert done.returncode == 78
    error = json.loads(done.stderr.splitlines()[-1])["message"]
    assert all(key in error for key in ("sources.0.root", "sources.0.jpg_root", "sources.1.root"))
