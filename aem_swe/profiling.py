"""Where the time goes: spans in `spans.jsonl`, which `aem-swe profile` reads, and sums per stage for metrics.jsonl.

    with recording(run_dir / "spans.jsonl"):          # from here on, in this process
        with span("step", step=3):
            with span("old_log_prob"): ...             # knows its step, and that it lies inside

A span is one line, written when it ends: stage, id, parent, start (Unix seconds), seconds, process, thread, and the
attributes that it was given; docs/profiling.md names them. Those in INHERITED pass on to the spans inside. Without a
recording `span` does next to nothing, so it may stand anywhere. Durations are of the monotonic clock, and starts are it
plus the wall clock's value when the recording began: a clock that is set back makes nothing negative.

Not covered: a fork records nothing (its parent does). A killed process loses the spans that were open, and those that
ended in the second before the last one that ended, or after that.
"""

import itertools
import json
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

_LOG = logging.getLogger(__name__)
Value = str | int | float
INHERITED = frozenset(("step", "phase", "episode", "task", "turn"))
"""Attributes that a span has from the one around it."""
_AT_ONCE = 1024
"""Spans that are written together, at most"""
_EVERY_S = 1.0
"""and seconds that one is kept back, as long as others end."""
_Ended = tuple[str, int, int, float, float, str, Mapping[str, Value], Mapping[str, Value]]


class Recorder:
    """Appends spans to a file; from any thread, and beside other processes that append to the same file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+", buffering=0)
        self._pid, self._process = os.getpid(), f"{socket.gethostname()}:{os.getpid()}"
        self._wall = time.time() - time.perf_counter()
        self._prefix = secrets.token_hex(4)
        self._ended: list[_Ended] = []
        self._written = time.perf_counter()
        self._writing = threading.Lock()
        self.numbers = itertools.count(1)
        if self._file.tell() and os.pread(self._file.fileno(), 1, self._file.tell() - 1) != b"\n":
            self._file.write(b"\n")  # a kill left half a line, which would spoil the next one

    def add(self, ended: _Ended) -> None:
        self._ended.append(ended)
        if len(self._ended) >= _AT_ONCE or ended[3] + ended[4] - self._written > _EVERY_S:
            self.write()

    def write(self, *, wait: bool = False) -> None:
        """Write what has ended, unless another thread is at it. A full disk ends the recording, not the run."""
        if os.getpid() != self._pid:  # a fork, whose spans nobody wants
            return self._ended.clear()
        if not self._writing.acquire(blocking=wait):
            return
        try:
            self._written = time.perf_counter()
            count = len(self._ended)
            left = memoryview(b"".join(map(self._line, self._ended[:count])))
            while left and not self._file.closed:  # a disk that is nearly full takes a part
                left = left[self._file.write(left) :]
            del self._ended[:count]
        except OSError as error:
            _LOG.warning("spans are recorded no longer: %s cannot be written (%s)", self._file.name, error.strerror)
            self._file.close()
        finally:
            self._writing.release()

    def _line(self, ended: _Ended) -> bytes:
        stage, number, parent, started, seconds, thread, inherited, own = ended
        row = {
            "stage": stage,
            "id": f"{self._prefix}.{number}",
            "parent": f"{self._prefix}.{parent}" if parent else "",
            "start": round(self._wall + started, 6),
            "seconds": round(max(0.0, seconds), 6),
            "process": self._process,
            "thread": thread,
            **inherited,
            **own,
        }
        for name, value in own.items():
            if isinstance(value, float) and not math.isfinite(value):
                row[name] = str(value)  # JSON has no such number
        return json.dumps(row, default=str).encode() + b"\n"

    def close(self) -> None:
        self.write(wait=True)
        self._file.close()


_recorder: Recorder | None = None
_open: ContextVar["Span | None"] = ContextVar("aem_swe_span", default=None)


class Span:
    """An open span; made by `span`."""

    __slots__ = ("_inherited", "_number", "_outer", "_own", "_recorder", "_stage", "_started")

    def __init__(self, recorder: Recorder | None, stage: str, own: dict[str, Value]) -> None:
        self._recorder, self._stage, self._own = recorder, stage, own

    def __enter__(self) -> "Span":
        if self._recorder is not None:
            outer = self._outer = _open.get()
            self._number = next(self._recorder.numbers)
            self._inherited = _inherited(outer, self._own)
            _open.set(self)
            self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        recorder = self._recorder
        if recorder is not None:
            seconds = time.perf_counter() - self._started
            if kind is not None:
                self._own["failed"] = True
            outer = self._outer
            _open.set(outer)
            recorder.add(
                (
                    self._stage,
                    self._number,
                    _number_of(outer, recorder),
                    self._started,
                    seconds,
                    threading.current_thread().name,
                    self._inherited,
                    self._own,
                )
            )

    @property
    def started(self) -> float:
        """time.perf_counter() of its start; 0 where there is no recording."""
        return self._started if self._recorder is not None else 0.0

    @property
    def recorded(self) -> bool:
        """False where there is no recording."""
        return self._recorder is not None

    def set(self, **attributes: Value) -> None:
        """Give it attributes that were not known at its start; spans inside do not see them."""
        if self._recorder is not None:
            self._own.update(attributes)


def _number_of(outer: Span | None, recorder: Recorder) -> int:
    """0: none, or one of another recording."""
    return outer._number if outer is not None and outer._recorder is recorder else 0


def _inherited(outer: Span | None, own: Mapping[str, Value]) -> Mapping[str, Value]:
    passed = outer._inherited if outer is not None else {}
    return passed if INHERITED.isdisjoint(own) else {**passed, **{k: v for k, v in own.items() if k in INHERITED}}


_NOT_RECORDED = Span(None, "", {})


def span(stage: str, **attributes: Value) -> Span:
    """A context: what happens inside is the stage `stage`."""
    recorder = _recorder
    return _NOT_RECORDED if recorder is None else Span(recorder, stage, attributes)


def record(stage: str, started: float, seconds: float, **attributes: Value) -> None:
    """Record what was timed elsewhere. started: of time.perf_counter(); less than no time is recorded as none."""
    recorder = _recorder
    if recorder is not None:
        outer = _open.get()
        number, parent = next(recorder.numbers), _number_of(outer, recorder)
        thread, passed = threading.current_thread().name, _inherited(outer, attributes)
        recorder.add((stage, number, parent, started, seconds, thread, passed, attributes))


def inherited() -> dict[str, Value]:
    """What a span that begins here would have from the ones around it: to hand to another thread."""
    outer = _open.get()
    return dict(outer._inherited) if outer is not None else {}


@contextmanager
def recording(path: Path | None) -> Iterator[None]:
    """Record this process's spans in a file, which is appended to; None: nothing is recorded.

    The innermost recording counts. Raises OSError where the file cannot be opened.
    """
    global _recorder
    before = _recorder
    recorder = _recorder = Recorder(path) if path is not None else None
    try:
        yield
    finally:
        _recorder = before
        if recorder is not None:
            recorder.close()


def flush() -> None:
    """Write what has ended so far, for whoever reads now."""
    if _recorder is not None:
        _recorder.write(wait=True)


class Stopwatch:
    """Sums wall-clock seconds per stage name. Stages that run in parallel add up to more than the time that passed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, stage: str = "", **attributes: Value) -> Iterator[Span]:
        """Add the time that the block takes to `name`; it is a span as well, called `stage`, or the same."""
        with span(stage or name, **attributes) as opened:
            started = time.perf_counter()
            try:
                yield opened
            finally:
                self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
