"""Training runs in child processes, a few at a time; an interrupt ends them as it would end each of them alone."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aem_swe.child import ended_with_parent
from aem_swe.errors import RunError

_POLL_S: Final = 0.2
_LEAVE_S: Final = 60.0
"""For a child to end its step's sandboxes after an interrupt; a killed run is resumed as well."""
_SAME_S: Final = 1.0
"""Signals so close to the first are the same interrupt: a terminal that closes sends several."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Job:
    """One `aem-swe train`: its words, and the file that takes what it prints."""

    arm: str
    seed: int
    words: tuple[str, ...]
    log: Path


@dataclass(frozen=True, slots=True)
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    begin: int
    """Where its own part of the log starts: an earlier, interrupted run may have written before."""


def run_jobs(jobs: Sequence[Job], at_once: int, ended: Callable[[Job, str | None], None]) -> None:
    """Run all jobs; `ended` gets each with None, or with why it failed. Raises RunError where a log cannot be written.

    However this ends, no child is left. A signal takes effect between two looks at the children; a second one, while
    they are given time to leave, kills them.
    """
    waiting = list(jobs)
    with _recorded_signals() as received, _ending_all(received) as running:
        while (waiting or running) and not received:
            while waiting and len(running) < at_once and not received:
                running.append(_start(waiting.pop(0)))
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                ended(child.job, _failure(child))
            time.sleep(_POLL_S)


@contextlib.contextmanager
def _recorded_signals() -> Iterator[list[tuple[int, float]]]:
    """Signals that have a handler, with their times, instead of what the handler does; the first is sent again after.

    A handler that raises inside Popen, or before the child is in the list, would leave a child that nobody ends.
    Blocking signals would not do: a child inherits what is blocked.
    """
    received: list[tuple[int, float]] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # no other thread gets a signal, nor may set a handler
        handlers = {number: found for number in _SIGNALS if callable(found := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, _frame: received.append((number, time.monotonic())))
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0][0])
            raise KeyboardInterrupt  # where the handler only takes note: the jobs are not done


@contextlib.contextmanager
def _ending_all(received: Sequence[tuple[int, float]]) -> Iterator[list[_Child]]:
    running: list[_Child] = []
    try:
        yield running
    finally:
        for child in running:
            child.process.terminate()
        begin = time.monotonic()
        while any(child.process.poll() is None for child in running):
            again = any(when > begin + _SAME_S for _, when in received)
            if again or time.monotonic() > begin + _LEAVE_S:
                for child in running:
                    child.process.kill()
            time.sleep(_POLL_S / 4)


def _start(job: Job) -> _Child:
    # -u: what it prints last is what it died of; a session of its own: a terminal's Ctrl-C would reach it a second time
    command = [sys.executable, "-u", "-m", "aem_swe.cli", "train", *job.words, "--resume", "--plain"]
    try:
        with job.log.open("ab") as log:
            begin = log.tell()  # before the child shares the file's position
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=ended_with_parent(),
            )
            return _Child(job, process, begin)
    except OSError as error:
        raise RunError(f"{job.log} cannot be written ({error.strerror}); choose another --out") from error


def _failure(child: _Child) -> str | None:
    """Why a child that ended has failed, with its last line; None where it has not."""
    code = child.process.returncode
    if code == 0:
        return None
    how = f"exit {code}" if code >= 0 else f"ended by signal {-code}"
    try:
        written = child.job.log.read_bytes()[child.begin :].decode(errors="replace").split("\n")
    except OSError:  # deleted meanwhile; the others go on
        return f"{how}: its log cannot be read"
    last = next((line.strip() for line in reversed(written) if line.strip()), "it printed nothing")
    return f"{how}: {last.removeprefix('aem-swe: ')}"
