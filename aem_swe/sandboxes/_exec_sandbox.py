"""A sandbox behind a door that knows only `exec(command) -> text`: rLLM's sandboxes, and r2egym's runtimes.

Everything is done by scripts that travel with each call (`_exec_script.py`), so nothing of ours has to survive inside.
What this cannot do: keep an agent that is root in there from forging what its own commands print, limit memory, or
tell that a command ran out of it. Grading therefore takes a fresh sandbox, as everywhere.
"""

import errno
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NoReturn, Protocol, Self

from aem_swe.errors import SandboxError, SandboxGone, SandboxTimeout, TaskError
from aem_swe.sandboxes import _exec_inside as inside
from aem_swe.sandboxes import _exec_script as script
from aem_swe.sandboxes._exec_call import MAX_TEXT, encoded, in_line, in_pieces
from aem_swe.sandboxes._exec_script import Answer, Belonging
from aem_swe.sandboxes._foreign import Pending, with_deadline
from aem_swe.sandboxes._git import add_files, diff_in_place, take_baseline
from aem_swe.sandboxes.base import CommandResult, SandboxEvent, SandboxLimits
from aem_swe.types import Task

_GRACE_S = 30.0
"""Beyond a command's own limit, before the host gives the call up."""
_SETUP_S = 1200.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Door(Protocol):
    """The part of rLLM's sandbox protocol that is enough. `exec` raises RuntimeError for an exit code other than 0."""

    def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str: ...

    def close(self) -> None: ...

    def is_alive(self) -> bool: ...


class ExecSandbox:
    """Made by the `open` of its maker: construct, `start`, `prepare`. `closed` gets the call that ends the door."""

    def __init__(
        self,
        door: Door,
        *,
        workdir: str,
        limits: SandboxLimits,
        environment: Mapping[str, str],
        programs: Mapping[str, str],
        closed: Callable[[Pending[None]], None],
    ) -> None:
        self.events: list[SandboxEvent] = []
        self._door, self._workdir, self._limits = door, workdir, limits
        self._environment, self._programs, self._closed = dict(environment), programs, closed
        self._belonging = Belonging()
        self._shared = False
        self._name = secrets.token_hex(8)
        self._git_dir = f"/var/tmp/.aem-{self._name}-git"
        self._python = self._tree = ""
        self._owner, self._open = os.getpid(), True

    def start(self, task: Task) -> None:
        """Get to know the place: what it lacks, and whether its processes are this machine's."""
        started = time.perf_counter()
        found = self._told(script.hello_script) or f"- {' '.join(script.TOOLS)}"
        place, _, missing = found.partition(" ")
        if missing.strip():
            raise TaskError(f"{task.id}: image {task.image!r} lacks {missing.strip()}; choose an image that has them")
        # rLLM's local backend runs commands on this very machine, with the trainer's environment
        self._shared = place == script.this_place()
        if self._shared:
            self._belonging = Belonging(mark=f"AEM_SANDBOX={secrets.token_hex(16)}")
            self._environment = {"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8", **self._environment}
        self.record("start", started)

    def prepare(self, task: Task) -> None:
        """Run the task's set-up, write its files, and remember the state that the agent will find."""
        started = time.perf_counter()
        self.run(["mkdir", "-p", self._workdir], cwd="/")
        if task.setup:
            result = self.run(["bash", "-c", task.setup], timeout=_SETUP_S)
            if result.exit_code != 0:
                said = (result.stderr or result.stdout)[-500:].decode(errors="replace").strip()
                raise TaskError(f"{task.id}: the setup of image {task.image!r} failed ({result.exit_code}): {said}")
        self._tree = take_baseline(self, git_dir=self._git_dir)
        if task.files:
            done = self.run(
                ["tar", "-x", "-f", "-", "--no-same-owner"], stdin=inside.packed(task.files), timeout=_SETUP_S
            )
            if done.exit_code != 0:
                said = done.stderr[-300:].decode(errors="replace").strip()
                raise TaskError(f"{task.id}: its files cannot be written into a sandbox: {said}")
            self._tree = add_files(self, task, git_dir=self._git_dir)
        if self._programs:
            self._python = self.run(["bash", "-c", inside.FIND_PYTHON, "bash", *inside.PYTHONS]).stdout.decode().strip()
            if not self._python:
                raise TaskError(
                    f"{task.id}: image {task.image!r} has no Python 3.6 or newer, which the agent's tools need here; "
                    "add python3 to it, or use sandbox=docker, which brings its own"
                )
        if not self._shared:
            self._belonging = Belonging(spared=self._told(script.list_script) or self._fail("listed no processes"))
        self.record("prepare", started)

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
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        assert argv, "an empty command"
        if argv[0] == "python3" and len(argv) > 1 and argv[1] in self._programs:
            argv = [self._python, "-I", "-S", "-c", self._programs[argv[1]], *argv[2:]]
        limit = self._limits.command_timeout_s if timeout is None else timeout
        cap = self._limits.max_output if max_output is None else max_output
        started = time.perf_counter()
        words = encoded([os.path.join(self._workdir, cwd or ""), *argv])
        if words is None:
            answer: Answer | None = Answer(126, b"", b"a character that no command can hold\n")
        else:
            nonce = script.new_nonce()
            text = script.run_script(
                nonce, words[1:], name=self._name, folder=words[0], env={**self._environment, **(env or {})},
                only_env=self._shared, stdin=stdin, limit=limit, cap=cap, belonging=self._belonging,
            )  # fmt: skip
            answer = self._ask(nonce, text, limit, cap)
        # no answer and yet alive: the command killed what ran it, for example with kill -9 -1
        answer = answer or Answer(-9, b"", b"")
        seconds = time.perf_counter() - started
        return CommandResult(
            answer.exit_code, answer.stdout, answer.stderr, answer.truncated, answer.timed_out, False, seconds
        )

    def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        result = self.run(["bash", "-c", inside.READ, "bash", self._place(path), str(max_bytes)], max_output=max_bytes)
        inside_kernel = self._place(path).startswith(("/proc/", "/sys/", "/dev/"))
        if result.exit_code != 0 or inside_kernel:
            raise FileNotFoundError(errno.ENOENT, "no regular file that can be read", path)
        return result.stdout

    def write(self, path: str, data: bytes) -> None:
        result = self.run(["bash", "-c", inside.WRITE, "bash", self._place(path)], stdin=data)
        if result.exit_code != 0:
            reason = result.stderr[-300:].decode(errors="replace").strip() or "something other than a file is there"
            raise OSError(errno.EIO, reason, path)

    def diff(self) -> bytes:
        self.kill_all()
        return self.patch()

    def patch(self) -> bytes:
        """The diff of a tree in which processes may still be at work."""
        return diff_in_place(self, self._tree, git_dir=self._git_dir)

    def kill_all(self) -> None:
        nonce = script.new_nonce()
        self._ask(nonce, script.kill_script(nonce, self._belonging), self._limits.command_timeout_s, 0)

    def alive(self) -> bool:
        if not self._open:
            return False
        outcome = with_deadline(self._door.is_alive, _GRACE_S)
        return outcome is not None and bool(outcome.value)

    def close(self) -> None:
        if not self._open or self._owner != os.getpid():
            return
        started = time.perf_counter()
        if self._shared and self._belonging.mark and self.alive():
            self._clean_up()
        self._open = False
        self._closed(Pending(self._door.close))  # rLLM's Docker backend takes 5 seconds
        self.record("close", started)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def record(self, name: str, started: float) -> None:
        self.events.append(SandboxEvent(name, started, time.perf_counter() - started))

    def _clean_up(self) -> None:
        """End what would outlive the door: on a shared machine nothing else ends the commands' processes."""
        nonce = script.new_nonce()
        text = in_line(script.clean_script(nonce, self._belonging, self._name))
        with_deadline(lambda: self._door.exec(text, timeout=_GRACE_S), _GRACE_S)

    def _place(self, path: str) -> str:
        return os.path.join(self._workdir, path)

    def _told(self, make: Callable[[str], bytes]) -> str | None:
        """What a script printed between two nonces."""
        nonce = script.new_nonce()
        return script.text_between(nonce, self._call(in_line(make(nonce)), _GRACE_S) or "")

    def _ask(self, nonce: str, text: bytes, limit: float, cap: int) -> Answer | None:
        """Run a script; None where it did not come to its end although the sandbox still answers."""
        call = in_line(text)
        calls = [call] if len(call) <= MAX_TEXT else in_pieces(text, f".aem-{self._name}-{nonce[5:21]}")
        for call in calls[:-1]:
            if self._call(call, _GRACE_S) is None:
                return Answer(126, b"", b"no room for the command in /dev/shm or /tmp\n")
        said = self._call(calls[-1], limit + _GRACE_S)
        answer = None if said is None else script.read_answer(nonce, said, cap)
        if answer is None and said is not None and not self._answers():
            self._fail("gave a broken answer")
        return answer

    def _call(self, text: str, limit: float) -> str | None:
        """What one call printed; None where it ended with another exit code than 0. A dead sandbox raises."""
        if self._owner != os.getpid():
            raise SandboxError("a sandbox belongs to the process that opened it; open another one after a fork")
        if not self._open:
            raise SandboxGone("the sandbox was closed")
        outcome = with_deadline(lambda: self._door.exec(text, timeout=limit), limit + _GRACE_S)
        if outcome is None or isinstance(outcome.error, subprocess.TimeoutExpired | TimeoutError):
            if self.alive():
                self.close()
                raise SandboxTimeout(f"the sandbox gave no answer within {limit:.0f} s")
            self._fail("ended and gave no answer")
        if outcome.error is None:
            return str(outcome.value)
        # an exec on a dying container may end with an exit code too, so the sandbox has to prove that it lives
        if not isinstance(outcome.error, RuntimeError | subprocess.CalledProcessError) or not self._answers():
            self._fail(f"failed: {outcome.reason}")
        return None

    def _answers(self) -> bool:
        nonce = script.new_nonce()
        outcome = with_deadline(lambda: self._door.exec(f"echo '{nonce}'", timeout=_GRACE_S), _GRACE_S)
        return outcome is not None and outcome.error is None and nonce in str(outcome.value)

    def _fail(self, how: str) -> NoReturn:
        self.close()
        raise SandboxGone(f"the sandbox {how}")
