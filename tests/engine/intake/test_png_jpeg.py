import io
import struct
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.intake.read_result import ReadResult

Read = Callable[..., ReadResult]


def saved(values: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def grey(make: SimpleNamespace) -> np.ndarray:
    return (make.chest() >> 4).astype(np.uint8)


def test_pictures_are_read_only_where_they_are_asked_for(read: Read, grey: np.ndarray) -> None:
    assert read(saved(grey), "a.png").outcome == "skip"
    got = read(saved(grey), "a.png", plain_images=True)
    assert (got.outcome, got.rows, got.columns, got.modality, got.flags) == ("score", 300, 256, None, ())
    assert got.image is not None and got.image.shape == (75, 64) and got.pixel_hash is not None


def test_png_and_jpeg_of_one_picture_agree(read: Read, grey: np.ndarray) -> None:
    png, jpeg = read(saved(grey), "a.png", plain_images=True), read(saved(grey, "JPEG", quality=95), "misnamed.dcm", plain_images=True)
    assert np.abs(png.image.astype(float) - jpeg.image).mean() < 0.6


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP"])
def test_other_formats_are_the_same_image(read: Read, grey: np.ndarray, kind: str) -> None:
    png = read(saved(grey), "a.png", plain_images=True)
    options = {"lossless": True} if kind == "WEBP" else {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    got = read(saved(grey, kind, **options), "a", plain_images=True)
    assert got.outcome == "score", got.reason
    np.testing.assert_array_equal(got.image, png.image)


def test_tiff_of_sixteen_bits_of_either_order_and_what_is_refused(make: SimpleNamespace, read: Read, grey: np.ndarray) -> None:
    deep = make.chest()
    png = read(saved(deep), "a.png", plain_images=True)
    for kind in (deep, deep.astype(np.int32)):
        np.testing.assert_array_equal(read(saved(kind, "TIFF"), "a.tif", plain_images=True).image, png.image)
    stream = io.BytesIO()
    Image.fromarray(deep.astype(">u2")).save(stream, "TIFF")
    np.testing.assert_array_equal(read(stream.getvalue(), "a.tif", plain_images=True).image, png.image)
    assert read(saved(deep.astype(np.float32), "TIFF"), "a.tif", plain_images=True).reason == "unsupported_bits"
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "TIFF", save_all=True, append_images=[Image.fromarray(grey)])
    assert read(stream.getvalue(), "a.tif", plain_images=True).reason == "multi_frame"
    assert read(saved(grey, "TIFF")[:-3000], "a.tif", plain_images=True).reason in ("truncated", "decode_error")


def test_sixteen_bits_are_scaled_by_the_range_they_use(make: SimpleNamespace, read: Read) -> None:
    twelve = make.chest()
    got = read(saved(twelve), "a.png", plain_images=True)
    assert got.image.min() < 10 and got.image.max() > 245, "an 8-bit conversion would clip or blacken it"
    louder = read(saved((twelve * 15).astype(np.uint16)), "a.png", plain_images=True)
    assert np.abs(got.image.astype(float) - louder.image).mean() < 0.6


def test_grey_in_colour_is_read_and_colour_is_not(read: Read, grey: np.ndarray) -> None:
    three = np.repeat(grey[..., None], 3, -1)
    got = read(saved(three), "a.png", plain_images=True)
    assert got.flags == ("color_as_grey",) and got.outcome == "score"
    assert read(saved(np.stack([grey, 255 - grey, grey], -1)), "a.png", plain_images=True).reason == "color_image"


def test_pictures_that_cannot_be_used(read: Read, grey: np.ndarray) -> None:
    from engine.intake.limits import Limits

    noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    assert read(saved(noise)[:-20000], "a.png", plain_images=True).reason == "truncated"
    assert read(saved(noise, "JPEG")[:-9000], "a.jpg", plain_images=True).reason == "truncated"
    assert read(saved(grey[:40]), "a.png", plain_images=True).reason == "too_small"
    assert read(saved(np.full((100, 100), 7, np.uint8)), "a.png", plain_images=True).reason == "degenerate_image"
    assert read(saved(grey), "a.png", plain_images=True, limits=Limits(pixels=1000)).reason == "resource_limit"


def test_our_limit_of_pixels_counts_and_not_pillow_s(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (100, 100), dtype=np.uint8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it refuses twice as many
    assert read(saved(grey), "a.png", plain_images=True).outcome == "score"
    assert Image.MAX_IMAGE_PIXELS == 100
    assert read(b"GIF89a" + b"\0" * 100, "a.gif", plain_images=True).reason == "not_dicom"


def png(values: np.ndarray, depth: int, color: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of samples (h, w) or (h, w, channels) in any bit depth and colour type, with more chunks before its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows, columns = values.shape[:2]
    if depth == 16:
        lines = values.reshape(rows, -1).astype(">u2").view(np.uint8)
    elif depth == 8:
        lines = values.reshape(rows, -1).astype(np.uint8)
    else:
        bits = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        lines = np.packbits(bits.reshape(rows, -1), axis=1)
    raw = b"".join(b"\0" + line.tobytes() for line in lines)
    head = struct.pack(">IIBBBBB", columns, rows, depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *(chunk(*more) for more in chunks), chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def shown(reading: ReadResult) -> np.ndarray:
    assert reading.image is not None, reading.reason
    return reading.image.astype(float)


GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_few_bits_are_shown_as_they_are(read: Read, grey: np.ndarray, depth: int) -> None:
    few = grey >> (8 - depth)
    got = read(png(few, depth, GREY), "a.png", plain_images=True)
    whole = read(saved((few * (255 // (2**depth - 1))).astype(np.uint8)), "a.png", plain_images=True)
    assert np.array_equal(shown(got), shown(whole)) and got.flags == whole.flags  # a drawing in four greys may be no chest by its looks


def test_one_bit_is_no_radiograph(read: Read, grey: np.ndarray) -> None:
    assert read(png(grey >> 7, 1, GREY), "a.png", plain_images=True).reason == "unsupported_bits"


def test_sixteen_bits_keep_all_of_them_whatever_the_channels(make: SimpleNamespace, read: Read) -> None:
    """Pillow cuts 16 bits of several channels down to 8: of 12 bits in 16 four would be left."""
    twelve = make.chest()
    plain = shown(read(png(twelve, 16, GREY), "a.png", plain_images=True))
    opaque = np.full_like(twelve, 65535)
    for values, color in (
        (np.stack([twelve] * 3, -1), RGB),
        (np.stack([twelve, opaque], -1), GREY_ALPHA),
        (np.stack([twelve] * 3 + [opaque], -1), RGB_ALPHA),
    ):
        got = read(png(values, 16, color), "a.png", plain_images=True)
        assert np.array_equal(shown(got), plain)
        assert got.flags == (("color_as_grey",) if color != GREY_ALPHA else ())
    tinted = np.stack([twelve, twelve // 2, twelve], -1)
    assert read(png(tinted, 16, RGB), "a.png", plain_images=True).reason == "color_image"


def test_a_palette_of_greys_is_grey(read: Read, grey: np.ndarray) -> None:
    turned = (b"PLTE", np.repeat(np.arange(255, -1, -1, dtype=np.uint8), 3).tobytes())
    got = read(png(255 - grey, 8, PALETTE, turned), "a.png", plain_images=True)
    assert np.array_equal(shown(got), shown(read(saved(grey), "a.png", plain_images=True)))
    colours = (b"PLTE", np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert read(png(grey, 8, PALETTE, colours), "a.png", plain_images=True).reason == "color_image"


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_transparent_is_black(make: SimpleNamespace, read: Read, deep: bool) -> None:
    values, depth, white = (make.chest(), 16, 65535) if deep else ((make.chest() >> 4).astype(np.uint8), 8, 255)
    alpha = np.full_like(values, white)
    alpha[:, :128] = 0
    got = read(png(np.stack([values, alpha], -1), depth, GREY_ALPHA), "a.png", plain_images=True)
    assert shown(got)[:, :28].max() < 2 and shown(got)[:, 34:].std() > 20
    nowhere = read(png(np.stack([values, alpha * 0], -1), depth, GREY_ALPHA), "a.png", plain_images=True)
    assert np.array_equal(shown(nowhere), shown(read(png(values, depth, GREY), "a.png", plain_images=True))), (
        "an alpha of one value hides nothing"
    )


def test_what_a_screen_should_look_like_changes_no_grey(read: Read, grey: np.ndarray) -> None:
    plain = shown(read(saved(grey), "a.png", plain_images=True))
    profile = (b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 200))
    for chunk in ((b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\1"), profile, (b"tRNS", struct.pack(">H", int(grey[100, 100])))):
        assert np.array_equal(shown(read(png(grey, 8, GREY, chunk), "a.png", plain_images=True)), plain), chunk[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied(read: Read, grey: np.ndarray, kind: str, orientation: int) -> None:
    """What the file holds is what a camera held that way writes of the upright picture."""
    held = {
        1: grey, 2: grey[:, ::-1], 3: grey[::-1, ::-1], 4: grey[::-1], 5: grey.T, 6: np.rot90(grey, 1), 7: grey[::-1, ::-1].T,
        8: np.rot90(grey, 3),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = read(saved(np.ascontiguousarray(held), kind, exif=exif), "a", plain_images=True)
    upright = read(saved(grey, kind), "a", plain_images=True)
    assert (got.rows, got.columns) == grey.shape
    assert np.abs(shown(got) - shown(upright)).mean() < 0.5


def test_broken_exif_is_no_part_of_the_picture(read: Read, grey: np.ndarray) -> None:
    broken = (b"eXIf", b"MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x02\xff\xff\xff\xff")
    assert read(png(grey, 8, GREY, broken), "a.png", plain_images=True).outcome == "score"


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"quality": 95, "subsampling": 2}, {"optimize": True}, {"restart_marker_rows": 1}]
)
def test_jpeg_of_every_make(read: Read, grey: np.ndarray, options: dict[str, int]) -> None:
    plain = shown(read(saved(grey), "a.png", plain_images=True))
    three = np.repeat(grey[..., None], 3, -1)
    for values in (grey, three):
        got = read(saved(values, "JPEG", **{"quality": 92, **options}), "a.jpg", plain_images=True)
        assert np.abs(shown(got) - plain).mean() < 1


def test_jpeg_in_inks(read: Read, grey: np.ndarray) -> None:
    inks = np.stack([np.zeros_like(grey)] * 3 + [255 - grey], -1)
    stream = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(stream, "JPEG", quality=95)
    got = read(stream.getvalue(), "a.jpg", plain_images=True)
    assert np.abs(shown(got) - shown(read(saved(grey), "a.png", plain_images=True))).mean() < 1


@pytest.mark.parametrize(
    "encode",
    [
        lambda v: imagecodecs.jpeg8_encode(v, level=98, bitspersample=12),
        lambda v: imagecodecs.jpeg8_encode(v, lossless=True, bitspersample=12),
        lambda v: imagecodecs.jpegls_encode(v),
    ],
    ids=["12 bit", "lossless", "JPEG-LS"],
)
def test_jpeg_deeper_than_eight_bits(make: SimpleNamespace, read: Read, encode: Callable[[np.ndarray], bytes]) -> None:
    got = read(encode(make.chest()), "a.jpg", plain_images=True)
    assert np.abs(shown(got) - shown(read(saved(make.chest()), "a.png", plain_images=True))).mean() < 0.6
    assert read(encode(make.chest(40, 300)), "a.jpg", plain_images=True).reason == "too_small"


def test_several_pictures_in_one_file(read: Read, grey: np.ndarray) -> None:
    first, second = Image.fromarray(grey), Image.fromarray(grey[:, ::-1])
    stream = io.BytesIO()
    first.save(stream, "PNG", save_all=True, append_images=[second])
    assert read(stream.getvalue(), "a.png", plain_images=True).reason == "multi_frame"
    stream = io.BytesIO()
    first.save(stream, "MPO", save_all=True, append_images=[second], quality=95)
    got = read(stream.getvalue(), "a.jpg", plain_images=True)
    assert np.abs(shown(got) - shown(read(saved(grey, "JPEG", quality=95), "a.jpg", plain_images=True))).mean() < 0.5


def test_a_claim_of_a_huge_picture_costs_nothing(read: Read) -> None:
    def huge(depth: int, color: int) -> bytes:
        small = bytearray(png(np.zeros((64, 64), np.uint8), 8, GREY))
        small[16:26] = struct.pack(">IIBB", 65500, 65500, depth, color)
        small[29:33] = struct.pack(">I", zlib.crc32(bytes(small[12:29])))
        return bytes(small)

    for depth, color in ((8, GREY), (16, RGB_ALPHA), (8, RGB)):
        assert read(huge(depth, color), "a.png", plain_images=True).reason == "resource_limit"
    wide = saved(np.zeros((64, 64), np.uint8), "JPEG")
    at = wide.index(b"\xff\xc0") + 5
    assert read(wide[:at] + struct.pack(">HH", 65500, 65500) + wide[at + 4 :], "a.jpg", plain_images=True).reason == "resource_limit"


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("color", [GREY, RGB])
def test_a_png_that_breaks_off_has_one_reason(read: Read, depth: int, color: int) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << depth, (200, 200), dtype=np.uint16)
    content = png(np.stack([noise] * 3, -1) if color == RGB else noise, depth, color)
    assert read(content, "a.png", plain_images=True).outcome == "score"
    assert read(content[: len(content) // 2], "a.png", plain_images=True).reason == "truncated"
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    assert read(bytes(flipped), "a.png", plain_images=True).reason in ("decode_error", "truncated")


def test_an_interlaced_png_is_the_same_picture(read: Read, grey: np.ndarray) -> None:
    """Adam7, by hand: Pillow writes none."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    raw = b"".join(b"\0" + line.tobytes() for top, left, down, across in passes for line in grey[top::down, left::across])
    content = bytearray(png(grey, 8, GREY))
    content[28] = 1
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    packed = zlib.compress(raw)
    idat = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    interlaced = bytes(content[:33]) + idat + bytes(content[-12:])
    assert np.array_equal(shown(read(interlaced, "a.png", plain_images=True)), shown(read(saved(grey), "a.png", plain_images=True)))


def test_a_picture_file_is_what_the_same_pixels_are_in_dicom(make: SimpleNamespace, read: Read, grey: np.ndarray) -> None:
    for values, bits in ((grey, 8), (make.chest(), 16)):
        bare = make.radiograph(values, bits, WindowCenter=None, WindowWidth=None)
        assert np.array_equal(shown(read(saved(values), "a.png", plain_images=True)), shown(read(bare, "a.dcm")))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_jpeg_that_was_cut_and_closed_again_is_truncated(read: Read, grey: np.ndarray, share: float, lossless: bool) -> None:
    stream = imagecodecs.jpeg8_encode(grey, lossless=True) if lossless else saved(grey, "JPEG", quality=95)
    closed = stream[: 700 + int((len(stream) - 700) * share)].rstrip(b"\xff") + b"\xff\xd9"
    assert read(stream, "whole.jpg", plain_images=True).outcome == "score"
    assert read(closed, "cut.jpg", plain_images=True).reason == "truncated"
