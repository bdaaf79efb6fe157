"""Names of studies, and the key they are made with."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import OutputError, ReadError
from engine.tables.identity import Names, config_folder, site_key


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_name_is_the_hmac_of_the_uid():
    assert Names(b"key").of("1.2.3") == hmac.new(b"key", b"1.2.3", hashlib.sha256).hexdigest()


def test_uids_are_kept_when_asked_and_only_if_they_are_uids():
    names = Names(b"key", retain_uids=True)
    assert names.of("1.2.840.10008") == "1.2.840.10008"
    for text in ("../../x", "=1+1", "1.2\n", "", ".1", "1..2", "CANARY", "1" * 65, "\u0661.2"):
        assert names.of(text) == names.hashed(text)


@given(st.text())
def test_every_text_has_a_name(text):
    name = Names(b"key").of(text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))
    assert len(name) == 64
    assert set(name) <= set("0123456789abcdef")


def test_a_key_is_not_shown():
    assert "secret" not in repr(Names(b"secret"))


def test_the_key_given_wins(tmp_path):
    assert site_key({"MMCLIP_SITE_KEY": " mine\n", "HOME": str(tmp_path)}) == b"mine"
    assert names_in(tmp_path) == []


def test_a_key_is_made_once_and_for_its_owner(tmp_path):
    environment = {"HOME": str(tmp_path)}
    key = site_key(environment)
    file = tmp_path / ".config" / "mmclip" / "site.key"
    assert site_key(environment) == key == file.read_bytes().strip()
    assert len(key) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert names_in(file.parent) == ["site.key"]


def test_two_homes_have_two_keys(tmp_path):
    assert site_key({"HOME": str(tmp_path / "a")}) != site_key({"HOME": str(tmp_path / "b")})


def test_the_configuration_folder_is_where_the_user_says(tmp_path):
    assert config_folder({"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/h"}) == tmp_path / "mmclip"
    assert config_folder({"XDG_CONFIG_HOME": "relative", "HOME": str(tmp_path)}) == tmp_path / ".config" / "mmclip"
    assert config_folder({"HOME": ""}) is None


@pytest.mark.parametrize("environment", [{}, {"HOME": ""}, {"HOME": "/dev/null"}, {"HOME": "/proc/nowhere"}])
def test_without_a_place_for_the_key_it_says_what_to_set(environment):
    with pytest.raises(OutputError, match="MMCLIP_SITE_KEY") as error:
        site_key(environment)
    assert error.value.exit_code == 73


def test_an_empty_key_file_is_never_a_key(tmp_path):
    (tmp_path / "mmclip").mkdir()
    (tmp_path / "mmclip" / "site.key").write_text("\n")
    with pytest.raises(ReadError, match="empty"):
        site_key({"XDG_CONFIG_HOME": str(tmp_path)})
