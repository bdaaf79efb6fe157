"""Findings by name."""

from engine.recipe.labelled_sources import CHEXPERT_FINDINGS, NIH_FINDINGS, PADCHEST_SEEN


def test_each_list_names_a_finding_once_and_none_has_an_underscore():
    for names in (CHEXPERT_FINDINGS, NIH_FINDINGS, PADCHEST_SEEN):
        assert len(set(names)) == len(names)
        assert not any("_" in name for name in names)


def test_the_eight_seen_findings_of_padchest_have_prompts_of_their_own():
    assert len(PADCHEST_SEEN) == 8
    assert set(PADCHEST_SEEN) < set(CHEXPERT_FINDINGS)
