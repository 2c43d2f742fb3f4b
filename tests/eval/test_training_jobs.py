"""Training runs in child processes: those that fail, those that are interrupted, and that none of them is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aem_swe.eval.training_jobs import Job, run_jobs


def job(folder: Path, name: str, *words: str) -> Job:
    return Job(name, 1, words, folder / f"{name}.log")


def test_a_log_that_was_deleted_is_said_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def delete(words: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        (tmp_path / "bad.log").unlink(missing_ok=True)  # the child has it open already
        return start([sys.executable, "-c", "raise SystemExit('nope' in __import__('sys').argv)", *words], **options)

    monkeypatch.setattr(subprocess, "Popen", delete)
    ended: dict[str, str | None] = {}
    jobs = [job(tmp_path, "bad", "nope"), job(tmp_path, "good", "demo")]
    run_jobs(jobs, 1, lambda one, failure: ended.update({one.arm: failure}))
    assert ended == {"bad": "exit 1: its log cannot be read", "good": None}


def test_a_child_that_fails_is_said_with_its_last_line_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "bad.log").write_text("what an earlier run left\n")
    jobs = [job(tmp_path, "bad", "nope"), job(tmp_path, "good", "demo", "--show")]
    ended: dict[str, str | None] = {}
    run_jobs(jobs, 1, lambda one, failure: ended.update({one.arm: failure}))
    assert list(ended) == ["bad", "good"]
    assert ended["good"] is None and ended["bad"] is not None
    assert ended["bad"].startswith("exit 2: recipe 'nope' is unknown;")
    assert (tmp_path / "bad.log").read_text().startswith("what an earlier run left\naem-swe: recipe 'nope'")
    assert "leave_one_out" in (tmp_path / "good.log").read_text()


ENDLESS = """
import subprocess, sys
from pathlib import Path
from aem_swe.eval.training_jobs import Job, run_jobs
start = subprocess.Popen
def sleep(words, **options):
    child = start(["sleep", "600"], **options)
    print(child.pid, flush=True)
    return child
subprocess.Popen = sleep
run_jobs([Job("a", 1, (), Path(sys.argv[1]))], 1, print)
"""


def test_a_killed_command_leaves_no_child(tmp_path: Path) -> None:
    """Of SIGKILL it hears nothing; the kernel ends its children."""
    command = [sys.executable, "-c", ENDLESS, str(tmp_path / "a.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = Path("/proc", parent.stdout.readline().strip(), "cmdline")
        assert child.read_bytes().startswith(b"sleep")
        parent.kill()
    deadline = time.monotonic() + 30
    while child.exists() and child.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or not child.read_bytes()  # a zombie's is empty


def test_an_interrupt_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def remember(*arguments: object, **options: object) -> "subprocess.Popen[bytes]":
        started.append(start([sys.executable, "-c", "import time; time.sleep(600)"]))
        if len(started) == 2:
            started[0].kill()
        return started[-1]

    def interrupt(_job: Job, failure: str | None) -> None:
        assert failure == "ended by signal 9: it printed nothing"
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", remember)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job(tmp_path, "a", "demo"), job(tmp_path, "b", "demo")], 2, interrupt)
    assert [child.poll() for child in started] == [-signal.SIGKILL, -signal.SIGTERM]


SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable, "-uc",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)",
]  # fmt: skip


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Signals that got through, to handlers that raise as those of the command line do."""
    received: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_child_starts_ends_that_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handled: list[int], number: signal.Signals
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def interrupted(*_arguments: object, **_options: object) -> "subprocess.Popen[bytes]":
        started.append(start(SLEEP))
        signal.raise_signal(number)  # the child is there, and in no list yet
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    handlers = signal.getsignal(number)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs([job(tmp_path, "a", "demo"), job(tmp_path, "b", "demo")], 2, lambda *_: None)
        assert [child.poll() for child in started] == [-signal.SIGTERM]  # and the second was not started
    finally:
        for child in started:
            child.kill()
            child.wait()
    assert (handled, signal.getsignal(number)) == ([number], handlers)


def test_a_second_signal_kills_children_that_do_not_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handled: list[int]
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def stubborn(*_arguments: object, **_options: object) -> "subprocess.Popen[bytes]":
        child = start(STUBBORN, stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        child.stdout.close()
        started.append(child)
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(subprocess, "Popen", stubborn)
    second = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
    second.start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_jobs([job(tmp_path, "a", "demo")], 1, lambda *_: None)
        assert 1.5 < time.monotonic() - begin < 30
        assert [child.poll() for child in started] == [-signal.SIGKILL]
    finally:
        second.cancel()
        for child in started:
            child.kill()
            child.wait()
    assert handled == [signal.SIGINT]
