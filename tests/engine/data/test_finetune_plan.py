"""The plan of a fine-tuning run: what it refuses and says before the first image is read."""

import pytest

from engine.data.finetune_plan import finetune_table, plan_finetuning
from engine.errors import ConfigError, LabelsError
from engine.recipe.finetuning import FinetuneRecipe


@pytest.fixture
def plan(tmp_path):
    """Plans a recipe over a table of so many rows; its files are not looked into."""

    def plan(header, row, rows=60, *, fractions=(1.0,), source=(), **keys):
        (tmp_path / "images").mkdir(exist_ok=True)
        lines = [row(number) for number in range(rows)]
        for number in range(rows):
            (tmp_path / f"images/{number}.png").write_bytes(b"not looked into")
        (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n")
        table = {"kind": "table", "file": str(tmp_path / "t.csv"), "split": {"train": 0.7, "stratified": True}, **dict(source)}
        recipe = FinetuneRecipe.model_validate({"version": 1, "sources": [table], **keys})
        return plan_finetuning(recipe, fractions, finetune_table(recipe))

    return plan


def test_columns_that_are_taken_and_those_that_are_not_are_named(plan):
    found = plan("Path,subject_id,Edema,Hernia", lambda n: f"images/{n}.png,{n // 2},{n % 4 // 2},{n % 3 % 2}")
    assert found.split_by == "patient"
    assert sum(found.patients.values()) == 30
    assert found.notices[0] == "columns of t taken: 'Path' as file, 'subject_id' as patient"
    assert "columns of t that hold labels and are not learned: Hernia; --findings Hernia to learn them" in found.notices
    asked = plan("Path,subject_id,Edema,Hernia", lambda n: f"images/{n}.png,{n // 2},{n % 4 // 2},{n % 3 % 2}", findings=["Hernia"])
    assert asked.findings == ("Hernia",)


def test_files_that_are_missing_are_counted(plan):
    found = plan("file,patient,Edema", lambda n: f"{'images' if n % 3 else 'gone'}/{n}.png,p{n},{n % 2}")
    assert found.dropped == {"file_missing": 20}
    assert "20 of 60 files that t names are missing" in found.notices


def test_a_table_without_patients_is_split_by_image_and_that_is_said(plan):
    found = plan("file,Edema", lambda n: f"images/{n}.png,{n % 2}")
    assert found.split_by == "image"
    assert any("no patient column: the split is by image" in notice for notice in found.notices)


def test_few_labels_in_a_large_table_are_split_among_the_labelled(plan):
    def row(n):
        return f"images/{n}.png,p{n},{n % 3 % 2 if n % 10 == 0 else ''},{n % 5 + 7}"

    found = plan("file,patient,Edema,fold", row, rows=250, fractions=(0.5, 1.0))
    assert found.unlabelled == 225
    assert sum(found.images.values()) == 25
    assert all(min(found.labels[split]["Edema"]) >= 1 for split in ("train", "validation", "test"))
    assert [each.fraction for each in found.fractions] == [0.5, 1.0]
    assert "columns of t that are not used: fold" in found.notices
    assert any("wide intervals" in notice for notice in found.notices)


def test_another_name_and_folder_of_the_table_give_the_same_splits(plan, tmp_path):
    def splits(name):
        table = {"kind": "table", "file": str(tmp_path / name), "split": {"train": 0.7, "stratified": True}, "root": str(tmp_path)}
        recipe = FinetuneRecipe.model_validate({"version": 1, "sources": [table]})
        found = plan_finetuning(recipe, (0.3, 1.0), finetune_table(recipe))
        return found.images, found.labels, found.fractions[0].positive

    plan("file,patient,Edema", lambda n: f"images/{n}.png,p{n // 2},{n % 4 // 2}")
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved/other name.csv").write_text(text)
    assert splits("t.csv") == splits("moved/other name.csv")


@pytest.mark.parametrize(
    ("header", "row", "error", "message"),
    [
        ("file,patient,Edema,split", lambda n: f"images/{n}.png,p{n // 2},{n % 2},{('train', 'test')[n % 2]}", LabelsError, "leakage"),
        (
            "file,patient,Edema,split",
            lambda n: f"images/{n}.png,p{n},{n % 2},{('train', 'tset')[n % 2]}",
            LabelsError,
            "did you mean 'test'",
        ),
        ("file,patient,Edema", lambda n: f"images/{n}.png,p{n},0", ConfigError, "no finding with both classes"),
        ("file,patient,Edema", lambda n: f"images/{n}.png,p{n},", ConfigError, "left for the train split"),
        ("file,patients_no,Edema", lambda n: f"images/{n}.png,p{n},0", LabelsError, "looks like the patient's"),
        ("file,patient,Pnuemonia", lambda n: f"images/{n}.png,p{n},{n % 2}", LabelsError, "nearly spelled like Pneumonia"),
        ("file,patient,viral", lambda n: f"images/{n}.png,p{n},{n % 2}", ConfigError, "columns of labels that are not used: viral"),
        ("file,patient,label", lambda n: f"images/{n}.png,p{n},viral", LabelsError, "lists 1 names that are no known finding: viral"),
        ("file,patient,Edema", lambda n: f"elsewhere/{n}.png,p{n},{n % 2}", ConfigError, "start from the table's folder"),
        ("file,patient,Edema", lambda n: f"{n}.png,p{n},{n % 2}", ConfigError, "a file of that name is in .*images"),
        ("file,patient,Edema", lambda n: f"C:\\data\\{n}.png,p{n},{n % 2}", ConfigError, "absolute paths of Windows"),
    ],
)
def test_what_the_run_would_refuse_is_refused(plan, header, row, error, message):
    with pytest.raises(ConfigError, match=message) as raised:
        plan(header, row)
    assert isinstance(raised.value, error) or error is LabelsError
