"""Containers started before they are needed: starting one takes as long as a hundred tool calls.

`expect` names what will be asked for, in order; background threads keep up to `size` of it ready. `take` hands out a
ready one, waits for one that is being started for the same key, or starts one itself. Whatever is ready but no longer
expected makes room first.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from aem_swe.errors import SandboxError, TaskError


class Startable(Protocol):
    """What the pool keeps."""

    def usable(self) -> bool: ...

    def remove(self) -> None: ...


K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Startable)


class WarmPool(Generic[K, C]):
    """`start` makes one item for a key; it may raise SandboxError or TaskError, which only `take` passes on."""

    def __init__(self, start: Callable[[K], C], *, size: int, threads: int) -> None:
        self._start, self._size = start, size
        self._changed = threading.Condition()
        self._expected: deque[K] = deque()
        self._ready: deque[tuple[K, C]] = deque()
        self._surplus: deque[tuple[K, C]] = deque()
        """Ready as well, but for nothing that is expected now."""
        self._starting: deque[K] = deque()
        self._needless: deque[K] = deque()
        """Of those being started, what is no longer expected."""
        self._open = True
        self._workers = ThreadPoolExecutor(threads, thread_name_prefix="aem-swe-warm")

    def expect(self, keys: Iterable[K]) -> None:
        """Replace what is expected: these keys, in this order, a key as often as it will be taken."""
        with self._changed:
            self._expected = deque(keys)
            self._needless = deque(key for key in self._starting if not _discard(self._expected, key))
            there, self._ready, self._surplus = [*self._ready, *self._surplus], deque(), deque()
            for key, item in there:
                (self._ready if _discard(self._expected, key) else self._surplus).append((key, item))
        self._fill()

    def take(self, key: K) -> C:
        """Return an item for `key` that nobody else has."""
        while True:
            with self._changed:
                item = self._pop(key)
                if item is None and key in self._starting:
                    self._changed.wait(1.0)
                    continue
                if item is None:
                    _discard(self._expected, key)
            if item is None:
                return self._start(key)
            self._fill()
            if item.usable():
                return item
            item.remove()

    def close(self) -> None:
        """Remove all that is ready, and whatever is still being started."""
        with self._changed:
            self._open = False
            self._expected.clear()
        self._workers.shutdown(wait=True, cancel_futures=True)
        for _, item in (*self._ready, *self._surplus):
            item.remove()
        self._ready.clear()
        self._surplus.clear()

    def _pop(self, key: K) -> C | None:
        for place in (self._ready, self._surplus):
            for index, (other, item) in enumerate(place):
                if other == key:
                    del place[index]
                    return item
        return None

    def _fill(self) -> None:
        removed: list[C] = []
        with self._changed:
            while self._open and self._expected and len(self._starting) < self._size:
                if len(self._ready) + len(self._surplus) + len(self._starting) >= self._size:
                    if not self._surplus:
                        break
                    removed.append(self._surplus.popleft()[1])
                key = self._expected.popleft()
                self._starting.append(key)
                self._workers.submit(self._start_ahead, key)
        for item in removed:
            item.remove()

    def _start_ahead(self, key: K) -> None:
        try:
            item = self._start(key) if self._open else None
        except (SandboxError, TaskError):  # whoever takes it meets the same error, or better luck
            item = None
        with self._changed:
            _discard(self._starting, key)
            if item is not None:
                (self._surplus if _discard(self._needless, key) else self._ready).append((key, item))
            self._changed.notify_all()
        self._fill()


def _discard(keys: deque[K], key: K) -> bool:
    """Take one such key out; whether there was one."""
    if key not in keys:
        return False
    keys.remove(key)
    return True
