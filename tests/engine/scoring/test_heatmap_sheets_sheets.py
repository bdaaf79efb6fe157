"""SheetFolder on disk: whose they are, what they were made from, and who may read them."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from engine.errors import OutputError
from engine.scoring.heatmap_sheets import KEY, SheetFolder, sheet_key


def png(key):
    info, stream = PngInfo(), io.BytesIO()
    info.add_text(KEY, key)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def test_a_sheet_is_known_by_what_it_was_made_from(tmp_path):
    sheets = SheetFolder(tmp_path)
    assert not sheets.holds("ab", "key")
    sheets.write("ab", png("key"))
    assert sheets.holds("ab", "key")
    assert not sheets.holds("ab", "another key")
    assert not sheets.holds("cd", "key")
    assert SheetFolder(tmp_path).holds("ab", "key")


def test_only_the_owner_reads_it(tmp_path):
    sheets = SheetFolder(tmp_path)
    sheets.write("ab", png("key"))
    assert sheets.path("ab") == tmp_path / "private" / "heatmaps" / "ab.png"
    assert sheets.folder.stat().st_mode & 0o777 == 0o700
    assert sheets.path("ab").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:20], lambda data: b"", lambda data: b"no picture" * 9])
def test_a_damaged_sheet_is_none(tmp_path, damage):
    sheets = SheetFolder(tmp_path)
    sheets.path("ab").write_bytes(damage(png("key")))
    assert not sheets.holds("ab", "key")


def test_a_key_changes_with_every_part():
    parts = [1, ["a", "b"], "c", [0.5, 0.25]]
    keys = {sheet_key(*parts), sheet_key(2, *parts[1:]), sheet_key(1, ["a", "B"], *parts[2:]), sheet_key(*parts[:3], [0.5])}
    assert len(keys) == 4
    assert sheet_key(*parts) == sheet_key(*parts)


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "private").write_text("a file")
    with pytest.raises(OutputError):
        SheetFolder(tmp_path)
