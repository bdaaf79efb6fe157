"""The pointing measurement, on pictures whose finding is a bright square and a model that sees brightness."""

import numpy as np
import pytest
from PIL import Image

from engine.data.sources.nih14 import read_boxes
from engine.model.zero_shot import Words
from engine.recipe.sources import TableSource

BRIGHT, DARK = Words(np.eye(32)[:1], np.eye(32)[1:2]), Words(np.eye(32)[1:2], np.eye(32)[:1])


@pytest.fixture(scope="module")
def measure_pointing(script):
    return script("examples/measure_pointing.py")


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    """Twelve pictures of 256 pixels of six patients, each with one bright square, and NIH's table of them on 1,024 pixels."""
    folder = tmp_path_factory.mktemp("nih")
    rng = np.random.default_rng(3)
    rows = []
    for number in range(12):
        x, y = rng.integers(0, 256 - 80, 2)
        picture = np.full((256, 256), 30, np.uint8)
        picture[y : y + 80, x : x + 80] = 220
        name = f"{number // 2:08d}_{number % 2:03d}"
        Image.fromarray(picture).save(folder / f"{name}.png")
        rows.append((name, number // 2, ("Pneumonia", "Infiltrate")[number % 2], x, y))
    (folder / "manifest.csv").write_text("file,patient\n" + "".join(f"{name}.png,{patient}\n" for name, patient, *_ in rows))
    (folder / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,,,,\n"
        + "".join(f"{name}.png,{finding},{4 * x},{4 * y},320,320\n" for name, _, finding, x, y in rows)
        + "00000099_000.png,Pneumonia,10,10,100,100\n"
    )
    return folder


def measured(measure_pointing, nih, bundle, words):
    boxes = read_boxes(nih / "BBox_List_2017.csv")
    source = TableSource(kind="table", file=str(nih / "manifest.csv"))
    targets = measure_pointing.targets_of(source, boxes, bundle, words, score="softmax_pair", pool="max")
    return targets, measure_pointing.hits_of(targets, boxes)


def test_a_map_of_brightness_hits_every_bright_square_and_one_of_darkness_none(measure_pointing, nih, sees_brightness):
    targets, hits = measured(measure_pointing, nih, sees_brightness, {"Pneumonia": BRIGHT, "Lung Opacity": BRIGHT})
    assert len(targets) == 12
    assert {target.finding for target in targets} == {"Pneumonia", "Infiltration"}
    assert all(hits["map"])
    assert sum(hits["hindsight"]) >= max(sum(hits["mean place"]), sum(hits["usual place"]))
    _, hits = measured(measure_pointing, nih, sees_brightness, {"Pneumonia": BRIGHT, "Lung Opacity": DARK})
    assert hits["map"] == [target.finding == "Pneumonia" for target in targets]


def test_a_row_says_how_many_with_their_interval(measure_pointing, nih, sees_brightness):
    targets, hits = measured(measure_pointing, nih, sees_brightness, {"Pneumonia": BRIGHT, "Lung Opacity": BRIGHT})
    row = measure_pointing.row_of("all", targets, hits)
    assert row.startswith("| all | 12 | 6 | 12 = 1.00 (0.76-1.00) | ")
    assert row.endswith(f"| {(80 / 256) ** 2:.2f} |")


def test_places_are_learnt_from_other_patients_alone(measure_pointing, nih, sees_brightness):
    """A patient whose boxes lie where no one else's do is missed by every place but hindsight."""
    targets, _ = measured(measure_pointing, nih, sees_brightness, {"Pneumonia": BRIGHT, "Lung Opacity": BRIGHT})
    target = next(each for each in targets if each.finding == "Pneumonia")
    image = f"{target.patient}_000.png"
    corner = [measure_pointing.Box("Pneumonia", 900, 900, 100, 100)] * 50
    boxes = {image: corner} | {f"0000{number}_000.png": [measure_pointing.Box("Pneumonia", 0, 0, 200, 200)] for number in range(9)}
    moved = measure_pointing.Target("Pneumonia", target.patient, target.held_out, measure_pointing.shares(corner), target.map)
    hits = measure_pointing.hits_of([moved], boxes)
    assert (hits["mean place"], hits["usual place"], hits["mean map"], hits["hindsight"]) == ([False], [False], [False], [True])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("110", "110", (0, 0, 1.0)), ("111100", "000000", (4, 0, 0.125)), ("1000", "0111", (1, 3, 0.625)), ("1", "0", (1, 0, 1.0))],
)
def test_mcnemar_is_the_exact_binomial_test(measure_pointing, first, second, expected):
    as_hits = ([letter == "1" for letter in word] for word in (first, second))
    assert measure_pointing.mcnemar(*as_hits) == pytest.approx(expected)
