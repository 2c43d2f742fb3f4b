"""The making and closing of a sandbox, as spans of whoever opened it."""

from collections.abc import Iterator
from contextlib import contextmanager

from aem_swe.profiling import record, span
from aem_swe.sandboxes.base import Sandbox


def record_events(sandbox: Sandbox, asked: float) -> None:
    """Record its events so far; those of a pool, before anybody wanted it, as background.

    asked: time.perf_counter() when it was wanted.
    """
    for event in sandbox.events:
        stage, before = f"sandbox/{event.name}", min(event.seconds, max(0.0, asked - event.started_at))
        if before:
            record(stage, event.started_at, before, background=True)
        if before < event.seconds:
            record(stage, event.started_at + before, event.seconds - before)


@contextmanager
def closing(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Close it at the end, and record how long that took."""
    try:
        yield sandbox
    finally:
        with span("sandbox/close"):
            sandbox.close()
