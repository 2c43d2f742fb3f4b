"""One request and one reply at a time over a sandbox's socket. Whatever is at the other end is treated as hostile.

A message is two lengths (4 bytes each, big-endian), a JSON object and raw bytes. A reply that is too large, malformed
or late ends the conversation for good: nothing after it could be trusted to belong to the next request.
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from aem_swe.errors import SandboxGone, SandboxTimeout

_T = TypeVar("_T")
_SMALL = 1 << 16


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON object whose fields have yet to be checked (`field`), and raw bytes."""

    fields: Mapping[str, object]
    body: bytes

    def field(self, name: str, kind: type[_T]) -> _T:
        """The value of a field; SandboxGone unless it is exactly of this type (a bool is no int)."""
        value = self.fields.get(name)
        if type(value) is not kind:
            raise SandboxGone(f"the sandbox sent {name}={str(value)[:50]!r}, which is no {kind.__name__}")
        return value


class Connection(Protocol):
    """The part of a socket that is needed."""

    def settimeout(self, seconds: float | None, /) -> None: ...

    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class Channel:
    """The host's end of a sandbox's connection."""

    def __init__(self, connection: Connection) -> None:
        self._socket = connection
        self._usable = True
        self._talking = threading.Lock()

    def request(
        self,
        header: Mapping[str, object],
        body: bytes = b"",
        *,
        timeout: float,
        max_header: int = _SMALL,
        max_body: int = 0,
    ) -> Reply:
        """Send a request, return its reply.

        Raises SandboxTimeout after `timeout` seconds, SandboxGone when the other end has hung up or answers nonsense,
        and OSError where the sandbox reports one: the request itself was refused, the sandbox is well.
        """
        encoded = json.dumps(header).encode()
        return self._exchange(
            b"".join((struct.pack(">II", len(encoded), len(body)), encoded, body)), timeout, max_header, max_body
        )

    def receive(self, timeout: float) -> Reply:
        """Wait for the first message, which a sandbox sends by itself when it is ready."""
        return self._exchange(b"", timeout, _SMALL, 0)

    def _exchange(self, message: bytes, timeout: float, max_header: int, max_body: int) -> Reply:
        with self._talking:
            return self._exchange_alone(message, timeout, max_header, max_body)

    def _exchange_alone(self, message: bytes, timeout: float, max_header: int, max_body: int) -> Reply:
        if not self._usable:
            raise SandboxGone("the sandbox is closed, or an earlier request to it was cut off")
        self._usable = False  # until a whole reply has come; an exception of any kind leaves it so
        deadline = time.monotonic() + timeout
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(message)
            header_size, body_size = struct.unpack(">II", self._exactly(8, deadline))
            if header_size > max_header or body_size > max_body:
                raise SandboxGone(f"the sandbox announced a reply of {header_size} + {body_size} bytes, over the limit")
            fields = json.loads(self._exactly(header_size, deadline))
            body = self._exactly(body_size, deadline)
        except TimeoutError as error:
            raise SandboxTimeout(f"the sandbox gave no answer within {timeout:.1f} s") from error
        except (ValueError, RecursionError) as error:
            raise SandboxGone("the sandbox sent a reply that is no JSON") from error
        except OSError as error:
            raise SandboxGone(f"the sandbox hung up ({error.strerror or error})") from error
        if not isinstance(fields, dict):
            raise SandboxGone("the sandbox sent a reply that is no JSON object")
        self._usable = True
        reply = Reply(fields, body)
        if "errno" in fields:
            raise OSError(reply.field("errno", int), reply.field("message", str)[:500])
        return reply

    def _exactly(self, size: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            self._socket.settimeout(max(1e-3, deadline - time.monotonic()))  # one deadline, however it drips
            chunk = self._socket.recv(min(size - len(received), 1 << 20))
            if not chunk:
                raise SandboxGone("the sandbox ended")
            received += chunk
            if time.monotonic() > deadline and len(received) < size:
                raise TimeoutError
        return bytes(received)

    def hang_up(self, timeout: float) -> bool:
        """Tell the other end that no more requests come; whether it ended by itself in time."""
        self._usable = False
        try:
            self._socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + timeout
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(1 << 16):
                    return True
        except TimeoutError:
            return False
        except OSError:  # it had ended before
            return True
        return False

    def close(self) -> None:
        """End the conversation; a thread that waits for a reply gets SandboxGone now.

        The descriptor is closed only when nobody uses it: its number may be given to another connection at once, and a
        thread about to wait on it would then wait on that one, for as long as its command may take.
        """
        self._usable = False
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits; a close alone would not
        with self._talking:
            self._socket.close()
