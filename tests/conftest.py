"""What tests of several rooms need: the example studies, and a toy model."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None)  # a busy machine is no failure
settings.load_profile("house")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="session")
def make_studies():
    """The module examples/make_studies.py."""
    spec = importlib.util.spec_from_file_location("make_studies", EXAMPLES / "make_studies.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_studies"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """The folder of a model with random weights: its scores mean nothing, and are always the same."""
    from engine.model.bundle import random_bundle

    folder = tmp_path_factory.mktemp("model") / "toy"
    random_bundle(folder)
    return folder
