"""The rows of a run: one recipe, or a set with its data sets where the set says."""

from engine.recipe.evaluation_rows import rows_of


def test_a_single_recipe_is_a_single_row_with_its_own_keys():
    (row,), of_a_set = rows_of("eval/rsna", ["sources.0.root=here"], model="mine")
    assert not of_a_set
    assert (row.name, row.recipe.models, row.recipe.sources[0].root) == ("eval/rsna", ("mine",), "here")
    assert row.keys[0]("lists.test") == "sources.0.lists.test"


def test_a_set_puts_every_source_of_a_kind_where_it_says():
    rows, of_a_set = rows_of("eval/paper", ["roots.rsna=here", "lists.rsna=test.csv"], model="mine")
    assert of_a_set
    by_name = {row.name: row for row in rows}
    assert by_name["eval/rsna"].recipe.sources[0].root == "here"
    assert by_name["eval/rsna"].recipe.sources[0].lists == {"test": "test.csv"}
    assert by_name["eval/rsna"].keys[0]("root") == "roots.rsna"
    assert by_name["eval/chexpert"].recipe.sources[0].root != "here"


def test_a_model_takes_the_place_of_one_model_only():
    rows, _ = rows_of("eval/paper", model="mine")
    by_name = {row.name: row.recipe for row in rows}
    assert by_name["eval/chexpert"].models == ("mine",)
    assert len(by_name["eval/chexpert_ensemble"].models) == 6
    assert by_name["eval/chexpert_finetuned"].models != ("mine",)


def test_the_hash_is_of_the_recipe_as_it_is_run():
    (one,), _ = rows_of("eval/rsna")
    (two,), _ = rows_of("eval/rsna", ["seed=1"])
    assert one.sha256 != two.sha256
