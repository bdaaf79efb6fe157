"""Parts by patient, fractions that nest, leakage, copies that disagree."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.label_fractions import fraction_of, patients_in_order, split_hash
from engine.data.splits import split_of, split_use, stratified_draw
from engine.errors import ConfigError, LabelsError


def table(patients=60, *, images=2, positive=lambda patient: patient % 3 == 0, **columns):
    rows = [
        {
            "image": f"{patient}-{number}.png",
            "patient": f"p{patient}",
            "split": "",
            "source": "toy",
            "held_out": patient % 5 == 0,
            "Edema": int(positive(patient)),
        }
        for patient in range(patients)
        for number in range(images)
    ]
    return pl.DataFrame(rows, schema_overrides={"Edema": pl.Int8}).with_columns(**columns)


def contents(frame):
    return {image: f"sha of {image}" for image in frame["image"]}


def split(frame, findings=("Edema",), **changes):
    return split_of(frame, findings, changes.pop("contents", contents(frame)), **{"share": 0.3, "seed": 0} | changes)


def test_every_patient_is_in_one_part_and_what_is_held_out_is_the_test():
    found = split(table()).frame
    assert found.height == 120
    assert found.group_by("patient").agg(pl.col("part").n_unique())["part"].to_list() == [1] * 60
    assert set(found.filter(pl.col("part") == "test")["patient"]) == {f"p{number}" for number in range(0, 60, 5)}
    assert set(found["part"]) == {"train", "validation", "test"}


def test_the_name_of_the_source_does_not_count():
    def parts(name):
        frame = table(patient=pl.lit(f"{name}:") + pl.col("patient"))
        return split(frame).frame["part"].to_list(), sorted(fraction_of(frame, ("Edema",), 0.2, 0)["image"])

    assert parts("labels") == parts("renamed")


def test_validation_patients_are_drawn_among_the_labelled_and_mirror_them():
    few = pl.col("patient").is_in([f"p{number}" for number in range(30)])
    found = split(table(Edema=pl.when(few).then(pl.col("Edema")))).frame
    assert found["patient"].n_unique() == 30
    validated = found.filter(pl.col("part") == "validation").unique("patient")
    assert validated.height in (7, 8)
    assert validated["Edema"].sum() in (2, 3)


@given(
    st.dictionaries(st.text(max_size=3), st.tuples(st.sampled_from([0, 1, None])), min_size=3),
    st.floats(0.05, 0.95),
    st.integers(0, 3),
)
def test_a_stratified_draw_takes_a_share_of_each_group_and_never_all_of_it(labels, share, seed):
    chosen = stratified_draw(labels, share, str(seed))
    assert chosen == stratified_draw(dict(reversed(labels.items())), share, str(seed))
    for value in (0, 1, None):
        group = {patient for patient, values in labels.items() if values == (value,)}
        count = len(group & chosen)
        if len(group) >= 3:
            assert 1 <= count < len(group)
            assert abs(count - share * len(group)) <= 1
        else:
            assert count <= len(group)


@pytest.mark.parametrize(
    ("name", "use"),
    [("train", "train"), ("Training", "train"), ("val", "validation"), ("dev", "validation"), ("calibration", "validation"),
     ("TEST", "test"), ("held-out", "test"), ("Held out", "test"), ("", None), ("fold3", None), ("0", None)],
)  # fmt: skip
def test_the_name_of_a_split_means_one_thing(name, use):
    assert split_use(name) == use


def test_an_unknown_split_is_an_error_with_the_nearest_name():
    with pytest.raises(LabelsError, match=r"2 names that mmclip does not know: '3', 'trian' \(did you mean 'train'\?\)"):
        split(table(split=pl.Series(["trian", "3"] * 60)))


def test_a_test_split_of_one_class_is_refused():
    with pytest.raises(ConfigError, match=r"no finding with both classes.*Edema 24 positive, 0 negative"):
        split(table(positive=lambda patient: patient % 5 == 0))


def test_another_seed_validates_on_others():
    assert set(split(table()).part("validation")["patient"]) != set(split(table(), seed=1).part("validation")["patient"])


def test_a_source_s_own_validation_patients_are_kept():
    named = pl.col("patient").replace_strict({f"p{n}": "valid" if n < 10 else "test" if n < 20 else "train" for n in range(60)})
    frame = table(split=named).with_columns(held_out=pl.col("split") != "train")
    found = split(frame)
    assert set(found.part("validation")["patient"]) == {f"p{number}" for number in range(10)}
    assert set(found.part("test")["patient"]) == {f"p{number}" for number in range(10, 20)}


def test_a_split_with_a_patient_in_two_parts_is_leakage_and_names_no_patient():
    frame = table().with_row_index().with_columns(split=pl.when(pl.col("index") % 2 == 0).then(pl.lit("train")).otherwise(pl.lit("test")))
    with pytest.raises(LabelsError, match=r"leakage.*source toy: 60 patients in test and train") as error:
        split(frame)
    assert "p1" not in str(error.value)


def test_images_without_a_label_are_counted_and_left_out():
    frame = table(Edema=pl.when(pl.col("patient") == "p7").then(None).otherwise(pl.col("Edema")))
    found = split(frame)
    assert found.dropped == {"unlabelled": 2}
    assert "p7" not in set(found.frame["patient"])


def test_a_picture_that_is_tested_on_is_not_trained_on_under_another_name():
    frame = table()
    same = contents(frame) | {"0-0.png": "same", "1-0.png": "same"}  # p0 is held out, p1 is not
    found = split(frame, contents=same)
    assert found.dropped == {"in_another_part": 1}
    assert "0-0.png" in set(found.part("test")["image"])
    assert "1-0.png" not in set(found.frame["image"])


def test_copies_that_disagree_say_nothing_and_are_counted():
    frame = table(Edema=pl.when(pl.col("image") == "1-0.png").then(1).otherwise(pl.col("Edema")).cast(pl.Int8))
    same = contents(frame) | {"1-0.png": "same", "1-1.png": "same"}  # 1 and 0 now
    found = split(frame, contents=same)
    assert found.disagreeing == 2
    assert found.frame.filter(pl.col("patient") == "p1")["Edema"].to_list() == [None, None]
    agreeing = contents(frame) | {"2-0.png": "same", "2-1.png": "same"}
    assert split(frame, contents=agreeing).disagreeing == 0


def test_a_blank_beside_a_label_is_no_disagreement():
    frame = table(Edema=pl.when(pl.col("image") == "3-0.png").then(None).otherwise(pl.col("Edema")))
    found = split(frame, contents=contents(frame) | {"3-0.png": "same", "3-1.png": "same"})
    assert found.disagreeing == 0


@pytest.mark.parametrize(
    ("frame", "findings", "message"),
    [
        (table(held_out=pl.lit(False)), ("Edema",), "no labelled image is left for the test split"),
        (table(held_out=pl.lit(True)), ("Edema",), "no labelled image is left for the train split"),
    ],
)
def test_what_cannot_be_split_is_refused(frame, findings, message):
    with pytest.raises(ConfigError, match=message):
        split(frame, findings)


labels = st.dictionaries(st.text(min_size=1, max_size=4), st.lists(st.sampled_from([0, 1, None]), min_size=2, max_size=2), min_size=1)


@given(labels, st.integers(0, 3), st.lists(st.floats(0.001, 1), min_size=2, max_size=2))
def test_smaller_fractions_lie_inside_larger_ones(labels, seed, shares):
    rows = [{"patient": patient, "image": patient, "A": a, "B": b} for patient, (a, b) in labels.items()]
    frame = pl.DataFrame(rows, schema={"patient": pl.String, "image": pl.String, "A": pl.Int8, "B": pl.Int8})
    small, large = (set(fraction_of(frame, ("A", "B"), share, seed)["patient"]) for share in sorted(shares))
    assert small <= large
    assert len(large) == max(1, round(max(shares) * len(labels)))


@given(labels, st.integers(0, 3))
def test_the_order_holds_every_patient_once_whatever_the_table_s_order(labels, seed):
    order = patients_in_order(labels, seed)
    assert sorted(order) == sorted(labels)
    assert order == patients_in_order(dict(reversed(labels.items())), seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_fraction_mirrors_the_whole(seed):
    labels = {f"p{number}": (int(number % 4 == 0),) for number in range(2000)}
    for count in (20, 100, 200):
        positive = sum(labels[patient][0] for patient in patients_in_order(labels, seed)[:count])
        assert abs(positive - count / 4) <= 1


def test_another_seed_draws_others_and_the_hash_tells():
    frame = table()
    drawn = [fraction_of(frame, ("Edema",), 0.2, seed) for seed in (0, 0, 1)]
    hashes = [split_hash(each) for each in drawn]
    assert hashes[0] == hashes[1] != hashes[2]
    assert split_hash(drawn[0].reverse()) == hashes[0]
    assert drawn[0]["patient"].n_unique() == 12
    assert drawn[0].height == 24
