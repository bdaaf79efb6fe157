"""Published files are known by their bytes, by what they carry, or by name; anything else is not known."""

import pytest

from engine.model.imports.published import CHEXZERO, OPEN_CLIP, OPENAI, PUBLISHED_PREPROCESSING, known_file
from engine.model.preprocessing import CLIP_MEAN

UNKNOWN = "f" * 64


@pytest.mark.parametrize("sha256", OPENAI)
def test_openai_s_files_are_known_by_their_bytes(sha256):
    known = known_file("renamed.bin", sha256)
    assert known is not None
    assert (known.maker, known.activation, known.preprocessing) == ("openai", "quick_gelu", "clip")


@pytest.mark.parametrize(("name", "sha256"), CHEXZERO.items())
def test_chexzero_s_files_are_known_by_their_bytes_and_by_name(name, sha256):
    for known in (known_file("renamed.pt", sha256), known_file(name, UNKNOWN), known_file(name[:-3] + ".safetensors", UNKNOWN)):
        assert known is not None
        assert (known.maker, known.activation, known.preprocessing) == ("chexzero", "quick_gelu", "chexzero")


@pytest.mark.parametrize(("digits", "activation"), OPEN_CLIP.items())
def test_open_clip_s_releases_are_known_by_the_digits_in_their_names(digits, activation):
    known = known_file("any.pt", digits + "0" * 56)
    assert known is not None
    assert (known.maker, known.activation, known.preprocessing) == ("open_clip", activation, "clip")


def test_openai_s_facts_are_known_before_a_name():
    known = known_file(next(iter(CHEXZERO)), UNKNOWN, has_openai_facts=True)
    assert known is not None
    assert known.maker == "openai"


@pytest.mark.parametrize("name", ["ViT-B-32.pt", "model.pt", "best_64.pt", "chexzero.pt", "vit_b_32-quickgelu-laion400m_e32-46683a32.pt"])
def test_a_name_that_anyone_might_choose_tells_nothing(name):
    assert known_file(name, UNKNOWN) is None


def test_digests_are_whole_and_different():
    digests = [*OPENAI, *CHEXZERO.values()]
    assert len(set(digests)) == len(digests) == 14
    assert all(len(each) == 64 and int(each, 16) for each in digests)
    assert all(len(each) == 8 and int(each, 16) for each in OPEN_CLIP)


def test_means_and_deviations_are_in_grey_values_from_0_to_1():
    assert PUBLISHED_PREPROCESSING["clip"].mean == CLIP_MEAN
    chexzero = PUBLISHED_PREPROCESSING["chexzero"]
    assert [255 * value for value in (*chexzero.mean, *chexzero.std)] == pytest.approx([101.48761] * 3 + [83.43944] * 3)
