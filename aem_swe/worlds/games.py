"""The maker of game sandboxes: it starts server.py and asks it for one process per episode.

Not covered: a hostile game file. Games are code of a kind (their grammar is evaluated), so play those that you trust.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aem_swe.errors import SandboxGone, SandboxUnavailable, TaskError
from aem_swe.sandboxes.base import Purpose, SandboxLimits
from aem_swe.types import Task
from aem_swe.worlds.layouts import missing
from aem_swe.worlds.sandbox import LOAD_S, SHOW_ADMISSIBLE, GameSandbox

GAME_FILE = "game.tw-pddl"
_PROGRAM = Path(__file__).with_name("server.py")
_CPU_S = 900
"""Processor time of one episode: ends a player that nobody watches any more."""


class GameSandboxes:
    """The maker of games. Entering starts the server; a game that is opened again starts from its loaded copy."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self._limits = limits or SandboxLimits()
        self._opening = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._open: list[GameSandbox] = []

    def __enter__(self) -> Self:
        reason = missing()
        if reason:
            raise SandboxUnavailable(reason)
        self._folder = tempfile.TemporaryDirectory(prefix="aem-games-")
        self._control = self._start()
        return self

    def _start(self) -> socket.socket:
        assert self._folder is not None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = ("PATH", "LANG", "LC_ALL", "PYTHONPATH")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {
            "PYTHONHASHSEED": "0",
            "OMP_NUM_THREADS": "1",
            "HOME": self._folder.name,
            "TMPDIR": self._folder.name,
            "ALFWORLD_DATA": f"{self._folder.name}/data",
        }
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        return ours

    def open(self, task: Task, *, purpose: Purpose = "agent", expert: bool = False, seed: int = 0) -> GameSandbox:
        """Begin an episode. expert: ALFWorld's own expert says at every step what it would do (Seen.expert)."""
        request = {
            "game": str(self._game_folder(task) / GAME_FILE),
            "memory_mb": self._limits.memory_mb,
            "load_s": int(LOAD_S),
            "cpu_s": _CPU_S,
            "expert": expert,
            "seed": seed,
        }
        ours, theirs = socket.socketpair()
        with theirs:
            self._pass_on(json.dumps(request).encode(), theirs)
        sandbox = GameSandbox(ours, admissible=SHOW_ADMISSIBLE in task.env, limits=self._limits)
        told = task.statement[0].text if task.statement else sandbox.seen.feedback
        if told != sandbox.seen.feedback:
            sandbox.close()
            raise TaskError(f"{task.id}: the game begins otherwise than its statement says: {sandbox.seen.feedback!r}")
        with self._opening:
            self._open = [*(one for one in self._open if one.alive()), sandbox]
        return sandbox

    def _pass_on(self, request: bytes, connection: socket.socket) -> None:
        with self._opening:
            if self._control is None:
                raise SandboxGone("the games were closed")
            for _ in range(2):  # a server that was killed is started again, once
                try:
                    socket.send_fds(self._control, [request], [connection.fileno()])
                    return
                except OSError:
                    self._control.close()
                    self._control = self._start()
        raise SandboxGone("the game server does not start")

    def _game_folder(self, task: Task) -> Path:
        """Write the task's files, once per content."""
        files = dict(task.files)
        if GAME_FILE not in files:
            raise TaskError(f"{task.id}: it is no game: it has no {GAME_FILE}")
        assert self._folder is not None, "not entered"
        digest = hashlib.sha256(b"\0".join(name.encode() + b"\0" + data for name, data in task.files)).hexdigest()
        folder = Path(self._folder.name, digest[:24])
        with self._opening:
            if not folder.is_dir():
                making = Path(f"{folder}.new")
                making.mkdir()
                for name, data in files.items():
                    (making / Path(name).name).write_bytes(data)
                making.rename(folder)
        return folder

    def expect(self, tasks: Sequence[Task]) -> None:
        """Games are loaded when they are opened."""

    def close(self) -> None:
        with self._opening:
            control, self._control = self._control, None
            still_open, self._open = self._open, []
        for sandbox in still_open:
            sandbox.close()
        if control is not None:
            control.close()
        if self._server is not None:
            self._server.kill()
            self._server.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
