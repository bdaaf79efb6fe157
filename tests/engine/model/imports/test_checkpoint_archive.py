"""A checkpoint's zip: its directory is believed only as far as the file bears it out."""

import io
import struct
import tarfile
import zipfile

import pytest
import torch

from engine.errors import ModelError, ReadError
from engine.model.imports.checkpoint import MOST_PICKLE_BYTES, TorchArchive


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "toy.pt"
    torch.save({"a": torch.arange(6.0), "b": torch.ones(3, dtype=torch.int64)}, path)
    return path


def test_records_come_out_as_they_went_in(saved):
    with TorchArchive(saved) as archive:
        assert not archive.is_script
        assert archive.pickle().endswith(b".")
        assert archive.record_size("data/0") == 24
        assert archive.record_size("data/7") is None
        assert torch.frombuffer(archive.read("data/0"), dtype=torch.float32).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_torchscript_archive_is_known_by_its_constants(saved, tmp_path, repacked):
    with TorchArchive(repacked(saved, tmp_path / "script.pt", {"constants.pkl": b"\x80\x02)."})) as archive:
        assert archive.is_script


@pytest.mark.parametrize("length", [0, 3, 30, 100, 400, -1, -22, -60])
def test_a_truncated_file_is_refused(saved, length):
    raw = saved.read_bytes()
    saved.write_bytes(raw[:length])
    with pytest.raises(ModelError, match=r"toy\.pt is (truncated|no checkpoint)"):
        TorchArchive(saved).pickle()


def test_a_flipped_bit_in_a_record_is_found_by_its_checksum(saved):
    raw = bytearray(saved.read_bytes())
    place = raw.index(struct.pack("<6f", 0, 1, 2, 3, 4, 5))
    raw[place + 9] ^= 1
    saved.write_bytes(raw)
    with TorchArchive(saved) as archive, pytest.raises(ModelError, match="its record data/0 is missing or damaged"):
        archive.read("data/0")


def test_a_missing_record_is_named(saved):
    with TorchArchive(saved) as archive, pytest.raises(ModelError, match="its record data/9 is missing or damaged"):
        archive.read("data/9")


def test_a_compressed_record_is_refused_before_it_is_unpacked(saved, tmp_path, repacked):
    bomb = repacked(saved, tmp_path / "bomb.pt", {"data/0": bytes(200_000_000)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(ModelError, match="is compressed, which torch never does with weights"):
        TorchArchive(bomb)


def test_records_that_share_their_bytes_are_refused(saved, tmp_path, repacked):
    """The directory of a zip may point at one record from many names."""
    path = repacked(saved, tmp_path / "many.pt", {"data/0": bytes(4000)})
    with zipfile.ZipFile(path, "a") as file:
        whole = next(each for each in file.infolist() if each.filename.endswith("data/0"))
        for number in range(10, 40):
            again = zipfile.ZipInfo(whole.filename[:-1] + str(number))
            again.header_offset, again.file_size, again.compress_size, again.CRC = whole.header_offset, 4000, 4000, whole.CRC
            file.filelist.append(again)
            file.NameToInfo[again.filename] = again
        file._didModify = True
    with pytest.raises(ModelError, match="its records claim more bytes than the file has"):
        TorchArchive(path)


def test_a_directory_that_lies_about_a_size_is_refused(saved):
    raw = saved.read_bytes()
    size = struct.pack("<II", 24, 24)
    assert raw.count(size) >= 1
    saved.write_bytes(raw.replace(size, struct.pack("<II", 2**31, 2**31)))
    with pytest.raises(ModelError, match="claim more bytes than the file has"):
        TorchArchive(saved)


def test_two_records_of_one_name_are_refused(saved):
    with zipfile.ZipFile(saved, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr(next(each for each in file.namelist() if each.endswith("data/0")), bytes(24))
    with pytest.raises(ModelError, match="two records share a name"):
        TorchArchive(saved)


def test_a_pickle_of_unusual_size_is_not_read(saved, tmp_path, repacked):
    with (
        TorchArchive(repacked(saved, tmp_path / "long.pt", {"data.pkl": bytes(MOST_PICKLE_BYTES + 1)})) as archive,
        pytest.raises(ModelError, match=r"its data\.pkl has 16,000,001 bytes"),
    ):
        archive.pickle()


def test_a_big_endian_file_is_refused(saved, tmp_path, repacked):
    with pytest.raises(ModelError, match="big-endian"):
        TorchArchive(repacked(saved, tmp_path / "big.pt", {"byteorder": b"big"}))


def test_a_byte_order_that_cannot_be_read_is_damage(saved):
    raw = saved.read_bytes()
    place = raw.index(b"little")
    saved.write_bytes(raw[:place] + b"lottle" + raw[place + 6 :])
    with pytest.raises(ModelError, match="its directory cannot be read"):
        TorchArchive(saved)


def test_torch_s_old_format_is_refused_with_a_way_on(tmp_path, canary):
    old = tmp_path / "old.pt"
    torch.save({"a": torch.ones(2), "evil": canary}, old, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"what torch before 1\.6 saved.*no pickle is run here.*weights_only=True"):
        TorchArchive(old)
    assert not canary.folder.exists()


def test_other_files_are_refused_as_what_they_are(tmp_path):
    path = tmp_path / "toy.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("letter.txt", "no weights")
    with pytest.raises(ModelError, match=r"is a zip and no checkpoint of torch: it holds no data\.pkl"):
        TorchArchive(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match="is a Git-LFS pointer, not the weights"):
        TorchArchive(path)
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("sys_info"), io.BytesIO())
    with pytest.raises(ModelError, match="neither a zip of torch"):
        TorchArchive(path)


def test_a_file_that_cannot_be_opened_is_a_read_error(tmp_path):
    with pytest.raises(ReadError, match="cannot read"):
        TorchArchive(tmp_path)
