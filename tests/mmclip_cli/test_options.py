"""Options that mean the same in every verb are spelt and explained the same."""

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
def test_every_verb_explains_its_shared_options_in_the_same_words(mmclip, verb, options):
    words = {
        "--json": "Print one JSON object instead of text.",
        "--quiet": "Say nothing but results and errors.",
        "--dry-run": "Check everything, say what would be done, and do nothing.",
        "--set": "Override a key of the recipe, as in optimizer.lr=1e-4. Repeatable.",
    }
    shown = " ".join(mmclip(*verb.split(), "--help").stdout.split())
    for option in options:
        assert option in shown
        assert words[option] in shown
