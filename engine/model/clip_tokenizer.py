"""The tokenizer of OpenAI's CLIP, from the merges that ship with mmclip, for checkpoints without a vocabulary.

OpenAI's rules: white space becomes one space, lower case; words, single digits and runs of signs are separate; bytes are written as
letters and merged, with `</w>` at the end of a word. 49,408 tokens: 256 bytes, the same at the end of a word, 48,894 merges, SOT and EOT.
As in transformers' fast tokenizer, mangled Unicode (ftfy) and HTML entities are not repaired, and letters are composed (NFC).
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from engine.model.tokenizer import EOT, SOT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MERGES = Path(__file__).parent / "shipped_vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
MERGE_COUNT = 48_894
VOCABULARY = 49_408
WORD_END = "</w>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_tokenizer(context: int) -> PreTrainedTokenizerFast:
    """A fast tokenizer with character offsets; SOT is 49,406, EOT and padding 49,407.

    Args:
        context: the text tower's length in tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary, merges = clip_vocabulary()
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges), end_of_word_suffix=WORD_END, unk_token=EOT))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(WORD_END, " "), decoders.Replace(Regex(" $"), "")])
    sot, eot = vocabulary[SOT], vocabulary[EOT]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{SOT} $A {EOT}", special_tokens=[(SOT, sot), (EOT, eot)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SOT, eos_token=EOT, pad_token=EOT, unk_token=EOT, model_max_length=context
    )


@cache
def clip_vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Token -> id in OpenAI's order, and the merges from first to last."""
    from tokenizers import pre_tokenizers

    lines = gzip.decompress(MERGES.read_bytes()).decode("utf-8").splitlines()[1 : MERGE_COUNT + 1]
    merges = tuple((first, second) for first, second in (line.split() for line in lines))
    letters = _byte_letters()
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + WORD_END for letter in letters), *(first + second for first, second in merges), SOT, EOT]
    return {token: number for number, token in enumerate(tokens)}, merges


def _byte_letters() -> list[str]:
    """The 256 letters that represent bytes, in the order of their ids: printable Latin-1 as itself first, then the rest from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(each) for each in printable] + [chr(0x100 + number) for number in range(256 - len(printable))]
