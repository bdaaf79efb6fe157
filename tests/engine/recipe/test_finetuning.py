"""The fine-tuning recipe."""

import pytest

from engine.errors import RecipeError, UsageError
from engine.recipe import load_recipe
from engine.recipe.finetuning import FinetuneRecipe


def test_the_shipped_recipe_holds_out_the_patients_that_the_shipped_model_never_met():
    from engine.recipe.pretraining import PretrainRecipe

    (source,) = load_recipe("finetune", FinetuneRecipe).sources
    pretrained = next(each for each in load_recipe("tiny", PretrainRecipe).sources if each.name == "kermany")
    assert (source.file, source.where, source.split) == (pretrained.file, pretrained.where, pretrained.split)
    assert source.split.train < 1


def test_a_recipe_needs_no_more_than_its_sources():
    recipe = load_recipe("finetune", FinetuneRecipe, ["model=other", "mode=linear"])
    bare = FinetuneRecipe(version=1, sources=recipe.sources)
    assert (bare.model, bare.mode, bare.optimizer.name, bare.augmentation.flip) == ("tiny", "full", "adamw", False)
    assert (recipe.model, recipe.mode) == ("other", "linear")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("findings=[Edema, Edema]", "Edema is the same name as Edema"),
        ("validation.share=0", "validation.share"),
        ("optimizer.layer_decay=0", "optimizer.layer_decay"),
        ("linear.strengths=[]", "linear.strengths"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_key(setting, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("finetune", FinetuneRecipe, [setting])


def test_a_misspelt_key_is_told_its_nearest():
    with pytest.raises(UsageError, match="layer_decay"):
        load_recipe("finetune", FinetuneRecipe, ["optimizer.layer_decays=0.5"])
