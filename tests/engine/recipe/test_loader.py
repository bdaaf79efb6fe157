"""From a recipe's name to a checked, frozen recipe."""

from typing import get_args

import pydantic
import pytest

from engine.errors import InputMissing, RecipeError, UsageError
from engine.recipe import find_recipe, load_recipe, loader, recipe_name, shipped_recipes
from engine.recipe.pretraining import PretrainRecipe
from engine.recipe.prompts import PromptRecipe
from engine.recipe.sources import Source

SMALL = """\
version: 1
sources:
  - {kind: table, file: a.csv}
tokenizer: {vocab: 512}
steps: 10
"""

KINDS_OF_SOURCE = ", ".join(repr(kind.model_fields["kind"].annotation.__args__[0]) for kind in get_args(get_args(Source)[0]))


@pytest.fixture
def write(tmp_path):
    def write(text, name="own.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def faults_of(path, kind=PretrainRecipe, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, kind, overrides)
    return {(fault.line, fault.path): fault.message for fault in caught.value.faults}


def test_a_recipe_is_typed_frozen_and_has_the_paper_s_defaults(write):
    recipe = load_recipe(write(SMALL), PretrainRecipe)
    assert recipe.optimizer.lr == 5e-5
    assert recipe.sources[0].file == "a.csv"
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        recipe.steps = 11


def test_all_faults_are_reported_at_once_each_with_line_path_and_near_name(write):
    text = """\
version: 1
lr: 3
sources:
  - kind: table
    fil: a.csv
    split: {train: 1.5}
  - kind: padches
    root: x
  - root: y
attmim:
  strategy: attmm
  ratio: 0.5
  ratio: 0.6
model:
  image: {width: 100, heads: 7}
batch: {paired: 0, unpaired: 0}
steps: 1e3
objective:
  half: no
warmup:
  objectives: [mim, mml]
optimizer: {betas: [0.9]}
seed: 12:30:00
entities: !!str chest_ner
"""
    assert faults_of(write(text)) == {
        (2, "lr"): "unknown key; did you mean optimizer.lr?",
        (4, "sources.0.file"): "missing",
        (5, "sources.0.fil"): "unknown key; did you mean sources.0.file?",
        (6, "sources.0.split.train"): "1.5 should be less than or equal to 1",
        (7, "sources.1"): f"'padches' should be {KINDS_OF_SOURCE}; did you mean padchest?",
        (9, "sources.2"): "`kind` is missing; it names the data set's layout",
        (11, "attmim.strategy"): ("'attmm' should be 'attmim', 'none', 'random', 'report', 'prompt' or 'self'; did you mean attmim?"),
        (13, "attmim.ratio"): "given twice, first on line 12",
        (15, "model.image"): "width 100 is not a multiple of heads 7",
        (16, "batch"): "paired and unpaired are both 0: nothing to train on",
        (17, "steps"): "1000.0 should be a whole number",
        (19, "objective.half"): "'no' should be true or false",
        (21, "warmup.objectives.1"): "'mml' should be 'align', 'mim' or 'mlm'; did you mean mlm?",
        (22, "optimizer.betas.1"): "missing",
        (23, "seed"): "'12:30:00' should be a whole number",
        (24, "entities"): "tag tag:yaml.org,2002:str: tags are not read; leave it out",
    }


def test_the_error_is_one_line_that_holds_every_fault(write):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("version: 1\nstep: 1\n"), PretrainRecipe)
    assert "\n" not in str(caught.value)
    assert "own.yaml has 3 faults: line 1: sources: missing; line 1: steps: missing; line 2: step: unknown key" in str(caught.value)
    assert caught.value.exit_code == 78


def test_a_hundred_faults_are_enough(write):
    faults = faults_of(write(SMALL + "".join(f"key{n}: 1\n" for n in range(150))))
    assert len(faults) == 101
    assert list(faults.values())[-1] == "and 50 more faults"


def test_words_and_numbers_keep_their_types(write):
    recipe = load_recipe(write(SMALL + "source: 'no'\nentities: on\nmodel: {init: 010}\noptimizer: {lr: 1e-3}\n"), PretrainRecipe)
    assert (recipe.source, recipe.entities, recipe.model.init, recipe.optimizer.lr) == ("no", "on", "010", 1e-3)


@pytest.mark.parametrize(
    ("line", "path", "words"),
    [
        ("source: 5", "source", "should be text; put it in quotes"),
        ("seed: true", "seed", "should be a whole number"),
        ("seed: '1'", "seed", "should be a whole number"),
        ("seed: null", "seed", "should be a whole number"),
        ("objective: {half: 1}", "objective.half", "should be true or false"),
        ("optimizer: {lr: fast}", "optimizer.lr", "should be a number"),
        ("optimizer: {lr: 0}", "optimizer.lr", "greater than 0"),
        ("optimizer: 5", "optimizer", "should be a section of keys"),
        ("prompt: {findings: Edema}", "prompt.findings", "should be a list, in square brackets"),
        ("optimizer: {lr: .inf}", "optimizer.lr", "should be a number"),
    ],
)
def test_a_value_of_the_wrong_type_is_never_bent_into_shape(write, line, path, words):
    (fault,) = faults_of(write(SMALL + line + "\n")).items()
    assert fault[0] == (6, path)
    assert words in fault[1]


@pytest.mark.parametrize(
    ("text", "words"), [("", "is empty"), ("# only words\n", "is empty"), ("[1]", "section of keys"), ("x", "section of keys")]
)
def test_a_file_without_keys_is_no_recipe(write, text, words):
    ((place, message),) = faults_of(write(text)).items()
    assert place == (1, "")
    assert words in message


def test_a_recipe_of_another_kind_is_named_instead_of_a_page_of_unknown_keys(write):
    (message,) = faults_of(write(SMALL), PromptRecipe).values()
    assert message == "this is a pretraining recipe; a prompts recipe is needed"


def test_prompts_that_negate_a_negation_are_refused_with_their_line(write):
    text = 'version: 1\nfindings:\n  Edema:\n    positive: [edema]\n    negative: ["No no edema"]\n'
    ((place, message),) = faults_of(write(text), PromptRecipe).items()
    assert place == (5, "findings.Edema.negative.0")
    assert "negates a negation" in message


def test_a_union_of_words_and_numbers_is_one_fault(write):
    text = "version: 1\nlogit_scale: lerned\nfindings:\n  Edema: {positive: [edema], negative: [no edema]}\n"
    ((place, message),) = faults_of(write(text), PromptRecipe).items()
    assert place == (2, "logit_scale")
    assert "did you mean learned?" in message
    assert "should be a number" in message


def test_a_version_of_the_future_is_refused(write):
    assert faults_of(write(SMALL.replace("version: 1", "version: 2"))) == {(1, "version"): "this release reads recipes of version 1"}


def test_overrides_take_the_place_of_what_the_file_says(write):
    path = write(SMALL)
    recipe = load_recipe(
        path, PretrainRecipe, ["optimizer.lr=1e-4", "sources.0.root=/elsewhere", "steps=20", "steps=30", "warmup.objectives=[mim]"]
    )
    assert (recipe.optimizer.lr, recipe.sources[0].root, recipe.steps, recipe.warmup.objectives) == (1e-4, "/elsewhere", 30, ("mim",))
    assert load_recipe(path, PretrainRecipe).steps == 10


def test_an_override_can_mend_a_fault_of_the_file(write):
    assert load_recipe(write(SMALL.replace("10", "ten")), PretrainRecipe, ["steps=10"]).steps == 10


def test_a_wrong_value_in_an_override_carries_no_line_of_the_file(write):
    ((place, message),) = faults_of(write(SMALL), overrides=["steps=ten"]).items()
    assert place == (0, "steps")
    assert "should be a whole number" in message


def test_an_unknown_key_in_an_override_is_a_usage_error(write):
    with pytest.raises(UsageError, match=r"Try: optimizer\.lr"):
        load_recipe(write(SMALL), PretrainRecipe, ["optimiser.lr=1"])


@pytest.mark.parametrize("name", ["mimic_padchest", "mimic_padchest.yaml"])
def test_a_shipped_recipe_is_found_with_or_without_its_suffix(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name) in shipped_recipes()


def test_a_file_of_one_s_own_comes_before_a_shipped_recipe(write, monkeypatch):
    own = write(SMALL, "mimic_padchest.yaml")
    monkeypatch.chdir(own.parent)
    assert find_recipe("mimic_padchest.yaml").resolve() == own.resolve()


@pytest.mark.parametrize("name", ["mimic_padchst", "recipes/mimic_padchest.yaml", "mimic-padchest.yaml"])
def test_a_missing_recipe_meets_its_nearest_shipped_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputMissing, match="Try: mimic_padchest, which mmclip ships"):
        find_recipe(name)


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(InputMissing, match="is a folder"):
        find_recipe(tmp_path)


def test_shipped_recipes_of_subfolders_are_called_by_their_place(tmp_path, monkeypatch):
    (tmp_path / "recipes" / "paper").mkdir(parents=True)
    for name in ("tiny.yaml", "paper/table3_random.yaml"):
        (tmp_path / "recipes" / name).write_text(SMALL)
    monkeypatch.setattr(loader, "_ENGINE", tmp_path / "engine")
    monkeypatch.chdir(tmp_path / "recipes" / "paper")
    assert [recipe_name(path) for path in shipped_recipes()] == ["paper/table3_random", "tiny"]
    assert find_recipe("paper/table3_random") == find_recipe("paper/table3_random.yaml") == tmp_path / "recipes/paper/table3_random.yaml"
    with pytest.raises(InputMissing, match="Try: paper/table3_random, which mmclip ships"):
        find_recipe("table3_random")
