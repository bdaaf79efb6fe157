"""Tokenizers: a byte-level BPE as CLIP's, trained on a run's own reports or taken from existing weights.

A text becomes SOT, tokens, EOT, then EOT again as padding up to the context length (CLIP's convention). A text that is too long is cut and
keeps its EOT. Offsets are positions in the text as given, so that entity spans are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SOT, EOT = "<|startoftext|>", "<|endoftext|>"


class Tokens(NamedTuple):
    """Token ids, padding and offsets of B texts.

    input_ids: (B, T) int64. padding_mask: (B, T) bool, True = padding. offsets: per text one (start, end) per position, in characters of
    the text as given, without the space before a word; SOT, EOT and padding have (0, 0).
    """

    input_ids: npt.NDArray[np.int64]
    padding_mask: npt.NDArray[np.bool_]
    offsets: list[list[tuple[int, int]]]


def train_tokenizer(texts: Iterable[str], vocab_size: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on `texts`: lower case, NFC, no unknown word. Deterministic in the order of `texts`.

    Args:
        vocab_size: upper limit; few texts may give fewer merges.
        context: T, the text tower's length.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SOT, EOT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    sot, eot = tokenizer.token_to_id(SOT), tokenizer.token_to_id(EOT)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{SOT} $A {EOT}", special_tokens=[(SOT, sot), (EOT, eot)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SOT, eos_token=EOT, pad_token=EOT, unk_token=EOT, model_max_length=context
    )


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int) -> Tokens:
    """Tokens of `texts`, cut to `context` with EOT in the last place and padded to it."""
    eot = tokenizer.eos_token_id
    input_ids = np.full((len(texts), context), eot, dtype=np.int64)
    padding_mask = np.ones((len(texts), context), dtype=np.bool_)
    offsets: list[list[tuple[int, int]]] = []
    if not texts:
        return Tokens(input_ids, padding_mask, offsets)
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=context,
        padding=False,
        return_offsets_mapping=True,
        add_special_tokens=True,
        split_special_tokens=True,  # "<|endoftext|>" in a text is text and must not end it
    )
    for row, (text, ids, spans) in enumerate(zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)):
        input_ids[row, : len(ids)] = ids
        input_ids[row, len(ids) - 1] = eot  # for a tokenizer whose truncation also cuts the EOT
        padding_mask[row, : len(ids)] = False
        inner = [_without_space(text, start, end) for start, end in spans[1 : len(ids) - 1]]
        offsets.append([(0, 0), *inner, *[(0, 0)] * (context - 1 - len(inner))])
    return Tokens(input_ids, padding_mask, offsets)


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    """The same span without the white space that a byte-level token has before its word."""
    while start < end and text[start].isspace():
        start += 1
    return start, end
