"""Children that end with their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import subprocess, sys, time
from aem_swe.child import ended_with_parent
options = {"preexec_fn": ended_with_parent()} if sys.argv[1] == "tied" else {}
print(subprocess.Popen(["sleep", "600"], start_new_session=True, **options).pid, flush=True)
time.sleep(600)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(how: str) -> tuple["subprocess.Popen[str]", int]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        return parent, int(parent.stdout.readline())


def test_a_killed_parent_takes_its_child_along() -> None:
    """And one that is not tied to it stays, so that it is the tie that ends it."""
    parents, children = zip(*(started(how) for how in ("tied", "loose")), strict=True)
    try:
        for parent in parents:
            parent.kill()
            parent.wait()
        deadline = time.monotonic() + 30
        while running(children[0]) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert [running(child) for child in children] == [False, True]
    finally:
        os.kill(children[1], signal.SIGKILL)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    """The tie is made after the fork, so the parent can be killed before it: here the maker of the tie is another.

    A handler of the parent's, which the child has until exec, does not keep it alive.
    """
    maker = (
        "import os, signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n"
        "from aem_swe.child import ended_with_parent\n"
        "tie = ended_with_parent()\nif not (pid := os.fork()):\n    tie()\n    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "tie = ended_with_parent()\nif not (pid := os.fork()):\n    if not (inner := os.fork()):\n        tie()\n"
        "        os._exit(0)\n    os._exit(-os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", maker], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["0", str(int(signal.SIGTERM))]
