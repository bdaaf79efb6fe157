import csv
import hashlib
import json
import lzma
import unicodedata
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from engine.data.entities import SHIPPED, Span, entity_ids, load_recogniser
from engine.data.reports import clean
from engine.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
REAL_REPORTS = ROOT.parent / "shared" / "data" / "reports" / "iu_reports.csv.xz"
CONTEXT = 77

SENTENCES = [
    "The heart is mildly enlarged. Small bilateral pleural effusions, a right-sided PICC line and left lower lobe consolidation.",
    "NO PNEUMOTHORAX. STERNOTOMY WIRES ARE INTACT. MILD DEGENERATIVE CHANGES OF THE THORACIC SPINE.",
    "Low lung volumes with bibasilar atelectasis; no focal air-space opacity/consolidation (see above).",
    "Tuberculosis, old granulomatous disease and Duchenne muscular dystrophy were raised as questions; 5mm nodule at the apex.",
    "Cardiomégalie légère, œdème; the patient's İnfection and Straße\u0301 remain unclear, 3 × 4 cm mass.",
]

texts = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("İßſéA\u0301ÅΣς\u1e9eﬁŉ가 .,-/()\n3aBe")),
        st.characters(exclude_categories=("Cs",)),
        st.sampled_from("abcdeABCDE    "),
    ),
    max_size=60,
)


@pytest.fixture(scope="module")
def lexicon(script):
    return script("examples/chest_lexicon.py")


@pytest.fixture(scope="module")
def recogniser():
    return load_recogniser()


@pytest.fixture(scope="module")
def tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens=["<s>", "</s>"]
    )
    bpe.train_from_iterator(SENTENCES * 3, trainer)
    bpe.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]),
        ]
    )
    return bpe


def spans_at(text, *borders):
    return [Span(start, end, text[start:end], "FINDING") for start, end in borders]


def cut_to(encoding, places):
    """Ids and offsets of at most that many places, the last of them EOT, as the text tower keeps them."""
    ids, offsets = list(encoding.ids), list(encoding.offsets)
    return (ids, offsets) if len(ids) <= places else ([*ids[: places - 1], ids[-1]], [*offsets[: places - 1], (0, 0)])


def check_places(text, spans, tokenizer, places):
    """Every span of `spans` (which do not overlap) is marked on all of its tokens and on no other, or was cut and is not marked at all."""
    whole = tokenizer.encode(text)
    _, offsets = cut_to(whole, places)
    marks = entity_ids(spans, offsets)
    assert len(marks) == len(offsets) and all(mark == 0 for mark, offset in zip(marks, offsets, strict=True) if offset == (0, 0))
    kept = [index < len(offsets) - 1 for index in range(len(whole.ids))]
    number = 0
    taken = set()
    for span in spans:
        mine = {
            index
            for index, (start, end) in enumerate(whole.offsets)
            # a token of white space alone has no characters left after the tokenizer trimmed it: (k, k)
            if set(range(start, end)) & set(range(span.start, span.end)) or span.start < start == end < span.end
        } - taken
        if not mine or not all(kept[index] for index in mine):
            continue
        last_kept = max(end for _, end in offsets)
        if span.end == last_kept and not span.text[-1].isascii():
            assert number + 1 not in {marks[index] for index in mine} or {marks[index] for index in mine} == {number + 1}
            continue  # a character of several bytes at the very end: offsets cannot say whether it is whole
        number += 1
        assert {index for index, mark in enumerate(marks) if mark == number} == mine
        taken |= mine
    assert max(marks, default=0) == number


def test_findings_diseases_devices_and_procedures_are_found_in_a_report(recogniser):
    [spans] = recogniser.spans(
        ["Median sternotomy. There is a right-sided PICC line, a left lower lobe consolidation and no pneumothorax."]
    )
    assert {(span.text, span.label) for span in spans} == {
        ("Median sternotomy", "PROCEDURE"),
        ("right-sided PICC line", "DEVICE"),
        ("left lower lobe consolidation", "FINDING"),
        ("pneumothorax", "DISEASE"),
    }


def test_the_ner_finds_diseases_that_no_lexicon_names(recogniser, lexicon):
    text = "The patient has Duchenne muscular dystrophy and was treated for hairy cell leukemia."
    [spans] = recogniser.spans([text])
    terms = {term.text for term in lexicon.read_lexicon()}
    assert [(span.text, span.label) for span in spans] == [("Duchenne muscular dystrophy", "DISEASE"), ("hairy cell leukemia", "DISEASE")]
    assert not terms & {span.text.lower() for span in spans}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(texts, st.sampled_from(SENTENCES)), max_size=3))
@example(["", " ", "pleural effusion\n\npneumothorax", "PLEURAL EFFUSION"])
def test_spans_are_ordered_slices_of_the_text_that_do_not_overlap(lexicon, recogniser, given_texts):
    found = recogniser.spans(given_texts)
    assert len(found) == len(given_texts)
    for text, spans in zip(given_texts, found, strict=True):
        assert all(span.text == text[span.start : span.end] and span.text.strip() == span.text != "" for span in spans)
        assert all(one.end <= other.start for one, other in pairwise(spans))
        assert {span.label for span in spans} <= set(lexicon.LABELS)


def test_a_longer_term_of_the_lexicon_takes_in_a_disease_of_the_ner(recogniser):
    [spans] = recogniser.spans(["There is a calcified granuloma and bibasilar atelectasis."])
    assert [span.text for span in spans] == ["calcified granuloma", "bibasilar atelectasis"]


def test_capitals_do_not_hide_an_entity(recogniser):
    lower, upper = recogniser.spans(["there is a small left pleural effusion.", "THERE IS A SMALL LEFT PLEURAL EFFUSION."])
    assert [(span.start, span.end) for span in lower] == [(span.start, span.end) for span in upper] == [(11, 38)]


def test_a_very_long_text_is_searched_at_its_beginning(recogniser):
    [spans] = recogniser.spans(["Pleural effusion. " + "x" * 1_100_000])
    assert spans[0] == Span(0, 16, "Pleural effusion", "DISEASE")


def test_the_shipped_ruler_holds_the_lexicon_as_it_stands(lexicon):
    lines = (SHIPPED / "chest_ner" / "entity_ruler" / "patterns").read_text("utf-8").splitlines()
    shipped = {(pattern["pattern"], pattern["label"]) for pattern in map(json.loads, lines)}
    assert shipped == {(term.text, term.label) for term in lexicon.read_lexicon()}


def test_the_shipped_pipeline_weighs_at_most_15_megabytes_and_is_known_to_git():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15e6
    assert {"config.cfg", "meta.json", "tokenizer", "README.md"} <= {path.name for path in files}


def test_the_shipped_pipeline_cuts_words_as_scispacy_does(recogniser):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Possible set union", category=FutureWarning)
        from scispacy.custom_tokenizer import combined_rule_tokenizer

        scispacy_tokenizer = combined_rule_tokenizer(spacy.blank("en"))
        ours = spacy.load(SHIPPED / "chest_ner", exclude=["ner", "entity_ruler"])
    for sentence in [*SENTENCES, "A non-small-cell (T2/N0) tumour, 3x4 cm, p<0.05; see Fig. 2."]:
        assert [token.text for token in ours(sentence)] == [token.text for token in scispacy_tokenizer(sentence)]


def test_another_spacy_model_is_taken_by_its_folder(tmp_path):
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "SIGN", "pattern": "silhouette sign"}])
    nlp.meta["version"] = "3.2.1"
    nlp.to_disk(tmp_path / "mine")
    recogniser = load_recogniser(str(tmp_path / "mine"))
    assert recogniser.version == "3.2.1"
    assert recogniser.spans(["The silhouette sign."]) == [[Span(4, 19, "silhouette sign", "SIGN")]]


def test_a_model_that_is_not_there_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"no entity model is called en_ner_bc5cdr_xx.*chest_ner"):
        load_recogniser("en_ner_bc5cdr_xx")


def test_a_model_that_is_broken_is_a_clear_error(tmp_path):
    (tmp_path / "config.cfg").write_text("[nlp]\nlang = 3")
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_recogniser(str(tmp_path))


def test_tokens_are_marked_with_the_number_of_their_entity():
    #       0         10        20        30
    text = "no effusion but left hilar mass."
    offsets = [(0, 0), (0, 2), (3, 6), (6, 11), (12, 15), (16, 20), (21, 26), (27, 31), (31, 32), (0, 0), (0, 0)]
    assert entity_ids(spans_at(text, (3, 11), (16, 31)), offsets) == [0, 0, 1, 1, 0, 2, 2, 2, 0, 0, 0]


def test_of_overlapping_spans_the_longest_stays_whatever_their_order():
    text = "left hilar mass"
    offsets = [(0, 0), (0, 4), (5, 10), (11, 15), (0, 0)]
    spans = spans_at(text, (11, 15), (0, 10), (5, 15), (6, 9))
    assert entity_ids(spans, offsets) == entity_ids(spans[::-1], offsets) == [0, 1, 1, 2, 0]
    assert entity_ids(spans_at(text, (5, 10), (5, 15), (11, 15)), offsets) == [0, 0, 1, 1, 0]


def test_an_entity_that_truncation_cuts_is_dropped_whole():
    text = "edema and pleural effusion"
    offsets = [(0, 0), (0, 5), (6, 9), (10, 17), (18, 21), (0, 0)]
    assert entity_ids(spans_at(text, (0, 5), (10, 26)), offsets) == [0, 1, 0, 0, 0, 0]


def test_no_entities_or_no_tokens_is_no_mark():
    assert entity_ids([], [(0, 0), (0, 4), (0, 0)]) == [0, 0, 0]
    assert entity_ids(spans_at("mass", (0, 4)), [(0, 0), (0, 0)]) == [0, 0]


@settings(max_examples=200, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(0, 60), min_size=2, max_size=8, unique=True), places=st.integers(2, 90))
@example(text="İİ İ", cuts=[0, 2, 3, 4], places=4)
@example(text="e\u0301a e\u0301", cuts=[0, 1, 3, 4], places=77)
def test_every_span_gets_its_own_tokens_whatever_lower_casing_does_to_the_text(tokenizer, text, cuts, places):
    text = clean(text)
    borders = [cut for cut in sorted(cuts) if cut <= len(text)]
    pairs = [(start, end) for start, end in zip(borders[::2], borders[1::2], strict=False) if text[start:end].strip()]
    pairs = [(end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())) for start, end in pairs]
    check_places(text, spans_at(text, *pairs), tokenizer, places)


def reports():
    """Real reports when the shared data are there, else sentences of our own."""
    if not REAL_REPORTS.exists():
        return [clean(text) for text in [*SENTENCES, " ".join(SENTENCES)]]
    with lzma.open(REAL_REPORTS, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows.sort(key=lambda row: hashlib.sha256(row["uid"].encode()).hexdigest())
    return [clean(f"{row['findings']} {row['impression']}") for row in rows[:100]]


def test_every_entity_of_real_reports_falls_on_the_tokens_that_spell_it(recogniser, tokenizer):
    found = marked = 0
    for text, spans in zip(reports(), recogniser.spans(reports()), strict=True):
        check_places(text, spans, tokenizer, CONTEXT)
        ids, offsets = cut_to(tokenizer.encode(text), CONTEXT)
        marks = entity_ids(spans, offsets)
        whole = [span for span in spans if span.end <= max(end for _, end in offsets)]
        for number, span in enumerate(whole[: max(marks)], start=1):
            spelt = tokenizer.decode([token for token, mark in zip(ids, marks, strict=True) if mark == number])
            assert unicodedata.normalize("NFC", span.text).lower() in spelt
            assert len(spelt.strip()) - len(span.text) <= 3  # nothing but the rest of a word that the recogniser cut, such as a bracket
        found += len(spans)
        marked += max(marks)
    assert marked > 0.3 * found > 1
