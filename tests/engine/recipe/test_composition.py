"""A recipe that builds on another says only what is different, and every fault keeps its file and line."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RecipeError, UsageError
from engine.recipe import find_recipe, load_recipe, read_recipe, run_name
from engine.recipe.composition import differences, over_base, word_of
from engine.recipe.document import Document
from engine.recipe.pretraining import PretrainRecipe

BASE = """\
version: 1
sources:
  - {kind: table, file: a.csv}
tokenizer: {vocab: 512}
attmim: {top: 0.6, ratio: 0.5}
steps: 10
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    write(BASE, "base.yaml")
    return write


def load(path, overrides=()):
    return load_recipe(path, PretrainRecipe, overrides)


def faults_of(path):
    with pytest.raises(RecipeError) as caught:
        load(path)
    return {(fault.file, fault.line, fault.path): fault.message for fault in caught.value.faults}


def test_a_row_says_what_is_different_and_takes_the_rest(write):
    recipe = load(write("version: 1\nbase: base.yaml\nattmim: {ratio: 0.25}\n", "row.yaml"))
    assert (recipe.attmim.ratio, recipe.attmim.top, recipe.steps) == (0.25, 0.6, 10)


def test_a_resolved_recipe_is_the_one_written_out(write):
    row = load(write("version: 1\nbase: base.yaml\nattmim: {ratio: 0.25}\nsteps: 20\n", "row.yaml"))
    assert row == load(write(BASE.replace("ratio: 0.5", "ratio: 0.25").replace("steps: 10", "steps: 20"), "whole.yaml"))


def test_settings_from_outside_come_last(write):
    row = write("version: 1\nbase: base.yaml\nattmim: {ratio: 0.25}\n", "row.yaml")
    assert load(row, ["attmim.ratio=0.1", "attmim.top=0.9"]).attmim.model_dump(include={"ratio", "top"}) == {"ratio": 0.1, "top": 0.9}


def test_a_list_takes_the_place_of_the_base_s_whole(write):
    recipe = load(write("version: 1\nbase: base.yaml\nsources: [{file: b.csv, kind: table}]\n", "row.yaml"))
    assert [source.file for source in recipe.sources] == ["b.csv"]


def test_a_section_of_another_kind_takes_the_place_of_the_base_s_whole():
    base = Document({"part": {"kind": "a", "size": 1}}, {("part",): 1, ("part", "kind"): 2, ("part", "size"): 3}, name="base")
    row = Document({"part": {"kind": "b"}}, {("part",): 1, ("part", "kind"): 2})
    merged = over_base(row, base)
    assert merged.values == {"part": {"kind": "b"}}
    assert ("part", "size") not in merged.lines


def test_a_base_is_looked_for_beside_the_recipe_then_among_the_shipped_ones(write, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert load(write("version: 1\nbase: ../base.yaml\nsteps: 20\n", "rows/row.yaml")).attmim.top == 0.6
    # a recipe of one's own may be called as the shipped one it builds on
    assert load(write("version: 1\nbase: mimic_padchest\nsteps: 20\n", "mimic_padchest.yaml")).warmup.iterations == 15_000


def test_bases_may_build_on_one_another(write):
    write("version: 1\nbase: base.yaml\nattmim: {top: 0.8}\nsteps: 20\n", "middle.yaml")
    recipe = load(write("version: 1\nbase: middle.yaml\nsteps: 30\n", "row.yaml"))
    assert (recipe.steps, recipe.attmim.top, recipe.attmim.ratio) == (30, 0.8, 0.5)


def test_every_fault_names_its_own_file_and_line(write):
    write(BASE.replace("top: 0.6", "topp: 0.6") + "seed: [\n]\nsteps: 5\n", "base.yaml")
    row = write("version: 1\nbase: base.yaml\nattmim:\n  ratio: 2\nattmin: {}\n", "row.yaml")
    assert faults_of(row) == {
        ("", 4, "attmim.ratio"): "2 should be less than or equal to 1",
        ("", 5, "attmin"): "unknown key; did you mean attmim?",
        ("base", 5, "attmim.topp"): "unknown key; did you mean attmim.top?",
        ("base", 7, "seed"): "should be a whole number",
        ("base", 9, "steps"): "given twice, first on line 6",
    }
    with pytest.raises(RecipeError, match=r"line 5: attmin: unknown key.*; base line 5: attmim.topp"):
        load(row)


def test_what_an_override_sets_is_no_fault_of_the_base_s_file(write):
    row = write("version: 1\nbase: base.yaml\n", "row.yaml")
    with pytest.raises(RecipeError) as caught:
        load(row, ["attmim.ratio=7"])
    (fault,) = caught.value.faults
    assert (fault.file, fault.line, fault.path) == ("", 0, "attmim.ratio")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: nothing\n", "no recipe nothing"),
        ("base: mimic_padchst\n", "Try: mimic_padchest, which mmclip ships"),
        ("base: 5\n", "should be the name of a recipe"),
        ("base: row.yaml\n", "leads back to itself: row -> row"),
        ("base: one.yaml\n", "leads back to itself: one -> two -> one"),
        ("base: empty.yaml\n", "empty.yaml has no keys"),
        ("base: paper/figure6\n", "is a sweep; give one of its points, for instance paper/figure6@"),
        ("base: paper/figure6@7\n", "has no point 7"),
    ],
)
def test_a_base_that_cannot_be_is_a_fault_of_its_line(write, text, words):
    write("version: 1\nbase: two.yaml\n", "one.yaml")
    write("version: 1\nbase: one.yaml\n", "two.yaml")
    write("", "empty.yaml")
    found = faults_of(write("version: 1\n" + text, "row.yaml"))
    at_base = [message for (_, line, path), message in found.items() if (line, path) == (2, "base")]
    assert len(at_base) == 1
    assert words in at_base[0]


def test_a_long_chain_of_bases_is_refused(write):
    write(BASE, "0.yaml")
    for number in range(1, 12):
        write(f"version: 1\nbase: {number - 1}.yaml\n", f"{number}.yaml")
    assert load(write("version: 1\nbase: 6.yaml\n", "row.yaml")).steps == 10
    assert any("a chain of more than 8 bases" in message for message in faults_of(write("version: 1\nbase: 11.yaml\n", "x.yaml")).values())


# ---- differs


def test_differs_holds_a_recipe_to_its_word(write):
    head = "version: 1\nbase: base.yaml\ndiffers: [attmim.ratio, optimizer]\n"
    assert load(write(head + "attmim: {ratio: 0.25}\noptimizer: {lr: 1.0}\n", "row.yaml")).steps == 10
    assert faults_of(write(head + "attmim: {ratio: 0.5}\noptimizer: {lr: 1.0}\nsteps: 11\n", "row.yaml")) == {
        ("", 3, "differs.0"): "attmim.ratio is the same in base",
        ("", 6, "steps"): "differs from base, but `differs` does not list it",
    }


@pytest.mark.parametrize("claim", ["attmim.ratio", "[]", "[1]", "{a: b}"])
def test_differs_is_a_list_of_keys(write, claim):
    found = faults_of(write(f"version: 1\nbase: base.yaml\ndiffers: {claim}\nattmim: {{ratio: 0.25}}\n", "row.yaml"))
    assert found[("", 3, "differs")] == "should be a list of keys, for instance [attmim.strategy]"


def test_differs_without_a_base_is_a_fault(write):
    assert "missing" in faults_of(write(BASE + "differs: [steps]\n", "row.yaml"))[("", 7, "differs")]


def test_differences_are_those_of_values_and_not_of_words(write):
    text = "version: 1\nsource: mine\nbase: base.yaml\nattmim: {top: 0.60, ratio: 0.25, normalize: true}\n"
    found = differences(read_recipe(write(text, "row.yaml"))[1])
    assert found == {("attmim", "ratio"): (0.5, 0.25), ("attmim", "normalize"): ("default", True)}


# ---- sweeps


def test_a_sweep_stands_for_as_many_recipes_as_it_has_values(write):
    path = write("version: 1\nbase: base.yaml\nsweep: {attmim.ratio: [0.5, 0.75, 0.9]}\n", "own.yaml")
    assert read_recipe(path)[1].points == ("0.5", "0.75", "0.9")
    assert [load(f"{path}@{point}").attmim.ratio for point in ("0.5", "0.75", "0.9")] == [0.5, 0.75, 0.9]
    assert differences(read_recipe(f"{path}@0.9")[1]) == {("attmim", "ratio"): (0.5, 0.9)}
    assert run_name(f"{path}@0.9") == "own@0.9"


def test_a_run_of_a_shipped_recipe_is_called_by_its_place_however_it_is_named(monkeypatch):
    monkeypatch.chdir(find_recipe("paper/ensemble").parent.parent)
    for name in ("paper/ensemble@3", "paper/ensemble.yaml@3", "./paper/ensemble.yaml@3"):
        assert run_name(name) == "paper/ensemble@3"  # where eval/chexpert_ensemble looks for it


def test_a_sweep_without_a_point_is_no_recipe_to_run(write):
    path = write(BASE + "sweep: {seed: [1, 2]}\n", "own.yaml")
    with pytest.raises(UsageError, match=r"is a sweep: of 2 recipes\. Try: one of them, for instance own@1"):
        load(path)
    with pytest.raises(UsageError, match="has no point 3: its points are 1, 2"):
        load(f"{path}@3")
    with pytest.raises(UsageError, match="has no point 3: it is not a sweep"):
        load(f"{path.parent / 'base.yaml'}@3")


@pytest.mark.parametrize(
    ("sweep", "place", "words"),
    [
        ("{}", "sweep", "one key with a list"),
        ("[1]", "sweep", "one key with a list"),
        ("{seed: [1], steps: [2]}", "sweep", "one key with a list"),
        ("{seed: 1}", "sweep.seed", "a list of plain values"),
        ("{seed: [[1]]}", "sweep.seed", "a list of plain values"),
        ("{seed: [1, 1]}", "sweep.seed.1", "1 is given twice"),
    ],
)
def test_a_sweep_that_cannot_be_is_a_fault_of_its_line(write, sweep, place, words):
    found = faults_of(write(BASE + f"sweep: {sweep}\n", "own.yaml"))
    assert words in found[("", 7, place)]


@pytest.mark.parametrize(
    ("key", "words"), [("attmim.rato", "unknown key; did you mean attmim.ratio?"), ("steps.more", "not a section of keys")]
)
def test_a_sweep_of_a_key_that_is_none_is_a_fault_of_its_line(write, key, words):
    path = write(BASE + f"sweep: {{{key}: [1]}}\n", "own.yaml")
    (found,) = [message for (_, line, _), message in faults_of(f"{path}@1").items() if line == 7]
    assert words in found


@pytest.mark.parametrize(("value", "word"), [(True, "true"), (None, "null"), (0.75, "0.75"), ("True", "True"), (3, "3")])
def test_a_point_is_called_as_recipes_write_its_value(value, word):
    assert word_of(value) == word


# ---- properties

KEYS = st.text(string.ascii_lowercase[:4], min_size=1, max_size=2)
TREES = st.recursive(
    st.integers() | st.booleans() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
SECTIONS = st.dictionaries(KEYS, TREES, max_size=4)


def lines_of(values, path=(), count=None):
    count = count if count is not None else iter(range(1, 1000))
    found = {path: next(count)}
    if isinstance(values, dict):
        for key, value in values.items():
            found |= lines_of(value, (*path, key), count)
    return found


def at(values, path):
    for key in path:
        values = values[key]
    return values


@given(SECTIONS, SECTIONS)
def test_what_a_recipe_says_holds_and_what_it_leaves_out_is_its_base_s(own, base):
    merged = over_base(Document(own, lines_of(own)), Document(base, lines_of(base), name="base"))
    for path in lines_of(own):
        if not isinstance(at(own, path), dict):
            assert at(merged.values, path) == at(own, path)
    for path, line in merged.lines.items():
        at(merged.values, path)  # every line belongs to a key that is there
        source = base if merged.files.get(path) else own
        assert lines_of(source)[path] == line
    assert merged.lines.keys() == lines_of(merged.values).keys()


@given(SECTIONS, SECTIONS)
def test_a_recipe_over_itself_is_itself_and_differs_in_nothing(own, base):
    itself = over_base(Document(own, lines_of(own)), Document(own, lines_of(own), name="base"))
    assert itself.values == own
    assert differences(itself) == {}
    once = over_base(Document(own, lines_of(own)), Document(base, lines_of(base), name="base"))
    assert over_base(Document(own, lines_of(own)), once).values == once.values
