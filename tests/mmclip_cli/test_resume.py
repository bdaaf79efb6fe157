"""The recipe that a resumed run continues with."""

import json

from engine.recipe.finetuning import FinetuneRecipe
from mmclip_cli.resume import own_recipe


def recipe(**changes):
    return FinetuneRecipe.model_validate({"version": 1, "sources": [{"kind": "table", "file": "t.csv"}], **changes})


def test_settings_of_the_run_need_not_be_typed_again(tmp_path, capsys):
    given = recipe()
    assert own_recipe(tmp_path, given, quiet=True) is given
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe(seed=7, epochs=3).model_dump(mode="json")}))
    found = own_recipe(tmp_path, given, quiet=False)
    assert (found.seed, found.epochs) == (7, 3)
    assert "epochs, seed" in capsys.readouterr().err
    assert own_recipe(tmp_path, found, quiet=True) is found
    (tmp_path / "run.json").write_text("no run")
    assert own_recipe(tmp_path, given, quiet=True) is given
