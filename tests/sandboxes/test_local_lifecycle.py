"""What is left when a sandbox, its maker or the trainer ends, and who may use what after a fork."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from scene import LIMITS, TASK

from aem_swe.errors import SandboxError, SandboxGone, SandboxTimeout
from aem_swe.sandboxes import SandboxLimits
from aem_swe.sandboxes.local import LocalSandboxes

MARK = f"98760.{os.getpid()}"
"""Seconds that the sleeps of this run take, by which they are found among the processes of the machine."""


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_a_daemon_does_not_outlive_its_sandbox(auto: LocalSandboxes, processes_of: Callable[[str], list[int]]) -> None:
    with auto.open(TASK) as sandbox:
        sandbox.run(f"setsid sleep {MARK} & setsid sh -c 'trap : TERM; sleep {MARK}' & sleep 0.1")
        assert processes_of(MARK)
    wait_until(lambda: not processes_of(MARK), 1.0)


def test_a_sandbox_killed_in_a_command_is_gone(auto: LocalSandboxes, processes_of: Callable[[str], list[int]]) -> None:
    sandbox = auto.open(TASK)
    threading.Timer(0.3, sandbox._kill).start()
    with pytest.raises(SandboxGone):
        sandbox.run(["sleep", MARK])
    with pytest.raises(SandboxGone):
        sandbox.diff()
    assert not sandbox.alive()
    sandbox.close()
    wait_until(lambda: not processes_of(MARK), 1.0)
    with auto.open(TASK) as other:
        assert other.alive()


def test_when_the_zygote_dies_every_sandbox_is_gone(works: None, processes_of: Callable[[str], list[int]]) -> None:
    with LocalSandboxes(limits=LIMITS) as sandboxes:
        sandbox = sandboxes.open(TASK)
        sandbox.run(f"setsid sleep {MARK} & sleep 0")
        os.kill(sandboxes._zygote.pid, signal.SIGKILL)
        with pytest.raises(SandboxGone):
            sandbox.run(["sleep", "1"])
        with pytest.raises(SandboxGone):
            sandboxes.open(TASK)
        wait_until(lambda: not processes_of(MARK))


def test_closing_the_maker_ends_every_sandbox(works: None, processes_of: Callable[[str], list[int]]) -> None:
    with LocalSandboxes(limits=LIMITS) as sandboxes:
        opened = [sandboxes.open(TASK) for _ in range(3)]
        for sandbox in opened:
            sandbox.run(f"setsid sleep {MARK} & sleep 0")
    wait_until(lambda: not processes_of(MARK), 1.0)
    assert not any(sandbox.alive() for sandbox in opened)
    with pytest.raises(SandboxError):
        sandboxes.open(TASK)


TRAINER = """
import os, sys, time
from aem_swe.sandboxes import SandboxLimits, open_sandboxes
from aem_swe.types import Task
with open_sandboxes("local", limits=SandboxLimits()) as sandboxes:
    with sandboxes.open(Task("t", ())) as sandbox:
        sandbox.run(f"setsid sleep {sys.argv[1]} & sleep 0")
        if "fork" in sys.argv and os.fork() == 0:
            os.setsid()
            time.sleep(6)
            os._exit(0)
        print("ready", flush=True)
        sandbox.run(["sleep", sys.argv[1]], timeout=100)
"""


@pytest.mark.parametrize("ending", ["kill", "kill with a forked worker", "interrupt"])
def test_a_trainer_that_ends_leaves_nothing(works: None, processes_of: Callable[[str], list[int]], ending: str) -> None:
    import aem_swe

    environment = {**os.environ, "PYTHONPATH": str(Path(aem_swe.__file__).parents[1])}
    arguments = [sys.executable, "-c", TRAINER, MARK, *(["fork"] if "fork" in ending else [])]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"ready\n"
        wait_until(lambda: len(processes_of(MARK)) >= 2)
        trainer.send_signal(signal.SIGINT if ending == "interrupt" else signal.SIGKILL)
        wait_until(lambda: not [pid for pid in processes_of(MARK) if "sleep" in _name(pid)], 4.0)
    assert trainer.returncode == (-signal.SIGINT if ending == "interrupt" else -signal.SIGKILL)
    wait_until(lambda: not [path for path in _cgroups() if f"aem-swe-{trainer.pid}-" in path])


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _cgroups() -> set[str]:
    return {str(path) for path in Path("/sys/fs/cgroup").rglob("aem-swe-*")}


def test_the_cgroups_of_dead_trainers_are_removed(works: None) -> None:
    with LocalSandboxes(limits=LIMITS) as sandboxes:
        if sandboxes.memory == "watchdog":
            pytest.skip("this user can make no cgroup; run as root to test it")
        place = next(Path(path).parent for path in _cgroups() if path.endswith(f"-{sandboxes._zygote.pid}"))
    stale = place / "aem-swe-4194399-1"  # above the largest pid
    (stale / "1").mkdir(parents=True)
    with LocalSandboxes(limits=LIMITS) as sandboxes, sandboxes.open(TASK):
        assert not stale.exists()
    assert not list(place.glob(f"aem-swe-{os.getpid()}-{sandboxes._zygote.pid}"))


def test_a_cgroup_is_used_again(works: None) -> None:
    with LocalSandboxes(limits=LIMITS) as sandboxes:
        if sandboxes.memory == "watchdog":
            pytest.skip("this user can make no cgroup; run as root to test it")
        for _ in range(12):
            with sandboxes.open(TASK) as sandbox:
                assert sandbox.alive()
        place = next(Path(path) for path in _cgroups() if path.endswith(f"-{sandboxes._zygote.pid}"))
        assert 1 <= len([path for path in place.iterdir() if path.is_dir()]) <= 3


def test_the_worker_of_a_fork_cannot_use_or_end_the_sandboxes(auto: LocalSandboxes) -> None:
    with auto.open(TASK) as sandbox:
        pid = os.fork()
        if pid == 0:
            try:
                sandbox.close()
                auto.close()
                sandbox.run(["true"])
            except SandboxError:
                os._exit(42)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
        assert sandbox.alive()


def test_64_sandboxes_work_at_once(auto: LocalSandboxes) -> None:
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(lambda _: auto.open(TASK), range(64)))
        outputs = list(pool.map(lambda pair: pair[1].run(["echo", str(pair[0])]).stdout, enumerate(opened)))
        list(pool.map(lambda sandbox: sandbox.close(), opened))
    assert outputs == [b"%d\n" % index for index in range(64)]
    assert not auto._opened


def test_no_file_is_made_on_the_host(works: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = {*os.listdir("/tmp"), *os.listdir("/dev/shm"), *os.listdir("/")}
    with LocalSandboxes(limits=LIMITS) as sandboxes, sandboxes.open(TASK) as sandbox:
        sandbox.write("new", b"1")
        sandbox.diff()
        made = {*os.listdir("/tmp"), *os.listdir("/dev/shm"), *os.listdir("/")} - before
        assert not [name for name in made if "git" in name or ("aem" in name and "tests" not in name)]
    assert not os.listdir(tmp_path)


def test_a_sandbox_that_does_not_answer_is_killed_at_the_host_s_deadline(
    works: None, monkeypatch: pytest.MonkeyPatch, processes_of: Callable[[str], list[int]]
) -> None:
    monkeypatch.setattr("aem_swe.sandboxes._guest_sandbox.GRACE_S", 0.5)
    with LocalSandboxes(limits=SandboxLimits()) as sandboxes:
        sandbox = sandboxes.open(TASK)
        sandbox.run(f"setsid sleep {MARK} & sleep 0")
        for pid in processes_of("_guest"):
            if _parent(pid) == sandboxes._zygote.pid or _parent(_parent(pid)) == sandboxes._zygote.pid:
                os.kill(pid, signal.SIGSTOP)  # from outside, PID 1 can be stopped
        started = time.monotonic()
        with pytest.raises(SandboxTimeout):
            sandbox.run(["true"], timeout=0.2)
        assert time.monotonic() - started < 5


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_what_runs_in_a_sandbox_yields_to_the_trainer(auto: LocalSandboxes) -> None:
    behind = min(19, os.nice(0) + 5)
    with auto.open(TASK) as sandbox:
        assert sandbox.run(["nice"]).stdout == b"%d\n" % behind
        assert sandbox.run("nice -n -15 nice").stdout == b"%d\n" % behind  # it says that it may not, and goes on
