"""What must lie where before a published data set can be read."""

import pytest

from engine.data.sources.published import PADCHEST_TABLE, check_published, check_there, missing_data, missing_pieces
from engine.errors import ConfigError
from engine.recipe import load_recipe
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.sources import MimicSource, OpeniSource, PadchestSource, TableSource


def lay(folder, *files):
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def mimic(tmp_path):
    """A miniature of the published folders: reports in MIMIC-CXR, JPEGs and tables in MIMIC-CXR-JPG."""
    lay(tmp_path / "cxr", "files/p10/p10000032/s50414267.txt")
    lay(
        tmp_path / "jpg",
        "files/p10/p10000032/s50414267/02aa804e.jpg",
        "mimic-cxr-2.0.0-split.csv.gz",
        "mimic-cxr-2.0.0-metadata.csv.gz",
    )
    return tmp_path


@pytest.fixture
def padchest(tmp_path):
    lay(tmp_path / "padchest", PADCHEST_TABLE, "0/216840111366964012283393834152009033140208626_00-059-118.png")
    return tmp_path / "padchest"


def test_whole_data_sets_miss_nothing(mimic, padchest):
    assert missing_pieces(MimicSource(kind="mimic_cxr", root=str(mimic / "cxr"), jpg_root=str(mimic / "jpg"))) == []
    assert missing_pieces(PadchestSource(kind="padchest", root=str(padchest))) == []


def test_zips_and_compressed_tables_count_as_there(tmp_path):
    lay(tmp_path, f"{PADCHEST_TABLE}.gz", "0.zip")
    assert missing_pieces(PadchestSource(kind="padchest", root=str(tmp_path))) == []
    lay(tmp_path, "mimic-cxr-reports.zip", "files/p10/p10000032/s50414267/02aa804e.dcm")
    lay(tmp_path, "mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-metadata.csv.gz")
    assert missing_pieces(MimicSource(kind="mimic_cxr", root=str(tmp_path))) == []


def test_reports_and_pictures_of_openi_are_looked_for(tmp_path):
    source = OpeniSource(kind="openi", root=str(tmp_path))
    assert [piece.split(" there")[0] for piece in missing_pieces(source)] == ["root: no reports", "root: no images"]
    lay(tmp_path, "ecgen-radiology/1.xml", "NLMCXR_png/CXR1_1_IM-0001-3001.png")
    assert missing_pieces(source) == []


@pytest.mark.parametrize(
    ("lost", "key", "words"),
    [
        ("cxr/files/p10/p10000032/s50414267.txt", "root: no reports", "files/p10/p10000032/s50414267.txt"),
        ("jpg/files/p10/p10000032/s50414267/02aa804e.jpg", "jpg_root: no images", "<dicom_id>.jpg"),
        ("jpg/mimic-cxr-2.0.0-split.csv.gz", "jpg_root: no mimic-cxr-2.0.0-split.csv.gz there", "MIMIC-CXR-JPG"),
    ],
)
def test_each_lost_piece_is_named_with_its_key_and_layout(mimic, lost, key, words):
    (mimic / lost).unlink()
    (piece,) = missing_pieces(MimicSource(kind="mimic_cxr", root=str(mimic / "cxr"), jpg_root=str(mimic / "jpg")))
    assert piece.startswith(key)
    assert words in piece


def test_without_a_jpg_folder_the_dicom_files_and_tables_are_looked_for_in_root(mimic):
    pieces = missing_pieces(MimicSource(kind="mimic_cxr", root=str(mimic / "cxr")))
    assert [piece.split(":")[0] for piece in pieces] == ["root", "root"]
    assert "or set jpg_root" in pieces[0]


def test_every_missing_piece_of_every_source_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("mimic_padchest", PretrainRecipe)
    with pytest.raises(ConfigError) as caught:
        check_published(recipe.sources)
    keys = [piece.split(":")[0] for piece in missing_data(recipe.sources)]
    assert keys == ["sources.0.root", "sources.0.jpg_root", "sources.0.jpg_root", "sources.1.root", "sources.1.root"]
    assert all(piece in str(caught.value) for piece in missing_data(recipe.sources))
    assert caught.value.exit_code == 78


def test_whole_data_sets_are_told_apart_from_missing_ones(mimic, padchest):
    sources = [
        TableSource(file=str(mimic / "absent.csv")),
        PadchestSource(kind="padchest", root=str(padchest)),
    ]
    with pytest.raises(ConfigError, match=r"sources\.0\.file: no table there"):
        check_published(sources)
    lay(mimic, "absent.csv")
    check_published(sources)


def test_recipes_of_tables_pass_whether_or_not_the_tables_are_there(tmp_path):
    check_published([TableSource(file=str(tmp_path / "absent.csv"))])
    assert missing_data([TableSource(file=str(tmp_path / "absent.csv"))])[0].startswith("sources.0.file: no table there")


def test_where_every_source_must_be_there_a_table_must_too(tmp_path):
    table = tmp_path / "table.csv"
    source = TableSource(file=str(table))
    with pytest.raises(ConfigError, match=r"sources\.0\.file: no table there"):
        check_there([source])
    table.write_text("file,Edema\na.png,1\n")
    check_there([source])
