"""A game as a sandbox: its only tool is a move. The host's end of server.py.

`run("go to desk 1")` plays one move and returns what the game says; `over` where the game is won. `diff` is the record
of the episode as JSON, which reward.py reads. A move that the game does not admit is part of playing, never an error;
a game process that dies, hangs or talks nonsense raises SandboxGone or SandboxTimeout, and the episode is replayed in
another. Files are not there: `read` and `write` raise OSError.
"""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from aem_swe.errors import SandboxGone, SandboxTimeout
from aem_swe.sandboxes.base import CommandResult, SandboxEvent, SandboxLimits

SHOW_ADMISSIBLE = ("AEM_GAME_ADMISSIBLE", "1")
"""In a task's env: every observation ends with the commands that the game admits."""
LOAD_S = 60.0
"""How long a game may take to load."""
_MAX_REPLY = 1 << 20


@dataclass(frozen=True, slots=True)
class Seen:
    """What a game says after a move, or at its start."""

    feedback: str
    admissible: tuple[str, ...]
    won: bool
    valid: bool
    """Whether the game admitted the command."""
    expert: str | None
    """The next command of ALFWorld's own expert, where it was asked for."""


def observation(seen: Seen, *, admissible: bool) -> str:
    """What the policy reads. `help` is left out of the list: it does nothing."""
    return f"{seen.feedback}\n\n{listed(seen.admissible)}" if admissible and not seen.won else seen.feedback


def listed(admissible: Sequence[str]) -> str:
    """The commands that a game admits, one a line."""
    return "\n".join(["Admissible actions:", *(command for command in admissible if command != "help")])


class GameSandbox:
    """One episode of a game."""

    def __init__(self, connection: socket.socket, *, admissible: bool, limits: SandboxLimits) -> None:
        self.events: list[SandboxEvent] = []
        self._connection, self._limits, self._admissible = connection, limits, admissible
        self._buffer = b""
        self._moves: list[tuple[str, bool]] = []
        self._process: int | None = None
        began = time.perf_counter()
        try:
            self.seen = self._receive(LOAD_S + limits.command_timeout_s)
        except BaseException:
            self.close()
            raise
        self.events.append(SandboxEvent("start", began, time.perf_counter() - began))

    def run(
        self,
        command: Sequence[str] | str,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
        max_output: int | None = None,
    ) -> CommandResult:
        """Play one move, or nothing more once the game is won. exit_code 1: the game did not admit it."""
        text = command if isinstance(command, str) else " ".join(command)
        text = " ".join(text.split())  # one line, as the game writes its commands
        began = time.perf_counter()
        if not self.seen.won:
            self._send({"act": text})
            self.seen = self._receive(timeout or self._limits.command_timeout_s)
            self._moves.append((text, self.seen.valid))
        said = observation(self.seen, admissible=self._admissible).encode()
        limit = max_output or self._limits.max_output
        return CommandResult(
            exit_code=0 if self.seen.valid else 1,
            stdout=said[:limit],
            stderr=b"",
            truncated=len(said) > limit,
            timed_out=False,
            out_of_memory=False,
            seconds=time.perf_counter() - began,
            over=self.seen.won,
        )

    def diff(self) -> bytes:
        """The record: whether the game is won, and every move with whether the game admitted it."""
        moves = [{"command": command, "valid": valid} for command, valid in self._moves]
        return json.dumps({"won": self.seen.won, "moves": moves}).encode()

    def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        raise FileNotFoundError(f"a game has no files, so no {path!r}")

    def write(self, path: str, data: bytes) -> None:
        raise OSError(f"a game has no files, so {path!r} cannot be written")

    def kill_all(self) -> None:
        """Nothing runs between moves."""

    def alive(self) -> bool:
        return self._process is not None

    def close(self) -> None:
        process, self._process = self._process, None
        self._connection.close()
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._connection.settimeout(self._limits.command_timeout_s)
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            self.close()
            raise SandboxGone(f"the game process is gone ({error})") from error

    def _receive(self, seconds: float) -> Seen:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            try:
                self._connection.settimeout(max(0.001, deadline - time.monotonic()))
                piece = self._connection.recv(1 << 16)
            except TimeoutError as error:
                self.close()
                raise SandboxTimeout(f"the game gave no answer in {seconds:.0f} s") from error
            except OSError as error:
                self.close()
                raise SandboxGone(f"the game process is gone ({error})") from error
            self._buffer += piece
            if not piece or len(self._buffer) > _MAX_REPLY:
                self.close()
                raise SandboxGone(self._hung_up() if not piece else "the game process sent too much")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return self._read(line)

    def _hung_up(self) -> str:
        load = "" if self._process else f", or not loaded within {LOAD_S:.0f} s"
        return f"the game process hung up: killed, or short of its {self._limits.memory_mb} MB{load}"

    def _read(self, line: bytes) -> Seen:
        try:
            said = json.loads(line)
            if self._process is None:
                self._process = os.pidfd_open(int(said["pid"]))
            return Seen(said["feedback"], tuple(said["admissible"]), said["won"], said["valid"], said["expert"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            self.close()
            raise SandboxGone(f"the game process sent nonsense ({type(error).__name__}: {error})") from error
