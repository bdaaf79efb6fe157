"""Which kind of recipe a document looks like."""

import pytest

from engine.recipe.kinds import KINDS, kind_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"sources": [], "steps": 1}, "pretraining"),
        ({"findings": {}, "score": "cosine"}, "prompts"),
        ({"findings": {}, "plain": {}, "openings": []}, "sentences"),
        ({"version": 1, "source": "x"}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_document_looks_like_the_kind_whose_keys_it_holds(values, kind):
    assert kind_of(values) == kind


def test_every_kind_knows_version_and_source():
    assert all({"version", "source"} <= kind.model_fields.keys() for kind in KINDS.values())
