import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(sys.executable).with_name("mmclip")
SERVER = Path(__file__).with_name("fork_server.py")


@pytest.fixture(scope="session")
def fork_server():
    """A process that runs command lines in forks of itself; see fork_server.py."""
    with subprocess.Popen([sys.executable, SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        server.stdin.close()


@pytest.fixture
def mmclip(tmp_path, request):
    """Run the command in an empty folder, with an empty home; stderr is no terminal.

    The installed script is started where the environment is another one, which libraries read while they are imported, and where
    processes cannot be forked; else the same entry point runs in a fork of a process that has imported the libraries.
    """
    home = tmp_path / "home"
    home.mkdir()
    folder = tmp_path / "work"
    folder.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MMCLIP_", "XDG_"))}

    def mmclip(*arguments, **environment):
        command = list(map(str, arguments))
        if environment or sys.platform != "linux":
            env = {**clean, "HOME": str(home), **environment}
            return subprocess.run([SCRIPT, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=100)
        server = request.getfixturevalue("fork_server")
        files = {name: tmp_path / f"{name}.txt" for name in ("stdout", "stderr")}
        paths = {name: str(path) for name, path in files.items()}
        asked = {"arguments": command, "cwd": str(folder), "env": {**clean, "HOME": str(home)}, **paths}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        stdout, stderr = (files[name].read_text("utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([SCRIPT, *command], code, stdout, stderr)

    mmclip.folder = folder
    mmclip.environment = {**clean, "HOME": str(home)}
    return mmclip
