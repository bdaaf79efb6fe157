"""One sheet per picture: the picture as the model saw it, and over it the map of each finding, with what the colours mean written below.

Orange where a map is above 0 (the words for the finding fit better than those for its absence), blue where it is below, the picture itself
where it is 0. The hues are Okabe and Ito's vermilion (#D55E00) and blue (#0072B2), which any common colour blindness leaves distinct.
A colour's strength grows linearly with the map's distance from 0. Its full strength is the largest distance among all findings of the sheet
and stands below in figures: findings of one picture may be compared by eye, sheets by their figures alone. What the model did not see is
darkened.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

FOR = (0xD5, 0x5E, 0x00)
AGAINST = (0x00, 0x72, 0xB2)
STRENGTH = 0.65
"""Share of the colour where a map is farthest from 0: the picture must be seen through it."""
UNSEEN = 0.35
"""Share of their brightness that places keep which the model did not see."""
PANEL = 256
"""Longer side of a panel, pixels."""
ACROSS = 4
MOST_MAPS = 15
"""Maps on a sheet; where there are more findings, those of the highest scores."""
_GAP, _TITLE, _LINE = 8, 20, 16


def overlaid(picture: NDArray[np.uint8], values: NDArray[np.float32], full: float) -> NDArray[np.uint8]:
    """(H, W, 3): a picture (H, W) with a map (H, W) over it, at full strength where the map is `full` or more from 0; NaN is darkened."""
    grey = np.repeat(picture[..., None].astype(np.float32), 3, axis=-1)
    seen = np.isfinite(values)
    known = np.where(seen, values, 0)
    hue = np.where(known[..., None] > 0, np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    share = STRENGTH * np.clip(np.abs(known) / full, 0, 1)[..., None] if full > 0 else np.zeros((*values.shape, 1), np.float32)
    mixed = (1 - share) * grey + share * hue
    mixed[~seen] = UNSEEN * grey[~seen]
    result: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return result


def chosen(scores: Mapping[str, float]) -> list[str]:
    """The findings that a sheet shows: all of them in their order, or where they are too many those of the highest scores."""
    highest = set(sorted(scores, key=lambda finding: -scores[finding])[:MOST_MAPS])
    return [finding for finding in scores if finding in highest]


def sheet(
    picture: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float32]],
    scores: Mapping[str, float],
    *,
    lines: Sequence[str],
    texts: Mapping[str, str],
) -> bytes:
    """The sheet as PNG.

    Args:
        picture: uint8 (H, W).
        maps: finding -> (H, W) in [-1, 1], NaN where unseen.
        scores: what the whole picture scored for each of the findings, in [0, 1].
        lines: what is written below the figures of the colours: whose maps these are, what they may be used for.
        texts: keys and values for the file's own text chunks, in Latin-1 and not compressed.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    full = max((float(np.nanmax(np.abs(values))) for values in maps.values() if np.isfinite(values).any()), default=0.0)
    plain = np.full(picture.shape, 0, np.float32)
    panels = [("picture", overlaid(picture, plain, 0.0))]
    panels += [(f"{scores[finding]:.2f}  {finding}", overlaid(picture, values, full)) for finding, values in maps.items()]
    height, width = picture.shape
    size = max(1, round(width * PANEL / max(height, width))), max(1, round(height * PANEL / max(height, width)))
    across = min(ACROSS, len(panels))
    down = -(-len(panels) // across)
    footer = [
        f"orange: for the finding, blue: against it; full colour {full:.3f} from 0, of at most 1",
        "one value per patch, smoothed; it shows neither the finding's outline nor why the score is what it is",
        *lines,
    ]
    font = _font()
    wide = max(across * (size[0] + _GAP) + _GAP, int(max(font.getlength(_plain(line)) for line in footer)) + 2 * _GAP)
    page = Image.new("RGB", (wide, down * (size[1] + _TITLE + _GAP) + _GAP + len(footer) * _LINE + _GAP), "white")
    draw = ImageDraw.Draw(page)
    for place, (title, pixels) in enumerate(panels):
        left = _GAP + place % across * (size[0] + _GAP)
        top = _GAP + place // across * (size[1] + _TITLE + _GAP)
        draw.text((left, top), _fitted(title, size[0], font), "black", font)
        page.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), (left, top + _TITLE))
    for number, line in enumerate(footer):
        draw.text((_GAP, page.height - (len(footer) - number) * _LINE - _GAP), _plain(line), "black", font)
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    stream = io.BytesIO()
    page.save(stream, "PNG", pnginfo=info, compress_level=3)  # a third of the time of level 6, a tenth larger
    return stream.getvalue()


def _font() -> FreeTypeFont | ImageFont:
    """Pillow's own font: no font of the system is needed, and sheets look alike everywhere."""
    from PIL import ImageFont

    return ImageFont.load_default(12)


def _plain(text: str) -> str:
    """The text in letters that the font has."""
    return text.encode("ascii", "replace").decode("ascii")


def _fitted(text: str, width: int, font: FreeTypeFont | ImageFont) -> str:
    """The text, its end cut off where it is wider than `width` pixels."""
    text = _plain(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
