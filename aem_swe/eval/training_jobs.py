"""Training runs in child processes, a few at a time; an interrupt ends them as it would end each of them alone."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aem_swe.errors import RunError

_POLL_S: Final = 0.2
_LEAVE_S: Final = 60.0
"""For a child to end its step's sandboxes after an interrupt; a killed run is resumed as well."""


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

    However this ends, no child is left.
    """
    waiting = list(jobs)
    with _ending_all() as running:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(_start(waiting.pop(0)))
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                ended(child.job, _failure(child))
            time.sleep(_POLL_S)


@contextlib.contextmanager
def _ending_all() -> Iterator[list[_Child]]:
    running: list[_Child] = []
    try:
        yield running
    finally:
        for child in running:
            child.process.terminate()
        deadline = time.monotonic() + _LEAVE_S
        for child in running:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _start(job: Job) -> _Child:
    # -u: what it prints last is what it died of; a session of its own: a terminal's Ctrl-C would reach it a second time
    command = [sys.executable, "-u", "-m", "aem_swe.cli", "train", *job.words, "--resume", "--plain"]
    try:
        with job.log.open("ab") as log:
            begin = log.tell()  # before the child shares the file's position
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            return _Child(job, process, begin)
    except OSError as error:
        raise RunError(f"{job.log} cannot be written ({error.strerror}); choose another --out") from error


def _failure(child: _Child) -> str | None:
    """Why a child that ended has failed, with its last line; None where it has not."""
    code = child.process.returncode
    if code == 0:
        return None
    written = child.job.log.read_bytes()[child.begin :].decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(written) if line.strip()), "it printed nothing")
    how = f"exit {code}" if code >= 0 else f"ended by signal {-code}"
    return f"{how}: {last.removeprefix('aem-swe: ')}"
