"""The plan of a pretraining run: what it refuses and says before the first image is read."""

import pytest

from engine.data.pretrain_plan import plan_pretraining
from engine.errors import EngineError
from engine.recipe.pretraining import PretrainRecipe

TOWER = {"width": 16, "layers": 1, "heads": 2}


@pytest.fixture
def recipe(tmp_path):
    """A recipe over twelve files that are not looked into, half of them with a report."""
    rows = ["Path,subject_id,report,fold"]
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(b"not looked into")
        rows.append(f"{number}.png,p{number},{'No pneumonia.' if number % 2 else ''},1")
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")

    def recipe(**changes):
        source = {"kind": "table", "file": str(tmp_path / "t.csv"), **changes.pop("source", {})}
        settings = {
            "version": 1, "sources": [source], "tokenizer": {"vocab": 300}, "store_size": 32, "steps": 2, "entities": "chest_ner",
            "model": {"image": {**TOWER, "size": 32, "patch": 16}, "text": {**TOWER, "context": 64}, "projection": 16},
            "batch": {"paired": 4, "unpaired": 2}, "prompt": {"findings": ["pneumonia"]},
        }  # fmt: skip
        return PretrainRecipe.model_validate(settings | changes)

    return recipe


def test_the_plan_counts_and_names_columns(recipe):
    plan, table = plan_pretraining(recipe())
    assert (plan.paired, plan.unpaired, plan.patients, plan.texts, plan.held_out) == (6, 6, 12, 1, 0)
    assert plan.store_bytes == 12 * 32 * 32
    assert plan.notices == (
        "columns of t taken: 'Path' as file, 'subject_id' as patient", "columns of t that are not used: fold",
    )  # fmt: skip
    assert len(table.frame) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entities": "en_ner_bc5cdr_md"}, "no entity model is called en_ner_bc5cdr_md.*entities: chest_ner"),
        ({"model": {"init": "tiny-of-no-one"}, "tokenizer": {}}, "no model named tiny-of-no-one"),
        ({"batch": {"paired": 1, "unpaired": 2}}, "batch.paired: 1 has nothing to contrast"),
        ({"source": {"unpaired_share": 1.0}}, "no image with a report is left"),
        ({"source": {"where": {"report": ["No pneumonia."]}}}, "no image without a report is left"),
        ({"prompt": {"findings": ["a very long finding that has no end"] * 9}}, "disease prompts need .* tokens, the text tower has 64"),
        ({"source": {"columns": {"patient": "patient"}}}, "no column 'patient'"),
    ],
)
def test_what_the_run_would_refuse_is_refused(recipe, changes, message):
    with pytest.raises(EngineError, match=message):
        plan_pretraining(recipe(**changes))
