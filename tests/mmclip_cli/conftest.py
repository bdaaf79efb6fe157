import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("mmclip")


@pytest.fixture
def mmclip(tmp_path):
    """Run the installed command in an empty folder, with an empty home; stderr is no terminal."""
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "work"
    folder.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MMCLIP_", "XDG_"))}

    def mmclip(*arguments, **environment):
        return subprocess.run(
            [SCRIPT, *map(str, arguments)],
            cwd=folder,
            env={**clean, "HOME": str(home), **environment},
            capture_output=True,
            text=True,
            timeout=100,
        )

    mmclip.folder = folder
    mmclip.environment = {**clean, "HOME": str(home)}
    return mmclip
