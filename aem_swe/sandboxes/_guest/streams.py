"""The three pipes of one command: stdin is fed and closed, stdout and stderr are drained with a cap."""

import functools
import os
import select

_CHUNK = 1 << 16
_DRAIN_CHUNKS = 64
"""After the command's end: enough for full pipes, few enough for a daemon that writes for ever."""


@functools.cache
def _nothing() -> int:
    """/dev/null, opened once: a command of a container's root may replace it."""
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def open_early() -> None:
    """Before the first command."""
    _nothing()


class _Sink:
    """One output pipe: keeps `cap` bytes, reads and throws away the rest."""

    def __init__(self, cap: int) -> None:
        self.source, self.child_end = os.pipe()
        os.set_blocking(self.source, False)
        self.kept = bytearray()
        self.truncated = False
        self._cap = cap

    def take(self) -> bool:
        """Read once; False when there is nothing (more) to read."""
        try:
            chunk = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return False
        room = self._cap - len(self.kept)
        self.kept += chunk[:room]
        self.truncated |= len(chunk) > room
        return bool(chunk)


class Streams:
    """Made before the fork; `child_ends` are the command's descriptors 0, 1 and 2."""

    def __init__(self, stdin: bytes, cap: int) -> None:
        self.out, self.err = _Sink(cap), _Sink(cap)
        self._sinks = {sink.source: sink for sink in (self.out, self.err)}
        self._rest = memoryview(stdin)
        if stdin:
            child_in, self._feed = os.pipe()
            os.set_blocking(self._feed, False)
        else:
            child_in, self._feed = os.dup(_nothing()), -1
        self.child_ends: tuple[int, ...] = (child_in, self.out.child_end, self.err.child_end)

    def register(self, poller: select.poll) -> None:
        """Close the command's ends here, and wait for something to happen at ours."""
        self._poller = poller
        self._close_child_ends()
        for source in self._sinks:
            poller.register(source, select.POLLIN)
        if self._feed >= 0:
            poller.register(self._feed, select.POLLOUT)

    def move(self, source: int) -> None:
        """Read from or write to the pipe that is ready."""
        if source == self._feed:
            self._write()
        elif not self._sinks[source].take():
            self._poller.unregister(source)

    def _write(self) -> None:
        try:
            self._rest = self._rest[os.write(self._feed, self._rest[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the command does not read its input
            self._rest = self._rest[:0]
        if not self._rest:
            self._poller.unregister(self._feed)
            os.close(self._feed)
            self._feed = -1

    def close(self) -> None:
        """Take what is left in the pipes without waiting: a daemon may hold them open, or write for ever."""
        self._close_child_ends()
        if self._feed >= 0:
            os.close(self._feed)
        for source, sink in self._sinks.items():
            for _ in range(_DRAIN_CHUNKS):
                if not sink.take():
                    break
            os.close(source)

    def _close_child_ends(self) -> None:
        for end in self.child_ends:
            os.close(end)
        self.child_ends = ()
