"""Limits of time, memory, processes and disk, and what is left when a sandbox, its maker or the trainer ends."""

import os
import time
from collections.abc import Iterator

import pytest
from scene import LIMITS, TASK

from aem_swe.errors import TaskError
from aem_swe.sandboxes import Sandbox
from aem_swe.sandboxes.local import LocalSandboxes
from aem_swe.types import Task

BOMB = "import sys\nblocks = []\nwhile True:\n    blocks.append(bytearray(1 << 20))\n"
SLOWLY = """
import time
blocks = []
while True:
    blocks.append(bytearray(b"x") * (1 << 20))
    time.sleep(0.001)
"""
IN_PROCESSES = """
import os, time
for _ in range(8):
    if os.fork() == 0:
        block = b"x" * (40 << 20)
        time.sleep(100)
time.sleep(100)
"""
SHARED = """
import mmap, time
block = mmap.mmap(-1, 400 << 20)
for i in range(0, 400 << 20, 4096):
    block[i] = 1
time.sleep(100)
"""
FORK_BOMB = """
import os
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""
COUNT_FORKS = """
import os
count = 0
try:
    while True:
        if os.fork() == 0:
            os.read(os.pipe()[0], 1)
        count += 1
except BlockingIOError:
    print(count)
"""


@pytest.fixture(params=["auto", "watchdog"])
def sandboxes(request: pytest.FixtureRequest) -> LocalSandboxes:
    """Both ways of limiting memory (for a user who can make no cgroup they are the same)."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, LocalSandboxes)
    return found


@pytest.fixture
def sandbox(sandboxes: LocalSandboxes) -> Iterator[Sandbox]:
    with sandboxes.open(TASK) as opened:
        yield opened
        assert opened.run(["echo", "still here"]).stdout == b"still here\n"


def test_the_watchdog_can_be_forced(watchdog: LocalSandboxes, auto: LocalSandboxes) -> None:
    assert watchdog.memory == "watchdog"
    assert auto.memory in ("watchdog", "cgroup v1", "cgroup v2")
    assert auto.mode == ("root" if os.geteuid() == 0 else "user")


@pytest.mark.parametrize("source", [BOMB, SLOWLY], ids=["at once", "slowly"])
def test_a_memory_bomb_is_reported_and_killed(sandbox: Sandbox, source: str) -> None:
    result = sandbox.run(["python3", "-c", source])
    assert (result.out_of_memory, result.timed_out, result.exit_code) == (True, False, -9)


def test_memory_is_limited_in_total_over_processes(sandbox: Sandbox) -> None:
    result = sandbox.run(["python3", "-c", IN_PROCESSES], timeout=8)
    assert result.out_of_memory
    assert not result.timed_out
    assert sandbox.run("ls -d /proc/[0-9]* | wc -l").stdout.strip() in (b"2", b"3", b"4")


def test_shared_memory_counts(sandbox: Sandbox) -> None:
    assert sandbox.run(["python3", "-c", SHARED]).out_of_memory


def test_a_daemon_that_grows_between_commands_is_killed(sandbox: Sandbox) -> None:
    sandbox.write("grow.py", b"import time\ntime.sleep(0.2)\nblock = b'x' * (400 << 20)\ntime.sleep(1000)\n")
    sandbox.run("setsid python3 grow.py & sleep 0")
    time.sleep(1.0)
    assert b"grow" not in sandbox.run("cat /proc/[0-9]*/cmdline").stdout.replace(b"cat\0/proc/[0-9]*/cmdline", b"")


def test_what_fits_is_not_killed(sandbox: Sandbox) -> None:
    result = sandbox.run(["python3", "-c", "block = b'x' * (64 << 20)\nprint(len(block))"])
    assert (result.exit_code, result.out_of_memory) == (0, False)
    for _ in range(3):  # the bomb of an earlier command is not charged to a later one
        assert sandbox.run(["python3", "-c", BOMB]).out_of_memory
        assert not sandbox.run(["true"]).out_of_memory


def test_a_fork_bomb_ends_with_its_command(sandbox: Sandbox) -> None:
    result = sandbox.run(["python3", "-c", FORK_BOMB], timeout=0.5)
    assert result.timed_out or result.out_of_memory
    assert len(sandbox.run("ls -d /proc/[0-9]*").stdout.split()) <= 3
    assert sandbox.diff() == b""


def test_a_fork_bomb_of_daemons_is_limited_and_killed(sandbox: Sandbox) -> None:
    sandbox.write("bomb.py", FORK_BOMB.encode())
    sandbox.run("setsid python3 bomb.py > /dev/null 2>&1 & sleep 0.3", timeout=2)
    sandbox.kill_all()
    assert len(sandbox.run("ls -d /proc/[0-9]*").stdout.split()) <= 3
    sandbox.run("setsid python3 bomb.py > /dev/null 2>&1 & sleep 0.3", timeout=2)
    sandbox.write("src/a.py", b"x = 2\n")
    assert b"+x = 2" in sandbox.diff()


def test_processes_are_limited(sandbox: Sandbox) -> None:
    assert sandbox.run(["python3", "-c", COUNT_FORKS]).stdout == b"%d\n" % (LIMITS.processes - 1)
    sandbox.kill_all()


def test_endless_output_is_capped_in_bytes_and_time(sandbox: Sandbox) -> None:
    started = time.monotonic()
    result = sandbox.run("exec yes", timeout=1.0)
    assert (result.timed_out, result.truncated, len(result.stdout)) == (True, True, LIMITS.max_output)
    assert time.monotonic() - started < 4
    result = sandbox.run("setsid yes & echo", timeout=5)
    assert not result.timed_out
    sandbox.kill_all()


def test_disk_is_limited_in_total(sandbox: Sandbox) -> None:
    result = sandbox.run("head -c 1000000000 /dev/zero > big")
    assert result.exit_code != 0
    for place in ("/testbed/x", "/tmp/x", "/dev/shm/x"):
        sandbox.run(f"head -c 9000000 /dev/zero > {place}")
    used = sandbox.run("cat big /testbed/x /tmp/x /dev/shm/x | wc -c")
    assert int(used.stdout) <= LIMITS.disk_mb << 20
    with pytest.raises(OSError):
        sandbox.write("more", bytes(5_000_000))
    with pytest.raises(OSError, match="bytes"):
        sandbox.diff()
    sandbox.run("rm big x; echo 1 > src/a.py")
    assert b"src/a.py" in sandbox.diff()


def test_files_are_limited_in_number_and_a_full_disk_still_gives_a_diff(sandbox: Sandbox) -> None:
    sandbox.write("src/a.py", b"x = 2\n")
    sandbox.run(["python3", "-c", "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').close()\n    i += 1"])
    assert int(sandbox.run("ls /tmp | wc -l").stdout) < 10_000
    sandbox.run("rm -rf /tmp/*; cat /dev/zero > /tmp/fill")
    assert b"+x = 2" in sandbox.diff()


def test_files_that_cannot_fit_refuse_the_task(sandboxes: LocalSandboxes) -> None:
    with pytest.raises(TaskError, match=r"huge: .*File too large"):
        sandboxes.open(Task(id="huge", statement=(), files=(("x", bytes(17 << 20)),)))


def test_deep_folders_do_not_stop_a_diff(sandbox: Sandbox) -> None:
    source = "import os\nfor _ in range(3000):\n    os.mkdir('ddddd')\n    os.chdir('ddddd')\nopen('x', 'w')\n"
    sandbox.run(["python3", "-c", source])
    sandbox.run("ln -s . loop; ln -s loop/loop more; mkdir locked; echo 1 > locked/file; chmod 0 locked")
    patch = sandbox.diff()
    assert b"b/locked/file\n" in patch
    assert b"ddddd" not in patch
