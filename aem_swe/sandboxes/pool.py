"""Containers started before they are needed: starting one takes as long as a hundred tool calls.

`expect` names what will be asked for, in order; background threads keep up to `size` of it ready. `take` hands out a
ready one, waits for one that is being started for the same key, or starts one itself. Whatever is ready but no longer
expected makes room first. A start that fails in the background gives up what else is expected for its key: whoever
takes it meets the error, or better luck.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, Protocol, TypeVar

from aem_swe.errors import SandboxError, SandboxGone, TaskError

_LOG = logging.getLogger(__name__)


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
        """Return an item for `key` that nobody else has. Raises what `start` raises, SandboxGone once closed."""
        while True:
            with self._changed:
                while self._open and (item := self._pop(key)) is None and key in self._starting:
                    self._changed.wait()
                if not self._open:
                    raise SandboxGone("the sandboxes were closed")
                if item is None:
                    _discard(self._expected, key)
            if item is None:
                return self._start(key)
            self._fill()
            if item.usable():
                return item
            item.remove()

    def close(self) -> None:
        """Remove all that is ready, and whatever is still being started; takers that wait are let go."""
        with self._changed:
            self._open = False
            self._expected.clear()
            ready = [item for _, item in (*self._ready, *self._surplus)]
            self._ready.clear()
            self._surplus.clear()
            self._changed.notify_all()
        for item in ready:
            item.remove()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _pop(self, key: K) -> C | None:
        for place in (self._ready, self._surplus):
            for index, (other, item) in enumerate(place):
                if other == key:
                    del place[index]
                    return item
        return None

    def _fill(self) -> None:
        with self._changed:
            while self._open and self._expected and len(self._starting) < self._size:
                instead: C | None = None
                if len(self._ready) + len(self._surplus) + len(self._starting) >= self._size:
                    if not self._surplus:
                        break
                    instead = self._surplus.popleft()[1]
                key = self._expected.popleft()
                self._starting.append(key)
                started = self._workers.submit(self._start_ahead, key, instead)
                started.add_done_callback(partial(_tell, instead))

    def _start_ahead(self, key: K, instead: C | None) -> None:
        """Start an item in the place of one that nobody expects, which goes first."""
        item: C | None = None
        try:
            if instead is not None:
                instead.remove()
            item = self._start(key) if self._open else None
        except (SandboxError, TaskError) as error:
            _LOG.info("a sandbox could not be started ahead: %s", error)
        finally:
            with self._changed:
                _discard(self._starting, key)
                needless = _discard(self._needless, key)
                if item is None:
                    self._expected = deque(other for other in self._expected if other != key)
                elif self._open:
                    (self._surplus if needless else self._ready).append((key, item))
                    item = None
                self._changed.notify_all()
            if item is not None:  # closed meanwhile
                item.remove()
        self._fill()


def _tell(instead: Startable | None, done: "Future[None]") -> None:
    """An error of ours must not vanish in a thread; those who wait start their own and meet it again."""
    if done.cancelled():  # closed before its turn
        if instead is not None:
            instead.remove()
    elif (error := done.exception()) is not None:
        _LOG.error("a sandbox could not be started ahead", exc_info=error)


def _discard(keys: deque[K], key: K) -> bool:
    """Take one such key out; whether there was one."""
    if key not in keys:
        return False
    keys.remove(key)
    return True
