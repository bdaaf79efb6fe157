"""Which keys a section may hold, and the nearest name of one it may not."""

import pytest

from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.schema import keys_at, near_key, near_name, takes_any_key
from engine.recipe.sources import MimicSource, PadchestSource, TableSource

VALUES = {"sources": [{"kind": "padchest"}, {"kind": "mimic_cxr"}, {}]}


@pytest.mark.parametrize(
    ("path", "section"),
    [((), PretrainRecipe), (("sources", 0), PadchestSource), (("sources", 1), MimicSource), (("sources", 2), TableSource)],
)
def test_the_keys_of_a_section_follow_its_kind(path, section):
    assert set(keys_at(PretrainRecipe, path, VALUES)) == set(section.model_fields)


@pytest.mark.parametrize("path", [("steps",), ("nowhere",), ("sources",), ("optimizer", "betas")])
def test_what_is_no_section_has_no_keys(path):
    assert keys_at(PretrainRecipe, path, VALUES) is None


def test_only_tables_take_any_key():
    assert takes_any_key(PretrainRecipe, ("sources", 2, "rename"), VALUES)
    assert not takes_any_key(PretrainRecipe, ("optimizer",), VALUES)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        (("optimiser",), "optimizer"),
        (("sources", 1, "jpgroot"), "sources.1.jpg_root"),
        (("momentum",), "optimizer.momentum"),
        (("attmim", "norm_pix"), "model.image_decoder.norm_pix"),
        (("sources", 0, "jpg_rot"), None),
        (("zzz",), None),
    ],
)
def test_an_unknown_key_meets_the_one_that_was_meant(path, near):
    assert near_key(PretrainRecipe, path, VALUES) == near


def test_near_names_do_not_care_for_capitals():
    assert near_name("pleural effusion", ["Edema", "Pleural Effusion"]) == "Pleural Effusion"
    assert near_name("x", ["Edema"]) is None
