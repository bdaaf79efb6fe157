"""The page: whole without a network, safe whatever the names, and true to the tables."""

import base64
import html.parser
import re

import polars as pl
import pytest

from engine.html_report import SHOWN_SHEETS, SHOWN_STUDIES, page, report, synthetic_studies
from engine.metrics.findings import figures
from engine.tables.columns import NOTICE, image_schema, study_schema

HOSTILE = ("<script>alert(1)</script>", "{{7*7}}", '$\\frac$ & "quotes" 胸', "=cmd")
RUN = {
    "versions": {"python": "3"},
    "device": "cpu",
    "model": {"name": "<b>toy</b>", "sha256": "ab"},
    "recipe": {"name": "chest14", "version": 1, "sha256": "cd"},
    "inputs": {"files": 5, "sha256": "ef"},
    "options": {"aggregate": "mean"},
    "counts": {"files": 5, "score": 4, "duplicate": 0, "reject": 1, "skip": 0, "failed": 1, "studies": 4},
    "seconds": {"total": 1.0},
}


def tables(findings=HOSTILE, n=4):
    rows = [
        {"study": f"study {k}", "n_images": 1, **dict.fromkeys(findings, (k + 1) / (n + 1)), "flags": "synthetic;aspect"} for k in range(n)
    ]
    studies = pl.DataFrame(rows, schema=study_schema(findings))
    images = [{"study": row["study"], "outcome": "score", "flags": row["flags"]} for row in rows] + [
        {"outcome": "reject", "reason": "truncated"}
    ]
    labelled = pl.DataFrame(
        [{"study": f"study {k}", **dict.fromkeys(findings, k % 2)} for k in range(n)],
        schema={"study": pl.String, **dict.fromkeys(findings, pl.Int8)},
    )
    table = figures(findings, studies.select(findings).to_numpy(), labelled.select(findings).to_numpy(), range(n))
    return {
        "run": RUN,
        "studies": studies.lazy(), "images": pl.LazyFrame(images, schema=image_schema(findings)), "figures": table, "labelled": labelled
    }  # fmt: skip


class Reader(html.parser.HTMLParser):
    """Collects tags, the values of attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_no_network_and_runs_no_script():
    read = Reader(page(**tables()))
    assert not set(read.tags) & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert read.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in read.links)
    assert "default-src 'none'" in page(**tables())
    assert not re.search(r"@import|url\(", page(**tables()))


def test_names_are_text_whatever_they_hold():
    read = Reader(page(**tables()))
    for name in (*HOSTILE, "<b>toy</b>"):
        assert name in read.text
    assert "49" not in [word for word in read.text.split() if word == "49"]
    svg = base64.b64decode(read.links[0].split(",")[1]).decode()
    assert "<script" not in svg
    assert svg.startswith("<?xml")


def test_the_page_says_what_it_is_for_and_what_became_of_every_file():
    text = Reader(page(**tables())).text
    assert text.count(NOTICE) == 2
    assert "truncated" in text
    assert "fetch the file again" in text
    assert "1 of them damaged" in " ".join(text.split())


def test_synthetic_studies_are_called_so():
    given = tables()
    assert synthetic_studies(given["studies"], given["labelled"]) == 4
    assert "4 of them are synthetic" in Reader(page(**given)).text
    given["studies"] = given["studies"].with_columns(flags=pl.lit("aspect"))
    assert "are synthetic" not in page(**given)


def test_figures_stand_with_their_intervals():
    given = tables(findings=("Edema",))
    row = given["figures"][0]
    text = " ".join(Reader(page(**given)).text.split())
    assert f"{row.auroc:.3f}" in text
    assert f"{row.auroc_low:.3f}–{row.auroc_high:.3f}" in text


def test_without_labels_or_studies_there_is_a_page_all_the_same():
    given = tables()
    nothing = {name: given[name].head(0) for name in ("studies", "images", "labelled")}
    counts = dict.fromkeys(RUN["counts"], 0)
    text = page(run=RUN | {"counts": counts}, figures=[], **nothing)
    assert "No image was scored" in text
    assert NOTICE in text


def test_a_long_table_is_cut_and_says_so():
    text = page(**tables(findings=("Edema",), n=SHOWN_STUDIES + 5))
    assert text.count('class="name"') == SHOWN_STUDIES
    assert f"The first {SHOWN_STUDIES} of" in text


def test_the_same_tables_make_the_same_page(tmp_path):
    path = report(tmp_path, **tables())
    assert path.read_text("utf-8") == page(**tables())
    assert path == tmp_path / "report.html"


def test_findings_that_move_together_and_studies_that_hardly_differ_are_said():
    together = Reader(page(**tables(n=30))).text
    assert "The scores of the 4 findings move together (median rank correlation 1.00)" in together
    given = tables(findings=("Edema", "Mass", "Fracture"), n=30)
    mixed = [pl.col("Mass").reverse(), pl.col("Fracture").shuffle(0) * 0.01]
    text = Reader(page(**given | {"studies": given["studies"].with_columns(mixed)})).text
    assert "move together" not in text
    assert "Studies hardly differ (standard deviation of the score below 0.02): Fracture." in text


def test_the_card_and_the_time_are_on_the_page_and_flags_of_most_images_in_one_line():
    given = tables()
    given["run"] = RUN | {"time": "2026-12-01T06:00:00+00:00", "model": RUN["model"] | {"summary": "It has met few adults."}}
    text = " ".join(Reader(page(**given)).text.split())
    assert "2026-12-01T06:00:00+00:00" in text
    assert "<b>toy</b>: It has met few adults." in text
    assert "Flags of most scored images: aspect (4 images" in text


@pytest.mark.parametrize("n", [4, 40])
def test_the_page_stays_light(n):
    assert len(page(**tables(n=n))) < 200_000


def with_sheets(tmp_path, count):
    """Arguments of `report` for as many images, each with a sheet."""
    arguments = tables(n=count)
    names = [f"{number:064x}" for number in range(count)]
    images = arguments["images"].with_columns(pl.Series("image", [*names, None]))
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(b"the sheet of " + name.encode())
    return arguments | {"images": images, "sheets": {name: tmp_path / f"{name}.png" for name in names}}


def test_pictures_stand_in_the_page_only_when_handed_in_and_then_it_says_so(tmp_path):
    arguments = with_sheets(tmp_path, 3)
    text = page(**arguments)
    pictures = [base64.b64decode(link.split(",")[1]) for link in Reader(text).links if link.startswith("data:image/png")]
    assert pictures == [path.read_bytes() for path in arguments["sheets"].values()]
    assert "This page contains images of patients" in text
    without = page(**arguments | {"sheets": None})
    assert "data:image/png" not in without
    assert "pictures of patients" not in without


def test_a_page_with_pictures_is_its_owner_s_alone(tmp_path):
    arguments = with_sheets(tmp_path, 1)
    assert report(tmp_path, **arguments).stat().st_mode & 0o077 == 0
    assert report(tmp_path, **arguments | {"sheets": None}).stat().st_mode & 0o044 == 0o044


def test_a_picture_with_text_in_it_does_not_go_into_the_page(tmp_path):
    arguments = with_sheets(tmp_path, 3)
    flags = ["no_window;burned_in" if place == 1 else cell for place, cell in enumerate(arguments["images"].collect()["flags"])]
    arguments["images"] = arguments["images"].with_columns(pl.Series("flags", flags, pl.String))
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page(**arguments))]
    paths = list(arguments["sheets"].values())
    assert pictures == [paths[0].read_bytes(), paths[2].read_bytes()]


def test_of_many_sheets_the_first_are_shown_and_one_that_is_gone_is_left_out(tmp_path):
    arguments = with_sheets(tmp_path, SHOWN_SHEETS + 3)
    next(iter(arguments["sheets"].values())).unlink()
    text = page(**arguments)
    assert text.count("data:image/png") == SHOWN_SHEETS
    assert f"The first {SHOWN_SHEETS} of {SHOWN_SHEETS + 3} images" in " ".join(Reader(text).text.split())
