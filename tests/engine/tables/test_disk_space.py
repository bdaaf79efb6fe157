"""Free disk space."""

import pytest

from engine.errors import OutputError
from engine.tables.disk_space import check_disk_space


def test_a_folder_that_does_not_exist_has_the_space_of_its_parent(tmp_path):
    check_disk_space(tmp_path / "a" / "b", 1)
    with pytest.raises(OutputError, match="not enough disk space"):
        check_disk_space(tmp_path / "a" / "b", 10**18)
    assert not (tmp_path / "a").exists()


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written to"):
        check_disk_space(tmp_path / "file", 1)
