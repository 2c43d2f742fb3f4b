"""Calls into somebody else's code, which may raise anything and may never return.

The thread of a call that has not returned in time is left behind: waiting for it would be no deadline.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Outcome(Generic[T]):
    """What a call came to: a value, or whatever it raised."""

    value: T | None = None
    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return True

    @property
    def reason(self) -> str:
        """What was raised, in one line."""
        return f"{type(self.error).__name__}: {' '.join(str(self.error).split())[:300]}"


class Pending(Generic[T]):
    """A call under way in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._outcome: Outcome[T] = Outcome()
        self._done = threading.Event()
        self._call = call
        threading.Thread(target=self._work, name="aem-swe-foreign", daemon=True).start()

    def _work(self) -> None:
        with self._outcome:
            self._outcome.value = self._call()
        self._done.set()

    def wait(self, seconds: float) -> Outcome[T] | None:
        """The outcome; None where there is none in time."""
        return self._outcome if self._done.wait(seconds) else None


def with_deadline(call: Callable[[], T], seconds: float) -> Outcome[T] | None:
    """The outcome of a call; None where it has none in time."""
    return Pending(call).wait(seconds)
