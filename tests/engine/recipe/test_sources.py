"""The sources that recipes name."""

import pydantic
import pytest

from engine.recipe.sources import CHEXPERT_FINDINGS, Source, TableSource


def read(**keys):
    return pydantic.TypeAdapter(Source).validate_python(keys)


def test_the_kind_decides_the_keys():
    assert isinstance(read(kind="table", file="a.csv"), TableSource)
    with pytest.raises(pydantic.ValidationError, match="root"):
        read(kind="padchest")
    with pytest.raises(pydantic.ValidationError, match="file"):
        read(kind="padchest", root="p", file="a.csv")


def test_the_chexpert_findings_are_fourteen():
    assert len(set(CHEXPERT_FINDINGS)) == 14
