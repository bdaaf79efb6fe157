"""The data sets with labels that recipes name."""

import pydantic
import pytest

from engine.recipe.labelled_sources import ChexpertSource, PublishedSource, Uncertain
from engine.recipe.sources import Source


def read(**keys):
    return pydantic.TypeAdapter(Source).validate_python(keys)


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({"kind": "chexpert"}, "test"),
        ({"kind": "nih14"}, "test"),
        ({"kind": "rsna", "split": "medklip"}, "test"),
        ({"kind": "covidx"}, "test"),
        ({"kind": "padchest_evaluation"}, None),
    ],
)
def test_a_kind_and_a_folder_are_enough_for_the_published_test(keys, part):
    source = read(root="somewhere", **keys)
    assert isinstance(source, PublishedSource)
    assert getattr(source, "part", None) == part


def test_rsna_has_two_splits_so_that_none_is_the_default():
    with pytest.raises(pydantic.ValidationError, match="split"):
        read(kind="rsna", root="somewhere")


def test_the_default_reading_of_uncertain_labels_is_that_of_the_design():
    uncertain = ChexpertSource(kind="chexpert", root="somewhere").uncertain
    assert uncertain.ones == ("Atelectasis", "Edema", "Pleural Effusion")
    assert uncertain.zeros == ("Cardiomegaly", "Consolidation")


def test_an_uncertain_label_is_not_both_present_and_absent():
    with pytest.raises(pydantic.ValidationError, match="Edema: -1 cannot be both"):
        Uncertain(ones=("Edema",), zeros=("Edema",))
    with pytest.raises(pydantic.ValidationError, match="Oedema: not among the 14 findings"):
        Uncertain(ones=("Oedema",))
