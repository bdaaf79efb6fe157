"""Options that mean the same in every verb have the same name and the same help text."""

import pytest


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("score", {"--json", "--quiet", "--dry-run"}),
        ("pretrain", {"--json", "--quiet", "--dry-run", "--set"}),
        ("recipes check", {"--json", "--set"}),
        ("models show", {"--json"}),
        ("doctor", {"--json"}),
    ],
)
def test_shared_options_have_the_same_help_in_every_verb(mmclip, verb, options):
    words = {
        "--json": "Print one JSON object instead of text.",
        "--quiet": "Print only results and errors.",
        "--dry-run": "Check the inputs, print what would be done, and write nothing.",
        "--set": "Override a key of the recipe, e.g. optimizer.lr=1e-4. Repeatable.",
    }
    shown = " ".join(mmclip(*verb.split(), "--help").stdout.split())
    for option in options:
        assert option in shown
        assert words[option] in shown
