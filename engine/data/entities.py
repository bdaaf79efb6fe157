"""Entities of a report (EntMLM, eqs 10-11): recognised spans of characters, and the BPE tokens they fall on.

The shipped recogniser `chest_ner` is a small spaCy pipeline of ours (see shipped/chest_ner/README.md); any installed scispaCy model,
as in the paper, goes by its name. Text is searched as it is tokenised: what `reports.clean` returns.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import ConfigError

if TYPE_CHECKING:
    from spacy.language import Language

SHIPPED = Path(__file__).with_name("shipped")
LONGEST_TEXT = 100_000
"""Characters of a text that are searched. The text tower keeps 77 tokens; spaCy refuses texts of a million characters."""
NO_ENTITIES = ("tagger", "parser", "attribute_ruler", "lemmatizer")
"""Parts of scispaCy's and spaCy's models that find no entities and that their NER does not need."""


@dataclass(frozen=True)
class Span:
    """One entity: characters [start, end) of the text, those characters, and its label (of chest_ner: a disease,
    finding, device or procedure)."""

    start: int
    end: int
    text: str
    label: str


class Recogniser:
    """A loaded spaCy pipeline. `name` and `version` say what a cache of its spans depends on."""

    def __init__(self, name: str, nlp: Language) -> None:
        self.name = name
        self.version = str(nlp.meta.get("version", ""))
        self._nlp = nlp

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """Entities of each text, in text order; spans of one text do not overlap and never start or end in white space."""
        docs = self._nlp.pipe((text[:LONGEST_TEXT] for text in texts), batch_size=64)
        return [[Span(found.start_char, found.end_char, found.text, found.label_) for found in doc.ents] for doc in docs]


def load_recogniser(name: str = "chest_ner") -> Recogniser:
    """The recogniser called `name`: a shipped one, an installed spaCy or scispaCy model, or a folder that holds one.

    Raises:
        ConfigError: no such model, or one that spaCy cannot load.
    """
    import spacy

    shipped = SHIPPED / name
    place: str | Path = shipped if (shipped / "meta.json").is_file() else name
    try:
        with warnings.catch_warnings():
            # scispacy's tokenizer holds a regular expression with "||" in a set, on which Python's `re` comments while the pipeline loads
            warnings.filterwarnings("ignore", message="Possible set union", category=FutureWarning)
            # the ruler sends its terms through the pipes before it while it loads; with the NER asleep they pass the tokenizer alone
            nlp = spacy.load(place, disable=["ner", *NO_ENTITIES])
            if "ner" in nlp.disabled:
                nlp.enable_pipe("ner")
    except (OSError, ValueError, KeyError, ImportError) as error:
        if isinstance(place, Path) or Path(name).exists() or spacy.util.is_package(name):
            why = str(error).strip().splitlines()[0].rstrip(".")
            raise ConfigError(
                f"the entity model {name} cannot be loaded", why=why, hint="the shipped model, entities: chest_ner"
            ) from error
        raise ConfigError(
            f"no entity model is called {name}",
            why="it is neither shipped, nor an installed spaCy model, nor a folder",
            hint="entities: chest_ner, or install a scispaCy model from the release files of its project and name it or its folder",
        ) from error
    return Recogniser(name, nlp)


def entity_ids(spans: Sequence[Span], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The entity that each BPE token belongs to: 0 is none, k the k-th entity in text order, counted from 1 (eq 10).

    A token belongs to an entity when their characters overlap; one of white space alone, (k, k) after trimming, when it is within. Of
    spans that overlap each other the longest stays. An entity that the truncation cut, so that some of its tokens are not among
    `offsets`, is dropped whole and does not count.

    Args:
        spans: entities of the text.
        offsets: characters [start, end) of each token kept, in the same text; (0, 0) for SOT, EOT and padding.

    Returns:
        one number per token, in the order of `offsets`.
    """
    kept = [(start, end) for start, end in offsets if end > start]
    first, last = min((start for start, _ in kept), default=0), max((end for _, end in kept), default=0)
    ids = [0] * len(offsets)
    count = 0
    for span in _apart(spans):
        if span.start < first or span.end > last or _may_be_cut(span, last):
            continue
        places = [place for place, (start, end) in enumerate(offsets) if start < span.end and end > span.start and not ids[place]]
        if places:
            count += 1
            for place in places:
                ids[place] = count
    return ids


def _apart(spans: Sequence[Span]) -> list[Span]:
    """Spans that do not overlap, in text order: a span gives way to a longer one, and to an earlier one of its own length."""
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start - span.end, span.start)):
        if span.end > span.start and all(span.end <= other.start or span.start >= other.end for other in chosen):
            chosen.append(span)
    return sorted(chosen, key=lambda span: span.start)


def _may_be_cut(span: Span, last: int) -> bool:
    """Whether the last character kept ends the span and is one that a byte-level BPE may spread over several tokens, the last of them cut.

    All those tokens carry the offsets of the one character, so that offsets cannot tell; no entity is better than half of one.
    """
    return span.end == last and not span.text[-1:].isascii()
