"""Heatmaps: patch-text similarity, for every patch the margin between the positive and the negative prompts of a finding.

e_j is the embedding of patch j: `ln_post` and CLIP's visual projection of the last layer's patch tokens (the paper's E_img, eq 1), brought
to length 1. With the recipe's phrases pooled as they are for its score (engine/model/zero_shot.py), the map is

    softmax_pair, difference     m_j = (a - b) / 2     a, b: e_j's cosines with the positive and the negative words
    cosine                       m_j = a
    a classifier, without words  m_j = 2 sigmoid(W e_j + b) - 1     W, b: its head

in [-1, 1]. By words, 1 is a patch that is the positive words themselves and the opposite of the negative ones, 0 one that is as near to
both, -1 the other way round. It is the margin behind the score of the whole image, for one patch: m_j > 0 where an image
with that embedding would score above 0.5.

Limits. CLIP aligns one token, CLS, with the words. Nothing in training asks that of patch tokens, and by the last layer
attention has mixed the whole image into each of them. So a map shows which patches carry an embedding near the words; that need not be
where the finding is, nor why the image has its score. Published work finds such maps of CLIP noisy and at times inverted (Li et al., CLIP
Surgery, arXiv 2304.05653). examples/measure_pointing.py measures whether they point at findings, and
recipes/README.md has the result for the shipped model. A map is no outline: it has one value per patch, the rest is interpolation.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import NotFinite
from engine.model.head import Head
from engine.model.preprocessing import Preprocessing
from engine.model.zero_shot import Pool, Score, Words, zero_shot

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

    from engine.model.bundle import Bundle


Floats = NDArray[np.float32]


Margins = Callable[[Floats], NDArray[np.float64]]
"""Features (N, D), rows of length 1 -> margins (N, F) in [-1, 1]; each row by itself."""


def word_margins(words: Mapping[str, Words], *, score: Score, pool: Pool) -> Margins:
    """The margins by words, findings in the order of `words`."""
    # `difference` is (2 + a - b) / 4 and `cosine` (1 + a) / 2: both are (1 + m) / 2
    linear: Score = "cosine" if score == "cosine" else "difference"
    return lambda features: 2 * zero_shot(features, words, score=linear, pool=pool, scale=1) - 1


def head_margins(head: Head) -> Margins:
    """The margins by a classifier's head, findings in its order."""
    return lambda features: 2 * head.scores(features) - 1


def heatmaps(bundle: Bundle, images: Sequence[NDArray[np.uint8]], margins_of: Margins) -> Floats:
    """Maps in [-1, 1] on the model's g x g patches: (B, F, g, g) float32 of B uint8 images (H, W) and the F findings of `margins_of`.

    Raises:
        NotFinite: the model gives NaN or infinity.
    """
    features = patch_features(bundle, images)
    count, side = features.shape[:2]
    margins = margins_of(features.reshape(-1, features.shape[-1]))
    margins = margins.reshape(count, side, side, margins.shape[1])
    return np.ascontiguousarray(np.moveaxis(margins, -1, 1), dtype=np.float32)


def patch_features(bundle: Bundle, images: Sequence[NDArray[np.uint8]]) -> Floats:
    """(B, g, g, D) float32, rows of length 1: each patch where `Bundle.image_features` has one row per image.

    Raises:
        NotFinite: the model gives NaN or infinity.
    """
    import torch

    vision = bundle.clip.config.vision_config
    side = vision.image_size // vision.patch_size
    if not len(images):
        return np.empty((0, side, side, bundle.clip.config.projection_dim), np.float32)
    with torch.inference_mode():
        tokens = bundle.clip.vision_model(bundle.pixels(images)).last_hidden_state[:, 1:]
        patches = bundle.clip.visual_projection(bundle.clip.vision_model.post_layernorm(tokens))
        rows: Floats = torch.nn.functional.normalize(patches.float(), dim=-1).cpu().numpy()
    if not np.isfinite(rows).all():
        raise NotFinite("the model gives NaN or infinite features to the patches of an image", hint="another model, or --device cpu")
    return rows.reshape(len(images), side, side, -1)


def heatmaps_on(bundle: Bundle, image: NDArray[np.uint8], findings: Sequence[str], margins_of: Margins) -> dict[str, Floats]:
    """Finding -> its map (H, W) float32 laid over the uint8 image (H, W); values as in `heatmaps`, NaN where the model did not look.

    Args:
        findings: the names of what `margins_of` gives, in its order.

    Raises:
        NotFinite: the model gives NaN or infinity.
    """
    (maps,) = heatmaps(bundle, [image], margins_of)
    laid = onto_picture(maps, image.shape, bundle.preprocessing, bundle.clip.config.vision_config.patch_size)
    return dict(zip(findings, laid, strict=True))


def onto_picture(maps: Floats, shape: tuple[int, ...], preprocessing: Preprocessing, patch: int) -> Floats:
    """Maps (F, g, g) over the model's square, laid over the image of `shape` (H, W) that it was made of: (F, H, W) float32.

    Bilinear between the centres of patches, level beyond the outermost of them. Resizing, padding and cropping are undone: each pixel gets
    the value of the place where the model saw it, NaN where it did not (cropped away).

    Args:
        patch: side of a patch on the model's square, pixels.
    """
    (h, w), (top, left) = preprocessing.placement(shape)
    side = maps.shape[-1]
    down = _weights(shape[0], h, top, side, patch, preprocessing.size)
    across = _weights(shape[1], w, left, side, patch, preprocessing.size)
    laid: Floats = np.einsum("yr,frc,xc->fyx", down, maps, across, optimize=True).astype(np.float32)
    return laid


def _weights(pixels: int, resized: int, offset: int, side: int, patch: int, size: int) -> NDArray[np.float64]:
    """(pixels, side): how much each pixel of one axis takes from each patch of it; NaN rows where it is off the square."""
    place = (np.arange(pixels) + 0.5) * resized / pixels + offset
    patches = np.clip(place / patch - 0.5, 0, side - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(patches[:, None] - np.arange(side)))
    weights[(place < 0) | (place > size)] = np.nan
    return weights


# One sheet per image: the image as the model saw it, and over it the map of each finding, with what the colours mean written below.

FOR = (0xD5, 0x5E, 0x00)
AGAINST = (0x00, 0x72, 0xB2)
STRENGTH = 0.65
"""Share of the colour where a map is farthest from 0: the image must be seen through it."""
UNSEEN = 0.35
"""Share of their brightness that places keep which the model did not see."""
PANEL = 256
"""Longer side of a panel, pixels."""
ACROSS = 4
MOST_MAPS = 15
"""Maps on a sheet; where there are more findings, those of the highest scores."""
_GAP, _TITLE, _LINE = 8, 20, 16


def overlaid(image: NDArray[np.uint8], values: NDArray[np.float32], full: float) -> NDArray[np.uint8]:
    """(H, W, 3): an image (H, W) with a map (H, W) over it, at full strength where the map is `full` or more from 0; NaN is darkened."""
    grey = np.repeat(image[..., None].astype(np.float32), 3, axis=-1)
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
    image: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float32]],
    scores: Mapping[str, float],
    *,
    lines: Sequence[str],
    texts: Mapping[str, str],
) -> bytes:
    """The sheet as PNG.

    Args:
        image: uint8 (H, W).
        maps: finding -> (H, W) in [-1, 1], NaN where unseen.
        scores: what the whole image scored for each of the findings, in [0, 1].
        lines: what is written below the figures of the colours: whose maps these are, what they may be used for.
        texts: keys and values for the file's own text chunks, in Latin-1 and not compressed.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    full = max((float(np.nanmax(np.abs(values))) for values in maps.values() if np.isfinite(values).any()), default=0.0)
    plain = np.full(image.shape, 0, np.float32)
    panels = [("image", overlaid(image, plain, 0.0))]
    panels += [(f"{scores[finding]:.2f}  {finding}", overlaid(image, values, full)) for finding, values in maps.items()]
    height, width = image.shape
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
