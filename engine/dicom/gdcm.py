"""The second decoder: GDCM, through SimpleITK, for codestreams that the first decoder raised an error for. Only sandbox.py hands it out.

GDCM never sees a hostile file. It reads a DICOM file written here, which holds nothing but the codestream and what the codestream's own
frame header says of it (checked against the data set before any decoder ran): its encoding, rows, columns, bits and sign. One channel,
MONOCHROME2, no rescale, no window: SimpleITK inverts MONOCHROME1 by itself and applies a rescale, so that polarity and values are right
here because there is nothing to apply. What the data set says of them is applied afterwards, as to every other image.

That file is an anonymous one in memory (memfd_create), named by no folder and gone with the process, however that ends. Linux only:
elsewhere there is no second decoder. RLE has none either: a frame that codestream.rle_segments accepts is read or is damaged.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from engine.dicom.codestream import Claim
from engine.dicom.selection import SECONDARY_CAPTURE

_SYNTAX = {"lossless": "57", "jpegls": "81", "j2k": "91", "htj2k": "203"}
"""Coding -> last part of the transfer syntax UID that allows all of it; JPEG goes by its bits."""
_ANY_INSTANCE = "1.2.3"
_RAN_OUT = re.compile(rb"premature end|bad Huffman code|instead of RST", re.IGNORECASE)
_LEFT_OVER, _SPARE = re.compile(rb"(\d+) extraneous bytes"), 16
"""What GDCM's libjpeg says on standard error while it fills a damaged image with grey and returns it as if it were whole."""


def decode(stream: bytes | memoryview, claim: Claim) -> NDArray[Any]:
    """The values (rows, columns) of a codestream of one channel, as GDCM reads them.

    Raises:
        ValueError: more than one channel or 16 bits, other values or another shape than claimed, a stream that ended early; no Linux.
        RuntimeError: GDCM's own errors.
        OSError, ImportError: no room in memory for the file, or for GDCM.
    """
    if claim.samples != 1 or claim.bits > 16 or sys.platform != "linux":
        raise ValueError("not for the second decoder")
    import SimpleITK

    SimpleITK.ProcessObject.GlobalWarningDisplayOff()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with _in_memory(plain_file(stream, claim)) as name, _overheard() as said:
        reader.SetFileName(name)
        values: NDArray[Any] = SimpleITK.GetArrayFromImage(reader.Execute())
    if _RAN_OUT.search(said) or any(int(lost) > _SPARE for lost in _LEFT_OVER.findall(said)):
        raise ValueError("a image of less than the whole of the codestream")
    if values.shape != (1, claim.rows, claim.columns) or values.dtype.kind not in "iu":
        raise ValueError("not the image that the codestream claims")
    low, high = (-1 << (claim.bits - 1), 1 << (claim.bits - 1)) if claim.signed else (0, 1 << claim.bits)
    if int(values.min()) < low or int(values.max()) >= high:
        raise ValueError("values of more bits than the codestream claims")
    result: NDArray[Any] = values[0].astype(f"<{'i' if claim.signed else 'u'}{1 if claim.bits <= 8 else 2}")
    return result


def plain_file(stream: bytes | memoryview, claim: Claim) -> bytes:
    """A DICOM file (PS3.10) of one encapsulated frame and the attributes that say how to read it, no others."""
    last = _SYNTAX.get(claim.coding) or ("50" if claim.bits == 8 else "51")
    meta = _element(0x0002, 0x0010, b"UI", f"1.2.840.10008.1.2.4.{last}".encode())
    allocated = 8 if claim.bits <= 8 else 16
    numbers = {
        0x0010: claim.rows,
        0x0011: claim.columns,
        0x0100: allocated,
        0x0101: claim.bits,
        0x0102: claim.bits - 1,
        0x0103: claim.signed,
    }
    padding = b"\0" * (len(stream) % 2)
    return b"".join(
        [
            b"\0" * 128 + b"DICM",
            _element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta))),
            meta,
            _element(0x0008, 0x0016, b"UI", SECONDARY_CAPTURE.encode()),
            _element(0x0008, 0x0018, b"UI", _ANY_INSTANCE.encode()),
            _element(0x0028, 0x0002, b"US", struct.pack("<H", 1)),
            _element(0x0028, 0x0004, b"CS", b"MONOCHROME2"),
            *(_element(0x0028, element, b"US", struct.pack("<H", number)) for element, number in numbers.items()),
            struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF),
            struct.pack("<HHI", 0xFFFE, 0xE000, 0),  # an empty offset table
            struct.pack("<HHI", 0xFFFE, 0xE000, len(stream) + len(padding)),
            stream,
            padding,
            struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
        ]
    )


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of an anonymous file in memory. Its size counts as a file's: the limit of sandbox.py is raised while it is written."""
    import resource

    handle = os.memfd_create("image")
    try:
        most = resource.getrlimit(resource.RLIMIT_FSIZE)
        if most[0] != resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(content), most[1]))
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


@contextlib.contextmanager
def _overheard() -> Iterator[bytearray]:
    """What native code writes to standard error meanwhile, complete once this is left; more than a pipe holds (64 kB) is lost."""
    said = bytearray()
    hear, speak = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = os.dup(2)
    try:
        os.dup2(speak, 2)
        yield said
    finally:
        os.dup2(before, 2)
        with contextlib.suppress(BlockingIOError):
            said += os.read(hear, 1 << 16)
        for handle in (hear, speak, before):
            os.close(handle)
