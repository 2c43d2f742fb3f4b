"""A container's standard streams, as the engine's API multiplexes them, in the form that `Channel` takes of a socket.

Every frame is a type (1 stdout, 2 stderr), three zero bytes, a length (4 bytes, big-endian) and that many bytes (Docker
Engine API, "Attach to a container"). Our PID 1 answers on stdout; what it says on stderr is kept for error messages.
"""

import socket
import struct
from typing import Any  # the SDK's socket object has no type

_KEPT = 2000


class AttachedStreams:
    """One attached connection. Same methods, same errors as a socket."""

    def __init__(self, attached: Any) -> None:
        """attached: what the SDK's `attach_socket` returned; it keeps the response alive that owns the connection."""
        self._attached = attached
        self._connection: socket.socket = attached._sock
        self._head = b""
        self._left, self._is_stdout = 0, False
        self.stderr = b""

    def settimeout(self, seconds: float | None) -> None:
        self._connection.settimeout(seconds)

    def sendall(self, data: bytes) -> None:
        self._connection.sendall(data)

    def recv(self, size: int) -> bytes:
        """Return bytes of stdout; b"" at the end."""
        while True:
            while self._left == 0:
                piece = self._connection.recv(8 - len(self._head))
                if not piece:
                    return b""
                self._head += piece
                if len(self._head) == 8:
                    kind, self._left = struct.unpack(">B3xI", self._head)
                    self._is_stdout, self._head = kind == 1, b""
            chunk = self._connection.recv(min(self._left, size if self._is_stdout else 1 << 16))
            if not chunk:
                return b""
            self._left -= len(chunk)
            if self._is_stdout:
                return chunk
            self.stderr = (self.stderr + chunk)[-_KEPT:]

    def shutdown(self, how: int) -> None:
        self._connection.shutdown(how)

    def close(self) -> None:
        self._attached._response.close()
        self._connection.close()
