"""Which kind of recipe a document looks like."""

import pytest

from engine.recipe.loader import KINDS, kind_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"sources": [], "steps": 1}, "pretraining"),
        ({"sources": [], "mode": "linear"}, "finetuning"),
        ({"findings": {}, "score": "cosine"}, "prompts"),
        ({"findings": {}, "plain": {}, "openings": []}, "sentences"),
        ({"version": 1, "source": "x", "findings": {"Edema": {"positive": ["edema"]}}}, "prompts"),
        ({"version": 1, "source": "x"}, None),
        ({"version": 1, "findngs": {"Edema": {}}}, "prompts"),
        ({"version": 1, "sorces": [], "stepz": 1}, "pretraining"),
        ({"version": 1, "zzz": 1}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_document_looks_like_the_kind_whose_keys_it_holds(values, kind):
    assert kind_of(values) == kind


def test_what_fits_two_kinds_is_of_the_kind_that_is_wanted():
    assert kind_of({"sources": []}) == "finetuning"  # which asks for no other key
    assert kind_of({"sources": []}, wanted="pretraining") == "pretraining"
    assert kind_of({"sources": []}, wanted="finetuning") == "finetuning"
    assert kind_of({"sources": [], "steps": 1}, wanted="finetuning") == "pretraining"


def test_every_kind_knows_version_and_source():
    assert all({"version", "source"} <= kind.model_fields.keys() for kind in KINDS.values())
