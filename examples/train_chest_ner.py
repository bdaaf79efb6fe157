"""Train and score chest_ner, the entity recogniser that mmclip ships: a small spaCy NER for diseases and a ruler over the chest lexicon.

    python examples/train_chest_ner.py --corpora FOLDER --out engine/data/shipped/chest_ner

FOLDER holds BC5CDR-disease-IOB and NCBI-disease-IOB, each with train.tsv, devel.tsv and test.tsv: a token and its IOB tag a line, a blank
line between sentences. The NER learns from both train files, the epoch is chosen on both devel files, and the figures printed are of
both official test files. The seed is fixed: the same versions on the same machine write the same pipeline.

After a change of the lexicon alone, give `--ner engine/data/shipped/chest_ner` too: the trained NER stays, the ruler is rebuilt.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import spacy
from chest_lexicon import read_lexicon
from spacy.language import Language
from spacy.training import Example
from spacy.util import compounding, fix_random_seed, minibatch

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Possible set union", category=FutureWarning)
    from scispacy.custom_tokenizer import combined_rule_tokenizer

SEED = 0
VERSION = "1.0.0"
CORPORA = ("BC5CDR-disease", "NCBI-disease")
NER_LABEL = "DISEASE"
NER = {
    "model": {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "ner",
        "extra_state_tokens": False,
        "hidden_width": 64,
        "maxout_pieces": 2,
        "use_upper": True,
        "nO": None,
        "tok2vec": {
            "@architectures": "spacy.HashEmbedCNN.v2",
            "pretrained_vectors": None,
            "width": 96,
            "depth": 4,
            "embed_size": 3000,
            "window_size": 1,
            "maxout_pieces": 3,
            "subword_features": True,
        },
    }
}


@dataclass(frozen=True)
class Sentence:
    """One sentence of a corpus as text, and its entities as characters [start, end)."""

    text: str
    entities: tuple[tuple[int, int], ...]


def read_sentences(file: Path, *, glue: bool = False) -> Iterator[Sentence]:
    """Sentences of an IOB file, words joined by spaces; `glue` joins them as print does: no space around hyphens or before a comma."""
    words: list[tuple[str, str]] = []
    for line in [*file.read_text(encoding="utf-8").splitlines(), ""]:
        if line.strip():
            word, tag = line.split("\t")
            words.append((word, tag))
        elif words:
            yield _sentence(words, glue)
            words = []


def _sentence(words: list[tuple[str, str]], glue: bool) -> Sentence:
    text, entities = "", []
    for place, (word, tag) in enumerate(words):
        before = words[place - 1][0] if place else ""
        tight = glue and (word in {",", ".", ")", "]", ";", ":", "-", "/", "'", "%"} or before in {"(", "[", "-", "/", "'"})
        text += word if tight or not text else f" {word}"
        if tag.startswith("B"):
            entities.append((len(text) - len(word), len(text)))
        elif tag.startswith("I"):  # in both corpora an I always follows its B
            entities[-1] = (entities[-1][0], len(text))
    return Sentence(text, tuple(entities))


def blank_pipeline() -> Language:
    """English with scispacy's tokenizer, which keeps hyphenated words, slashes and formulae whole."""
    nlp = spacy.blank("en")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Possible set union", category=FutureWarning)
        nlp.tokenizer = combined_rule_tokenizer(nlp)
    return nlp


def examples_of(nlp: Language, sentences: Iterable[Sentence]) -> list[Example]:
    """Training examples; an entity that does not meet the tokenizer's borders is left unknown."""
    found = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*\[W030\]")
        for sentence in sentences:
            doc = nlp.make_doc(sentence.text)
            entities = [(start, end, NER_LABEL) for start, end in sentence.entities]
            found.append(Example.from_dict(doc, {"entities": entities}))
    return found


def train_ner(corpora: Path, epochs: int) -> Language:
    """A pipeline with the NER alone, of the epoch with the best mean F1 on the devel files."""
    fix_random_seed(SEED)
    shuffle = random.Random(SEED)
    nlp = blank_pipeline()
    nlp.add_pipe("ner", config=NER)
    files = [corpora / f"{name}-IOB" / "train.tsv" for name in CORPORA]
    plain = [sentence for file in files for sentence in read_sentences(file)]
    glued = [sentence for file in files for sentence in read_sentences(file, glue=True)]
    optimizer = nlp.initialize(lambda: examples_of(nlp, plain[:500]))
    best, kept = -1.0, b""
    for epoch in range(epochs):
        started = time.monotonic()
        # half of the sentences as print sets them and some without capitals or with nothing else: reports come in all of these
        views = [_in_some_case(pair[shuffle.random() < 0.5], shuffle) for pair in zip(plain, glued, strict=True)]
        examples = examples_of(nlp, views)
        shuffle.shuffle(examples)
        losses: dict[str, float] = {}
        for batch in minibatch(examples, size=compounding(16.0, 64.0, 1.01) if not epoch else 64):
            nlp.update(batch, sgd=optimizer, drop=0.3, losses=losses)
        with nlp.use_params(optimizer.averages):
            scores = [score(nlp, read_sentences(corpora / f"{name}-IOB" / "devel.tsv")) for name in CORPORA]
            mean = sum(figures.f1 for figures in scores) / len(scores)
            if mean > best:
                best, kept = mean, nlp.to_bytes()
        devel = ", ".join(f"{name} {figures.f1:.3f}" for name, figures in zip(CORPORA, scores, strict=True))
        print(f"epoch {epoch + 1}: loss {losses['ner']:.0f}, devel F1 {devel}, {time.monotonic() - started:.0f} s", flush=True)
    return nlp.from_bytes(kept)


def load_ner(folder: Path) -> Language:
    """The NER of a saved pipeline, on its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Possible set union", category=FutureWarning)
        return spacy.load(folder, exclude=["entity_ruler"])


def _in_some_case(sentence: Sentence, draw: random.Random) -> Sentence:
    """The sentence as it is, in 15 of 100 cases lower-cased, in 5 upper-cased, where that keeps the number of characters."""
    chance = draw.random()
    text = sentence.text.lower() if chance < 0.15 else sentence.text.upper() if chance < 0.20 else sentence.text
    return Sentence(text, sentence.entities) if len(text) == len(sentence.text) else sentence


@dataclass(frozen=True)
class Figures:
    """Entities found, wanted and right; right = both borders meet and the label is DISEASE."""

    found: int
    wanted: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the entities found that are right."""
        return self.right / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the entities wanted that are found."""
        return self.right / self.wanted if self.wanted else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.right / (self.found + self.wanted) if self.right else 0.0


def score(nlp: Language, sentences: Iterable[Sentence]) -> Figures:
    """Strict entity-level figures on running text; the pipeline cuts the words itself."""
    wanted = list(sentences)
    found = [
        {(span.start_char, span.end_char) for span in doc.ents if span.label_ == NER_LABEL}
        for doc in nlp.pipe((sentence.text for sentence in wanted), batch_size=256)
    ]
    right = sum(len(spans & set(sentence.entities)) for spans, sentence in zip(found, wanted, strict=True))
    return Figures(sum(map(len, found)), sum(len(sentence.entities) for sentence in wanted), right)


LONGEST = {"@misc": "spacy.first_longest_spans_filter.v1"}
RULERS = {
    "longest": ("span_ruler", {"spans_key": None, "annotate_ents": True, "overwrite": False, "ents_filter": LONGEST}),
    "after": ("entity_ruler", {"overwrite_ents": False}),
    "over": ("entity_ruler", {"overwrite_ents": True}),
    "before": ("entity_ruler", {"overwrite_ents": False}),
}
"""Ways to join the entities of NER and lexicon, all measured: the longest of those that overlap, the NER's on a tie (shipped); the NER's;
the lexicon's; the lexicon's, known to the NER while it reads."""


def add_ruler(nlp: Language, way: str = "longest") -> None:
    """Add the lexicon's ruler to a pipeline, in one of the ways of `RULERS`."""
    factory, config = RULERS[way]
    with nlp.select_pipes(disable=nlp.pipe_names):  # the terms pass the tokenizer alone
        place = {"first": True} if way == "before" else {"last": True}
        ruler = nlp.add_pipe(factory, name="entity_ruler", config={"phrase_matcher_attr": "LOWER", **config}, **place)
        ruler.add_patterns([{"label": term.label, "pattern": term.text} for term in read_lexicon()])


def print_scores(title: str, nlp: Language, corpora: Path) -> None:
    """Print the figures of both official test files, a row of a Markdown table each."""
    for name in CORPORA:
        figures = score(nlp, read_sentences(corpora / f"{name}-IOB" / "test.tsv"))
        print(
            f"| {title} | {name} test, {figures.wanted} | {figures.precision:.3f} | {figures.recall:.3f} | {figures.f1:.3f} |", flush=True
        )


def save(nlp: Language, out: Path) -> None:
    """Write the pipeline; its version carries a hash of settings, weights and terms, so that cached entities follow a change of either."""
    parts = [nlp.config.to_str().encode(), *(nlp.get_pipe(name).to_bytes() for name in nlp.pipe_names)]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:8]
    nlp.meta.update(
        name="chest_ner",
        version=f"{VERSION}+{digest}",
        description="Diseases (NER trained on BC5CDR-disease and NCBI-disease) and chest findings, devices and procedures (lexicon)",
        spacy_version=">=3.8.0,<3.9.0",
        license="MIT",
        author="mmclip",
        sources=[{"name": "BC5CDR"}, {"name": "NCBI disease corpus"}, {"name": "examples/chest_lexicon.txt"}],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    nlp.to_disk(out)


def main() -> None:
    """Train, score, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True, help="folder of BC5CDR-disease-IOB and NCBI-disease-IOB")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pipeline")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the training sentences")
    parser.add_argument("--ner", type=Path, help="take the NER of this pipeline instead of training one")
    parser.add_argument("--ruler", choices=list(RULERS), default="longest", help="how entities of NER and lexicon are joined")
    options = parser.parse_args()
    nlp = load_ner(options.ner) if options.ner else train_ner(options.corpora, options.epochs)
    print("| pipeline | entities of | precision | recall | F1 |\n|---|---|---|---|---|")
    print_scores("NER alone", nlp, options.corpora)
    add_ruler(nlp, options.ruler)
    print_scores(f"NER and ruler, {options.ruler}", nlp, options.corpora)
    save(nlp, options.out)


if __name__ == "__main__":
    main()
