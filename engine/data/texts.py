"""The text bank: every text of the paired images, tokenised and tagged with entities once, before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.data.entities import Span


class SpanFinder(Protocol):
    """What the bank asks of a recogniser (engine/data/entities.py)."""

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The entities of each text, as character spans."""
        ...


@dataclass(frozen=True)
class TextBank:
    """Tokens of V different texts of T places.

    Attributes:
        input_ids: int32 (V, T): SOT, tokens, EOT, padding. EOT is in the last place where a text was cut.
        lengths: int32 (V,): places that are no padding.
        entity_ids: int16 (V, T): 0 = no entity, k = k-th entity whose tokens all were kept.
        places: report key -> indices of its texts in the bank; an index may come twice.
    """

    input_ids: NDArray[np.int32]
    lengths: NDArray[np.int32]
    entity_ids: NDArray[np.int16]
    places: Mapping[str, NDArray[np.int64]]


def text_bank(texts: Mapping[str, Sequence[str]], tokenizer: Any, recogniser: SpanFinder | None, context: int) -> TextBank:
    """Tokenise and tag.

    Args:
        texts: report key -> its texts (`ImageTable.texts`).
        tokenizer: `tokenizers.Tokenizer` or a fast tokenizer of transformers, which puts SOT first and EOT last.
        recogniser: finds entities; None: no text has any.
        context: T, places of the text tower.

    Raises:
        ConfigError: the tokenizer does not frame a text by two special tokens, or `context` leaves no place between them.
    """
    if context < 3:
        raise ConfigError("the text tower is too short", why=f"context {context} has no place between SOT and EOT")
    distinct = list(dict.fromkeys(text for words in texts.values() for text in words))
    index = {text: place for place, text in enumerate(distinct)}
    encodings = _encoder(tokenizer).encode_batch(distinct)
    pad = getattr(tokenizer, "pad_token_id", None)
    input_ids = np.zeros((len(distinct), context), np.int32)
    lengths = np.zeros(len(distinct), np.int32)
    offsets: list[list[tuple[int, int]]] = []
    for place, encoding in enumerate(encodings):
        ids, spans = list(encoding.ids), list(encoding.offsets)
        ids = [*ids[: context - 1], ids[-1]] if len(ids) > context else ids
        spans = [*spans[: context - 1], (0, 0)] if len(spans) > context else spans
        input_ids[place] = ids[-1] if pad is None else pad
        input_ids[place, : len(ids)] = ids
        lengths[place] = len(ids)
        offsets.append(spans)
    entity_ids = np.zeros((len(distinct), context), np.int16)
    if recogniser is not None:
        from engine.data.entities import entity_ids as ids_of

        for place, spans_found in enumerate(recogniser.spans(distinct)):
            entity_ids[place, : len(offsets[place])] = ids_of(spans_found, offsets[place])
    places = {key: np.array([index[text] for text in words], np.int64) for key, words in texts.items()}
    return TextBank(input_ids, lengths, entity_ids, places)


def _encoder(tokenizer: Any) -> Any:
    """The Rust tokenizer, without truncation and padding, which the bank does itself."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(getattr(tokenizer, "backend_tokenizer", tokenizer).to_str())
    encoder.no_truncation()
    encoder.no_padding()
    encoder.encode_special_tokens = True  # "<|endoftext|>" in a text is text: it must not end it
    special = encoder.encode("lungs are clear").special_tokens_mask
    if len(special) < 3 or not special[0] or not special[-1]:
        raise ConfigError(
            "the tokenizer does not put SOT first and EOT last", why="the text tower reads a text off its EOT", hint="a CLIP tokenizer"
        )
    return encoder
