"""The host's end of a sandbox's conversation, closed by one thread while another waits."""

import socket
import threading
import time

import pytest

from aem_swe.errors import SandboxGone
from aem_swe.sandboxes._channel import Channel


class Watched:
    """A socket that tells whether it was closed under a reader. `slow_s`: between deciding to wait and waiting."""

    def __init__(self, under: socket.socket, slow_s: float) -> None:
        self._under, self._slow_s = under, slow_s
        self.reading = threading.Event()
        self.done = threading.Event()
        self.closed_under_a_reader = False

    def settimeout(self, seconds: float | None, /) -> None:
        self._under.settimeout(seconds)

    def sendall(self, data: bytes, /) -> None:
        self._under.sendall(data)

    def recv(self, size: int, /) -> bytes:
        self.reading.set()
        try:
            time.sleep(self._slow_s)
            return self._under.recv(size)
        finally:
            self.done.set()

    def shutdown(self, how: int, /) -> None:
        self._under.shutdown(how)

    def close(self) -> None:
        self.closed_under_a_reader |= self.reading.is_set() and not self.done.is_set()
        self._under.close()


@pytest.mark.parametrize("slow_s", [0.0, 0.5])
def test_closing_wakes_a_reader_and_leaves_it_its_descriptor(slow_s: float) -> None:
    """Else the number of the descriptor may be another connection's by the time the reader waits on it."""
    ours, theirs = socket.socketpair()
    watched = Watched(ours, slow_s)
    channel = Channel(watched)
    errors: list[SandboxGone] = []

    def ask() -> None:
        try:
            channel.request({"op": "ping"}, timeout=60.0)
        except SandboxGone as error:
            errors.append(error)

    with theirs:
        asking = threading.Thread(target=ask)
        asking.start()
        assert watched.reading.wait(5)
        channel.close()
        asking.join(5)
        assert not asking.is_alive()
    assert len(errors) == 1
    assert not watched.closed_under_a_reader
    with pytest.raises(SandboxGone, match="closed"):
        channel.request({"op": "ping"}, timeout=1.0)
