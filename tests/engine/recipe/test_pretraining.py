"""The pretraining recipe: the paper's values, and settings that do not fit together."""

import pydantic
import pytest

from engine.recipe.pretraining import ImageTowerSection, PretrainRecipe, TextDecoderSection, TowerSection
from engine.recipe.sources import CHEXPERT_FINDINGS

SOURCES = [{"kind": "table", "file": "a.csv"}]


def test_the_defaults_are_the_paper_s():
    recipe = PretrainRecipe(version=1, sources=SOURCES, steps=1, tokenizer={"vocab": 512})
    assert (recipe.attmim.top, recipe.attmim.ratio, recipe.entmlm.ratio) == (0.7, 0.75, 0.2)
    assert (recipe.batch.paired, recipe.batch.unpaired, recipe.warmup.iterations) == (64, 64, 15_000)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.optimizer.momentum) == ("sgd", 5e-5, 0.9)
    assert (recipe.model.image.size, recipe.model.image.patch, recipe.model.text.context) == (224, 16, 77)
    assert (recipe.model.image_decoder.layers, recipe.model.text_decoder) == (8, TextDecoderSection(layers=3, heads=8))
    assert len(CHEXPERT_FINDINGS) == 14
    assert not recipe.augmentation.flip


def test_heads_divide_the_width():
    with pytest.raises(pydantic.ValidationError, match="not a multiple of heads"):
        TowerSection(width=100, layers=1, heads=3)


def test_patches_fill_the_image():
    with pytest.raises(pydantic.ValidationError, match="not a multiple of patch"):
        ImageTowerSection(size=100)


def test_without_words_for_the_text_tower_nothing_starts():
    with pytest.raises(pydantic.ValidationError, match=r"set tokenizer\.vocab"):
        PretrainRecipe(version=1, sources=SOURCES, steps=1)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_shares_lie_between_none_and_all(share):
    with pytest.raises(pydantic.ValidationError, match="equal to"):
        PretrainRecipe(version=1, sources=SOURCES, steps=1, tokenizer={"vocab": 512}, attmim={"ratio": share})


@pytest.mark.parametrize(
    ("sections", "step", "objectives", "mask"),
    [
        ({}, 15_000, ("align", "mim", "mlm"), None),
        ({}, 14_999, ("mim", "mlm"), None),
        ({"warmup": {"mask": "random"}}, 0, ("mim", "mlm"), "random"),
        ({"warmup": {"mask": "random"}, "attmim": {"strategy": "none"}}, 0, ("mim", "mlm"), None),
        ({"warmup": {"iterations": 0, "mask": "random"}}, 0, ("align", "mim", "mlm"), None),
    ],
)
def test_what_a_step_is_to_do(sections, step, objectives, mask):
    recipe = PretrainRecipe(version=1, sources=SOURCES, steps=1, tokenizer={"vocab": 512}, **sections)
    assert recipe.doing(step) == {"objectives": objectives, "mask": mask}
