"""What a worker can no longer do, tried by real system calls in a process that gave it up."""

import json
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the filter is for Linux on x86-64")

TRIED = """
import json, os, signal, socket, subprocess, sys, threading
from pathlib import Path
from engine.intake.seccomp import confine

folder = Path(sys.argv[1])
(folder / "there").write_text("there")
held = confine()

def run_in_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append((folder / "there").read_text()))
    thread.start()
    thread.join()
    return found

tries = {
    "socket": lambda: socket.socket(),
    "program": lambda: subprocess.run(["/bin/true"]),
    "exec": lambda: os.execv("/bin/true", ["/bin/true"]),
    "fork": lambda: os.fork(),
    "new file": lambda: (folder / "new").write_text("x"),
    "append": lambda: (folder / "there").open("a"),
    "truncate": lambda: os.truncate(folder / "there", 0),
    "remove": lambda: (folder / "there").unlink(),
    "rename": lambda: (folder / "there").rename(folder / "moved"),
    "folder": lambda: (folder / "made").mkdir(),
    "rights": lambda: (folder / "there").chmod(0o777),
    "link": lambda: (folder / "link").symlink_to("there"),
    "kill": lambda: os.kill(os.getppid(), 0),
    "read": lambda: (folder / "there").read_text(),
    "thread": run_in_thread,
    "memory": lambda: len(bytearray(50_000_000)),
}
said = {"held": held}
for name, attempt in tries.items():
    try:
        said[name] = str(attempt())
    except OSError as error:
        said[name] = type(error).__name__
print(json.dumps(said))
"""


def test_a_confined_process_reads_and_computes_and_does_nothing_else(tmp_path):
    done = subprocess.run([sys.executable, "-c", TRIED, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if not said.pop("held"):
        pytest.skip("this kernel takes no seccomp filter")
    allowed = {"read": "there", "thread": "['there']", "memory": "50000000"}
    assert said == {**dict.fromkeys(said, "PermissionError"), **allowed}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "there"
