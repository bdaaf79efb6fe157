"""The sheet: colours that mean what its text says, and a PNG that carries its texts."""

import io

import numpy as np
import pytest
from PIL import Image

from engine.scoring.heatmaps import AGAINST, FOR, MOST_MAPS, PANEL, STRENGTH, UNSEEN, chosen, overlaid, sheet

GREY = np.full((4, 6), 100, np.uint8)


def flat(value: float) -> np.ndarray:
    return np.full(GREY.shape, value, np.float32)


def test_nothing_for_or_against_leaves_the_picture_alone() -> None:
    assert (overlaid(GREY, flat(0), 0.3) == 100).all()
    assert (overlaid(GREY, flat(0), 0.0) == 100).all()


@pytest.mark.parametrize(("value", "hue"), [(0.3, FOR), (-0.3, AGAINST)])
def test_full_colour_is_the_hue_and_less_is_less(value, hue) -> None:
    full, half = overlaid(GREY, flat(value), 0.3)[0, 0].astype(float), overlaid(GREY, flat(value / 2), 0.3)[0, 0].astype(float)
    assert full == pytest.approx((1 - STRENGTH) * 100 + STRENGTH * np.array(hue), abs=1)
    assert half == pytest.approx((full + 100) / 2, abs=1)
    assert (overlaid(GREY, flat(3 * value), 0.3)[0, 0] == full).all()


def test_what_was_not_seen_is_darkened() -> None:
    values = flat(0.2)
    values[:, 0] = np.nan
    mixed = overlaid(GREY, values, 0.2)
    assert (mixed[:, 0] == round(UNSEEN * 100)).all()
    assert (mixed[:, 1] != mixed[:, 0]).any()


def test_the_hues_differ_in_blue_and_red_whatever_the_eye() -> None:
    """Red-green blindness keeps blue against yellow-orange; the two hues differ most there."""
    assert AGAINST[2] - FOR[2] > 150
    assert FOR[0] - AGAINST[0] > 150


def test_a_sheet_shows_all_findings_or_those_of_the_highest_scores() -> None:
    few = {f"finding {k}": 0.1 * k for k in range(5)}
    assert chosen(few) == list(few)
    many = {f"finding {k}": (k * 7 % 30) / 30 for k in range(30)}
    shown = chosen(many)
    assert len(shown) == MOST_MAPS
    assert shown == [finding for finding in many if finding in shown]
    assert min(many[finding] for finding in shown) > max(value for finding, value in many.items() if finding not in shown)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (300, 300), (2, 90)])
@pytest.mark.parametrize("count", [1, 4, 15])
def test_a_sheet_holds_a_panel_for_the_picture_and_one_for_each_map(shape, count) -> None:
    findings = [f"finding {k} 胸 with a name that is much too long for its panel" for k in range(count)]
    maps = {finding: np.full(shape, 0.01 * k, np.float32) for k, finding in enumerate(findings)}
    texts = {"mmclip_key": "abc", "Comment": "of no use"}
    png = sheet(np.full(shape, 90, np.uint8), maps, dict.fromkeys(findings, 0.5), lines=["made by a test"], texts=texts)
    with Image.open(io.BytesIO(png)) as page:
        page.load()
        assert page.info["mmclip_key"] == "abc"
        width, height = page.size
    assert b"of no use" in png
    panel = [round(side * PANEL / max(shape)) for side in shape]
    assert height > -(-(count + 1) // 4) * panel[0]
    assert width > min(count + 1, 4) * panel[1]


def test_the_strongest_place_of_any_map_has_the_full_colour() -> None:
    weak, strong = flat(0.1), flat(0.0)
    strong[2:, 3:] = 0.4
    png = sheet(GREY, {"weak": weak, "strong": strong}, {"weak": 0.5, "strong": 0.9}, lines=[], texts={})
    with Image.open(io.BytesIO(png)) as page:
        colours = {colour for _, colour in page.getcolors(1 << 24)}
    assert tuple(np.rint((1 - STRENGTH) * 100 + STRENGTH * np.array(FOR)).astype(int)) in colours
    assert tuple(np.rint((1 - STRENGTH / 4) * 100 + STRENGTH / 4 * np.array(FOR)).astype(int)) in colours
