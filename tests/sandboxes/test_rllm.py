"""The scripts behind a door that knows only `exec(command) -> text`, its failures, and our sandboxes as rLLM's."""

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from doors import LIMITS, HostDoor, running, soon

from aem_swe.errors import ConfigError, SandboxError, SandboxGone, SandboxTimeout, TaskError
from aem_swe.sandboxes import Sandbox, _exec_inside, _exec_sandbox
from aem_swe.sandboxes._exec_call import MAX_TEXT, in_line, in_pieces
from aem_swe.sandboxes._exec_sandbox import Door, ExecSandbox
from aem_swe.sandboxes._exec_script import Answer, new_nonce, read_answer, this_place
from aem_swe.sandboxes.local import LocalSandboxes
from aem_swe.sandboxes.rllm import RllmSandboxes, as_rllm, rllm_backend
from aem_swe.types import Task

ECHO = "/opt/aem/echo.py"
PROGRAMS = {ECHO: "import sys\nprint(sys.version_info >= (3, 6), sys.argv[1:], sys.stdin.read())\nsys.exit(5)\n"}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(id="door-1", statement=(), image="an/image", files=(("a", b"1\n"),), workdir=str(tmp_path / "work"))


@pytest.fixture
def open_with(task: Task) -> Iterator[Callable[[Door], Sandbox]]:
    with ExitStack() as makers:

        def open_door(door: Door) -> Sandbox:
            maker = makers.enter_context(RllmSandboxes(lambda _: door, limits=LIMITS, programs=PROGRAMS))
            sandbox = maker.open(task)
            # what a door that died leaves on a shared machine
            makers.callback(shutil.rmtree, f"/var/tmp/.aem-{sandbox._name}-git", ignore_errors=True)
            return sandbox

        yield open_door


# --- what a command can do


def test_a_time_limit_kills_what_the_command_started_even_in_sessions_of_their_own(
    open_with: Callable[[Door], Sandbox],
) -> None:
    sandbox = open_with(HostDoor())
    started = time.monotonic()
    result = sandbox.run("trap '' TERM; echo before; setsid sleep 7654.1 & sleep 7654.2", timeout=0.3)
    assert (result.timed_out, result.stdout, result.exit_code) == (True, b"before\n", -9)
    assert time.monotonic() - started < 5
    assert soon(lambda: not running("7654."))


def test_a_daemon_does_not_keep_its_command_open_and_is_killed_on_demand(open_with: Callable[[Door], Sandbox]) -> None:
    sandbox = open_with(HostDoor())
    started = time.monotonic()
    assert sandbox.run("setsid sleep 7655.1 & sleep 0.1; echo done").stdout == b"done\n"
    assert time.monotonic() - started < 3
    assert running("7655.1")
    sandbox.kill_all()
    assert soon(lambda: not running("7655.1"))


def test_closing_leaves_no_process_and_no_file_on_a_shared_machine(open_with: Callable[[Door], Sandbox]) -> None:
    before = set(Path("/var/tmp").iterdir()) | set(Path("/dev/shm").iterdir())
    sandbox = open_with(HostDoor())
    sandbox.run("setsid sleep 7656.1 &")
    sandbox.run("kill -9 $PPID")  # then nothing removes the files of that command
    sandbox.close()
    assert soon(lambda: not running("7656.1"))
    assert soon(lambda: set(Path("/var/tmp").iterdir()) | set(Path("/dev/shm").iterdir()) <= before)


def test_nobody_else_s_process_is_killed_on_a_shared_machine(open_with: Callable[[Door], Sandbox]) -> None:
    sandbox = open_with(HostDoor())
    with subprocess.Popen(["sleep", "7657.1"]) as other:
        sandbox.run("sleep 7657.2", timeout=0.1)
        sandbox.kill_all()
        assert other.poll() is None
        other.kill()


def test_a_command_that_kills_what_runs_it_is_a_result_and_no_dead_sandbox(
    open_with: Callable[[Door], Sandbox],
) -> None:
    sandbox = open_with(HostDoor())
    result = sandbox.run("kill -9 $PPID")
    assert (result.exit_code, result.stdout, result.timed_out) == (-9, b"", False)
    assert sandbox.run("echo ok").stdout == b"ok\n"


def test_output_before_a_daemon_s_own_is_complete(open_with: Callable[[Door], Sandbox]) -> None:
    sandbox = open_with(HostDoor())
    result = sandbox.run("(while :; do echo noise; sleep 0.001; done) & seq 1000", timeout=5)
    lines = [line for line in result.stdout.split() if line != b"noise"]
    assert lines == [b"%d" % number for number in range(1, 1001)]
    sandbox.kill_all()


def test_output_that_holds_what_looks_like_an_answer_stays_output(open_with: Callable[[Door], Sandbox]) -> None:
    sandbox = open_with(HostDoor())
    forged = new_nonce() + " 0 \n" + new_nonce()
    assert sandbox.run(["printf", "%s", forged]).stdout == forged.encode()


def test_a_preloaded_program_runs_in_the_python_that_is_found(open_with: Callable[[Door], Sandbox]) -> None:
    result = open_with(HostDoor()).run(["python3", ECHO, "a b", "$c"], stdin=b"in")
    assert (result.exit_code, result.stdout) == (5, b"True ['a b', '$c'] in\n")


def test_values_of_the_environment_are_not_read_by_a_shell(open_with: Callable[[Door], Sandbox]) -> None:
    result = open_with(HostDoor()).run(["env"], env={"A": "$HOME 'b' \n c"})
    assert b"A=$HOME 'b' \n c\n" in result.stdout


@pytest.mark.parametrize("size", [0, 1, 30_000, 200_000])
def test_input_of_any_length_arrives(open_with: Callable[[Door], Sandbox], size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    sandbox = open_with(HostDoor())
    assert sandbox.run(["cat"], stdin=data, max_output=300_000).stdout == data


def test_a_command_that_is_too_long_for_the_system_is_the_agent_s_mistake(open_with: Callable[[Door], Sandbox]) -> None:
    result = open_with(HostDoor()).run("echo " + "x" * 300_000)
    assert result.exit_code == 126
    assert b"Argument list too long" in result.stderr


def test_no_call_is_longer_than_a_remote_backend_takes() -> None:
    script = os.urandom(300_000)
    assert max(len(call) for call in in_pieces(script, ".name")) < MAX_TEXT + 200
    assert "/app/" not in in_line(b"\xd9\xaa\x69\xff" * 999)  # rLLM's local backend would rewrite it


def test_only_the_same_kernel_and_namespace_is_this_machine(task: Task) -> None:
    """Numbers of namespaces are alike on many machines; taking one for ours would lose its image's environment."""

    class Elsewhere(HostDoor):
        def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str:
            said = super().exec(command, timeout)
            return said.replace(this_place().partition("/")[0], "another-boot")

    sandbox = ExecSandbox(
        Elsewhere(), workdir=task.workdir, limits=LIMITS, environment={}, programs={}, closed=lambda closing: None
    )
    sandbox.start(task)  # and nothing that kills: it would not stop at what is its own
    assert not sandbox._shared
    sandbox.close()
    with RllmSandboxes(lambda _: HostDoor(), limits=LIMITS) as sandboxes, sandboxes.open(task) as opened:
        assert opened._shared


# --- answers


def test_an_answer_is_cut_at_its_mark() -> None:
    nonce = new_nonce()
    mark = nonce.encode()
    assert answer(nonce, 0, b"out" + mark, mark) == Answer(0, b"out", b"")
    assert answer(nonce, 3, mark, b"err" + mark + b"of a daemon") == Answer(3, b"", b"err")
    assert answer(nonce, 0, b"x" * 10 + mark, mark) == Answer(0, b"x" * 10, b"")
    assert answer(nonce, 0, b"x" * 11 + mark[:-1], mark) == Answer(0, b"x" * 10, b"", truncated=True)
    assert answer(nonce, 137, b"out", b"", late="late") == Answer(-9, b"out", b"", timed_out=True)
    assert answer(nonce, 143, mark, mark) == Answer(-15, b"", b"")
    assert answer(nonce, 255, mark, mark) == Answer(255, b"", b"")


def test_an_answer_that_does_not_come_to_its_end_is_none() -> None:
    nonce = new_nonce()
    assert read_answer(nonce, f"{nonce} 0 \n{nonce}\n", 10) is None
    assert read_answer(nonce, "", 10) is None
    assert read_answer(nonce, f"{new_nonce()} 0 \n{nonce}\n{nonce}\n", 10) is None


def answer(nonce: str, code: int, out: bytes, err: bytes, late: str = "") -> Answer | None:
    streams = "".join(base64.encodebytes(data).decode() + nonce + "\n" for data in (out, err))
    return read_answer(nonce, f"a banner\n{nonce} {code} {late}\n{streams}", 10)


# --- failures of the door


def test_a_door_that_raises_and_is_dead_is_sandbox_gone(open_with: Callable[[Door], Sandbox]) -> None:
    door = HostDoor()
    sandbox = open_with(door)
    door.close()
    with pytest.raises(SandboxGone, match="ConnectionResetError: the container is not running"):
        sandbox.run("true")
    assert not sandbox.alive()
    with pytest.raises(SandboxGone):
        sandbox.read("a")


def test_an_exit_code_from_a_container_that_dies_is_no_observation(open_with: Callable[[Door], Sandbox]) -> None:
    dying = False

    def fail(count: int, command: str) -> None:
        if dying:
            raise RuntimeError("Command failed (exit 126) in container x")

    sandbox = open_with(HostDoor(fail))
    dying = True
    with pytest.raises(SandboxGone, match="exit 126"):
        sandbox.run("true")


def test_a_door_that_never_answers_is_given_up(
    open_with: Callable[[Door], Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_exec_sandbox, "_GRACE_S", 1.0)
    slow = False

    def hang(count: int, command: str) -> None:
        if slow:
            time.sleep(8)

    sandbox = open_with(HostDoor(hang))
    slow, started = True, time.monotonic()
    with pytest.raises(SandboxTimeout):
        sandbox.run("true", timeout=0.5)
    assert time.monotonic() - started < 6


def test_what_a_maker_raises_names_task_and_image(task: Task) -> None:
    def create(_: Task) -> Door:
        raise LookupError("image not found")

    with RllmSandboxes(create, limits=LIMITS) as sandboxes:
        with pytest.raises(SandboxError, match="door-1: no sandbox of image 'an/image' could be made: LookupError: im"):
            sandboxes.open(task)


def test_a_place_without_the_needed_tools_or_python_is_the_task_s_fault(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bare(HostDoor):
        def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str:
            return super().exec(f"PATH={tmp_path}/bin:/usr/bin:/bin; {command}", timeout)

    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(_exec_inside, "PYTHONS", ("/nowhere/python3",))
    with RllmSandboxes(lambda _: Bare(), limits=LIMITS, programs=PROGRAMS) as sandboxes:
        with pytest.raises(TaskError, match=r"door-1: image 'an/image' has no Python 3.6 or newer.*sandbox=docker"):
            sandboxes.open(task)

    class Empty(HostDoor):
        def exec(self, command: str, timeout: float | None = None, user: str | None = None) -> str:
            return super().exec(command if command.startswith("echo") else "exit 127", timeout)

    with RllmSandboxes(lambda _: Empty(), limits=LIMITS) as sandboxes:
        with pytest.raises(TaskError, match="door-1: image 'an/image' lacks base64"):
            sandboxes.open(task)


def test_a_failing_setup_is_the_task_s_fault(task: Task) -> None:
    with RllmSandboxes(lambda _: HostDoor(), limits=LIMITS) as sandboxes:
        with sandboxes.open(replace(task, setup="echo 1 > made", env=(("NAME", "va lue"),))) as sandbox:
            assert sandbox.run("cat made; echo $NAME").stdout == b"1\nva lue\n"
            assert sandbox.diff() == b""
        with pytest.raises(TaskError, match=r"door-1: the setup of image 'an/image' failed \(4\): no luck"):
            sandboxes.open(replace(task, setup="echo no luck >&2; exit 4"))


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"rLLM's backend 'k8s' is unknown; choose one of \['daytona', 'docker'"):
        rllm_backend("k8s")


# --- ours as rLLM's


@pytest.fixture
def ours(auto: LocalSandboxes) -> Iterator[Sandbox]:
    with auto.open(Task(id="ours", statement=(), files=(("a", b"1\n"),))) as opened:
        yield opened


def test_exec_returns_what_a_command_prints_and_raises_for_a_failure(ours: Sandbox) -> None:
    theirs = as_rllm(ours)
    assert theirs.exec("cat a; pwd", user="agent") == "1\n/testbed\n"
    assert theirs.exec(r"printf '\xff'") == "\ufffd"
    with pytest.raises(RuntimeError, match=r"failed \(exit 3\): echo no >&2; exit 3\nstderr \(tail\):\nno"):
        theirs.exec("echo no >&2; exit 3")
    with pytest.raises(RuntimeError, match="reached its time limit"):
        theirs.exec("sleep 9", timeout=0.2)


def test_uploads_keep_bytes_modes_and_folders(ours: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "tests" / "deep").mkdir(parents=True)
    (tmp_path / "tests" / "test.sh").write_bytes(b"#!/bin/sh\necho \xff ran\r\n")
    (tmp_path / "tests" / "test.sh").chmod(0o755)
    (tmp_path / "tests" / "deep" / "data").write_bytes(b"\0\r\n")
    theirs = as_rllm(ours)
    theirs.upload_dir(str(tmp_path / "tests"), "/tmp/up/tests/")
    theirs.upload_file(str(tmp_path / "tests" / "deep" / "data"), "/tmp/other/name")
    assert ours.read("/tmp/up/tests/deep/data") == ours.read("/tmp/other/name") == b"\0\r\n"
    assert ours.run(["stat", "-c", "%a", "/tmp/up/tests/test.sh"]).stdout == b"755\n"
    with pytest.raises(RuntimeError, match=r"Upload of .* to /proc/x"):
        theirs.upload_file(str(tmp_path / "tests" / "test.sh"), "/proc/x/y")


def test_life_and_death_are_shared(ours: Sandbox) -> None:
    theirs = as_rllm(ours)
    assert theirs.is_alive()
    theirs.close()
    assert not theirs.is_alive()
    with pytest.raises(SandboxGone):
        theirs.exec("true")


@pytest.mark.rllm
def test_it_is_what_rllm_calls_a_sandbox(ours: Sandbox) -> None:
    reason = "rllm is missing: pip install 'rllm @ git+https://github.com/rllm-org/rllm'"
    protocol = pytest.importorskip("rllm.sandbox.protocol", reason=reason)
    assert isinstance(as_rllm(ours), protocol.Sandbox)
    assert protocol._safe_exec(as_rllm(ours), "exit 3").startswith("Command failed (exit 3)")
