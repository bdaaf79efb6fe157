import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pydicom
import pytest

from engine.dicom.codestream import j2k_claim, jpeg_claim
from engine.dicom.gdcm import decode, plain_file
from engine.intake.reader import read_file
from engine.intake.workers import read_files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux'")

LOSSLESS, JPEG_LS, HTJ2K = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.203"


def spectral_end(values: np.ndarray, bits: int = 12) -> bytes:
    """Lossless JPEG whose scan header ends the spectral selection at 63, as for DCT coding (T.81 table B.3 asks for 0)."""
    stream = bytearray(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=bits))
    stream[stream.index(b"\xff\xda") + 8] = 63
    return bytes(stream)


def sampled(values: np.ndarray) -> bytes:
    """JPEG-LS whose only channel has sampling factors 2 x 2, which mean nothing where there is no other channel."""
    stream = bytearray(imagecodecs.jpegls_encode(values))
    stream[stream.index(b"\xff\xf7") + 11] = 0x22
    return bytes(stream)


ODD: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {"lossless": (LOSSLESS, spectral_end), "jpegls": (JPEG_LS, sampled)}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_the_first_decoder_refuses_is_read_in_the_sandbox_and_flagged(
    make: SimpleNamespace, tmp_path: Path, name: str, photometric: str
) -> None:
    uid, encode = ODD[name]
    values = make.chest() if photometric == "MONOCHROME2" else 4095 - make.chest()
    plain = make.radiograph(values, PhotometricInterpretation=photometric, PresentationLUTShape=None)
    odd = make.encapsulated(make.radiograph(values, PhotometricInterpretation=photometric, PresentationLUTShape=None), uid, encode(values))
    paths = [tmp_path / "plain.dcm", tmp_path / "odd.dcm"]
    for path, ds in zip(paths, (plain, odd), strict=True):
        path.write_bytes(make.to_bytes(ds))
    expected, got = read_files(paths, size=64, workers=1)
    assert (got.outcome, got.reason) == ("score", None)
    assert set(got.flags) - set(expected.flags) == {"second_decoder"}
    assert got.pixel_hash == expected.pixel_hash and np.array_equal(got.image, expected.image), "the same values, the same polarity"
    outside = read_file(paths[1], size=64)
    assert (outside.outcome, outside.reason) == ("reject", "decode_error"), "outside a process that may die nobody asks GDCM"


@pytest.mark.parametrize("bits", [8, 9, 12, 15, 16])
def test_its_values_are_the_stored_ones(make: SimpleNamespace, bits: int) -> None:
    values = (make.chest(96, 80).astype(np.uint32) * ((1 << bits) - 1) // 4095).astype(np.uint8 if bits <= 8 else np.uint16)
    wavelets = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k", bitspersample=bits)
    for stream in (wavelets, spectral_end(values, bits), sampled(values)):
        claim = j2k_claim(stream) if stream[:2] == b"\xff\x4f" else jpeg_claim(stream)
        got = decode(stream, claim)
        assert got.dtype == values.dtype and np.array_equal(got, values)


def test_signed_values_stay_signed(make: SimpleNamespace) -> None:
    values = make.chest(96, 80).astype(np.int16) - 2048
    stream = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, codecformat="j2k", bitspersample=16)
    claim = j2k_claim(stream)
    assert claim.signed and np.array_equal(decode(stream, claim), values)


@pytest.mark.parametrize("coding", ["jpeg8", "jpeg12", "lossless", "jpegls", "j2k", "htj2k"])
def test_the_file_it_reads_holds_nothing_of_the_data_set(make: SimpleNamespace, coding: str) -> None:
    values = make.chest()
    stream, last = {
        "jpeg8": (imagecodecs.jpeg8_encode((values >> 4).astype(np.uint8)), "50"),
        "jpeg12": (imagecodecs.jpeg8_encode(values, bitspersample=12), "51"),
        "lossless": (imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=12), "57"),
        "jpegls": (imagecodecs.jpegls_encode(values), "81"),
        "j2k": (imagecodecs.jpeg2k_encode(values, reversible=True, codecformat="j2k", bitspersample=12), "91"),
        "htj2k": (imagecodecs.htj2k_encode(values, reversible=True), "203"),
    }[coding]
    claim = jpeg_claim(stream) if "jpeg" in coding or coding == "lossless" else j2k_claim(stream)
    ds = pydicom.dcmread(io.BytesIO(plain_file(stream, claim)))
    assert ds.file_meta.TransferSyntaxUID == f"1.2.840.10008.1.2.4.{last}"
    assert {element.keyword for element in ds} == {
        *("SOPClassUID", "SOPInstanceUID", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated"),
        *("BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    }
    assert (ds.Rows, ds.Columns, ds.BitsStored, ds.HighBit) == (300, 256, claim.bits, claim.bits - 1)
    assert next(pydicom.encaps.generate_frames(ds.PixelData, number_of_frames=1)).rstrip(b"\0") == stream.rstrip(b"\0")
    assert ds.PhotometricInterpretation == "MONOCHROME2"


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_what_is_cut_or_damaged_stays_rejected(make: SimpleNamespace, tmp_path: Path, name: str, share: float) -> None:
    uid, encode = ODD[name]
    stream = encode(make.chest())
    half = stream[: int(len(stream) * share)]
    ended = half.rstrip(b"\xff") + b"\xff\xd9"  # GDCM fills what is missing with grey, and says so on standard error alone
    contents = [half, ended, stream.replace(b"\xff\xda", b"\xff\xda\xff", 1), b"\xff\xd8 and only text\xff\xd9"]
    paths = [tmp_path / f"{number}.dcm" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(make.to_bytes(make.encapsulated(make.radiograph(), uid, content)))
    readings = list(read_files(paths, size=64, workers=1))
    assert readings[0].reason == "truncated"
    assert all(each.reason in ("truncated", "decode_error") for each in readings[1:])


def test_a_grey_filled_image_of_the_second_decoder_is_no_image(make: SimpleNamespace, tmp_path: Path) -> None:
    """Baseline JPEG with an Adobe segment of five bytes, which Pillow cannot parse and GDCM steps over: whole, cut, and with leftovers."""
    eight = (make.chest() >> 4).astype(np.uint8)
    stream = imagecodecs.jpeg8_encode(eight, level=95)
    odd = stream[:2] + b"\xff\xee\x00\x07Adobe" + stream[2:]
    contents = [odd, odd[: len(odd) // 2].rstrip(b"\xff") + b"\xff\xd9", odd[:-2] + b"\x12\x34" * 20 + b"\xff\xd9"]
    paths = [tmp_path / f"{number}.dcm" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(make.to_bytes(make.encapsulated(make.radiograph(eight, 8), "1.2.840.10008.1.2.4.50", content)))
    whole, cut, left_over = read_files(paths, size=64, workers=1)
    assert whole.outcome == "score" and "second_decoder" in whole.flags
    assert (cut.reason, left_over.reason) == ("decode_error", "decode_error")


def test_colour_and_more_than_16_bits_are_not_for_it(make: SimpleNamespace) -> None:
    eight = (make.chest() >> 4).astype(np.uint8)
    stream = imagecodecs.jpeg8_encode(np.repeat(eight[..., None], 3, -1))
    with pytest.raises(ValueError, match="not for"):
        decode(stream, jpeg_claim(stream))


def test_its_crash_costs_one_file_and_one_worker(make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SimpleITK that dies of a segmentation fault, for real, when it is asked to read."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "SimpleITK.py").write_text("import ctypes\nctypes.string_at(0)\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    good, odd = tmp_path / "good.dcm", tmp_path / "odd.dcm"
    good.write_bytes(make.to_bytes(make.radiograph()))
    odd.write_bytes(make.to_bytes(make.encapsulated(make.radiograph(), JPEG_LS, sampled(make.chest()))))
    assert [each.reason for each in read_files([good, odd, good], size=64, workers=1)] == [None, "decode_crash", None]


def test_nothing_reaches_a_disk_and_files_stay_forbidden(make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for SimpleITK and looks around from where GDCM would be: the file has no name, and no other can be written."""
    probe = """if True:
        import os, resource
        def GetArrayFromImage(image): pass
        class ProcessObject:
            GlobalWarningDisplayOff = SetGlobalDefaultNumberOfThreads = staticmethod(lambda *given: None)
        class ImageFileReader:
            def SetImageIO(self, name): pass
            def SetFileName(self, name): self.name = name
            def Execute(self):
                assert os.readlink(self.name).startswith("/memfd:") and os.stat(self.name).st_nlink == 0
                assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0
                try:
                    with open("LITTER", "wb", buffering=0) as file:
                        file.write(b"x")
                except OSError:
                    os._exit(0)
        """
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "SimpleITK.py").write_text(probe.replace("LITTER", str(tmp_path / "litter")))
    monkeypatch.syspath_prepend(tmp_path / "lib")
    odd = tmp_path / "odd.dcm"
    odd.write_bytes(make.to_bytes(make.encapsulated(make.radiograph(), JPEG_LS, sampled(make.chest()))))
    assert [each.reason for each in read_files([odd], size=64, workers=1)] == ["decode_crash"], "it left at the one place where all holds"
    assert not (tmp_path / "litter").exists() or (tmp_path / "litter").read_bytes() == b""
