"""The child that runs the official harness: started when first needed, started again when it died."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any  # requests and answers are JSON

import aem_swe
from aem_swe.errors import SandboxError
from aem_swe.sandboxes.grading_engine import remove_left

Json = dict[str, Any]
_READY_S = 180.0
_LEAVE_S = 60.0
_LOG = "harness.log"


class HarnessDied(SandboxError):
    """The harness's process ended while it graded."""


class HarnessProcess:
    """At most one child. Any thread may ask."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], engines: Sequence[str]) -> None:
        """settings: for harness_child.Server; engines: where a dead child's containers are removed."""
        self._folder, self._settings, self._engines = folder, dict(settings), tuple(engines)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._waiting: dict[int, tuple[subprocess.Popen[str], Future[Json]]] = {}
        self._number = 0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the child, if one runs."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Start a child unless one runs: it takes seconds to import what it needs. Raises HarnessDied."""
        with self._lock:
            if not self._closed:
                self._running()

    def ask(self, request: Json, timeout_s: float) -> Json:
        """The child's answer. Raises HarnessDied where the child ends first, or does not answer in time."""
        future: Future[Json] = Future()
        with self._lock:
            if self._closed:
                raise HarnessDied("the grading was closed")
            child = self._running()
            self._number += 1
            number = self._number
            self._waiting[number] = child, future
            assert child.stdin is not None
            with contextlib.suppress(OSError, ValueError):  # it has just died; the reader tells everybody who waits
                child.stdin.write(json.dumps({**request, "number": number}) + "\n")
                child.stdin.flush()
        try:
            return future.result(timeout_s)
        except TimeoutError:
            self._kill(child)
            raise HarnessDied(f"the harness gave no answer within {timeout_s:g} s") from None

    def close(self) -> None:
        """End the child; no container of it is left."""
        with self._lock:
            self._closed = True
            child, reader = self._child, self._reader
        if child is None or reader is None:
            return
        _close(child.stdin)
        try:
            child.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._kill(child)
        reader.join()

    def _running(self) -> "subprocess.Popen[str]":
        """Start a child unless one runs. Called with the lock held."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        for url in self._engines:
            remove_left(url, self._settings["run"])
        self._folder.mkdir(parents=True, exist_ok=True)
        here = str(Path(aem_swe.__file__).parents[1])
        path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        command = [sys.executable, "-P", "-m", "aem_swe.eval.swebench.harness_child", json.dumps(self._settings)]
        with open(self._folder / _LOG, "ab") as log:
            child = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # a Ctrl-C is for us; we end it in order
            )
        self._child = child
        ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(child, ready), name="aem-swe-harness", daemon=True)
        self._reader.start()
        if not ready.wait(_READY_S):
            self._kill(child)
        if child.poll() is not None:
            raise HarnessDied(f"the harness's process cannot be started; {self._folder / _LOG} says why")
        return child

    def _read(self, child: "subprocess.Popen[str]", ready: threading.Event) -> None:
        """Hand the answers to those who wait, until the child has ended."""
        assert child.stdout is not None
        for line in child.stdout:
            try:
                said = json.loads(line)
            except ValueError:  # it was killed while it wrote
                continue
            if waits := self._waiting.pop(said.get("number"), None):
                waits[1].set_result(said)
            ready.set()
        code = child.wait()
        ready.set()
        child.stdout.close()
        with self._lock:
            _close(child.stdin)
            lost = [number for number, (asked, _) in self._waiting.items() if asked is child]
            futures = [self._waiting.pop(number)[1] for number in lost]
        for url in self._engines:
            remove_left(url, self._settings["run"])
        for future in futures:
            future.set_exception(HarnessDied(f"the harness's process ended with {code} while it graded"))

    def _kill(self, child: "subprocess.Popen[str]") -> None:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def _close(pipe: IO[str] | None) -> None:
    with contextlib.suppress(OSError):  # what is still in its buffer has no reader
        if pipe is not None:
            pipe.close()
