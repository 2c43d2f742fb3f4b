"""The whole contract over rLLM's own Docker backend, with the base image."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from contract import *  # noqa: F403  (the tests)
from contract import TASK
from doors import LIMITS
from engines import no_engine

from aem_swe.errors import ConfigError, SandboxGone
from aem_swe.sandboxes import Sandbox
from aem_swe.sandboxes.base import BASE_IMAGE
from aem_swe.sandboxes.rllm import RllmSandboxes, as_rllm, rllm_backend
from aem_swe.types import Task

pytestmark = [pytest.mark.docker, pytest.mark.rllm]
COMMAND_LINES = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done"
"""Its PID 1 is a `sleep` that reaps nothing, so names of processes say little: a dead one has no command line."""


class WithImage(RllmSandboxes):
    """The contract's tasks bring no image."""

    def open(self, task: Task, *, purpose: str = "agent") -> Sandbox:
        return super().open(replace(task, image=task.image or BASE_IMAGE))


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[RllmSandboxes]:
    if reason := no_engine():
        pytest.skip(reason)
    try:
        create = rllm_backend("docker")
    except ConfigError as error:
        pytest.skip(str(error))
    with WithImage(create, limits=LIMITS, programs={"/opt/aem/who.py": "import sys\nprint(sys.executable)"}) as opened:
        yield opened


def test_a_time_limit_ends_the_command_and_all_that_it_started(sandbox: Sandbox) -> None:
    result = sandbox.run("trap '' TERM; echo before; setsid sleep 1000 & sleep 1000", timeout=0.3)
    assert (result.timed_out, result.stdout, result.exit_code) == (True, b"before\n", -9)
    assert b"sleep 1000" not in sandbox.run(COMMAND_LINES).stdout


def test_a_daemon_does_not_keep_its_command_open(sandbox: Sandbox) -> None:
    assert sandbox.run("setsid sleep 1000 & sleep 0.2; echo done").stdout == b"done\n"
    assert b"sleep 1000" in sandbox.run(COMMAND_LINES).stdout
    sandbox.kill_all()
    assert b"sleep 1000" not in sandbox.run(COMMAND_LINES).stdout


def test_two_sandboxes_share_nothing(sandboxes: RllmSandboxes, sandbox: Sandbox) -> None:
    sandbox.run("echo 1 > /tmp/mark; echo 1 > mark; echo 1 > /dev/shm/mark; setsid sleep 1000 &")
    with sandboxes.open(TASK, purpose="grading") as other:
        assert other.run("ls /tmp/mark mark /dev/shm/mark").stdout == b""
        assert b"sleep 1000" not in other.run(COMMAND_LINES).stdout


def test_a_fork_bomb_ends_at_its_time_limit(sandbox: Sandbox) -> None:
    result = sandbox.run("ulimit -u 400; f() { f | f & }; f; sleep 60", timeout=2)
    assert result.timed_out
    assert sandbox.run("echo ok").stdout == b"ok\n"


def test_killing_everything_is_a_result_and_the_sandbox_lives(sandbox: Sandbox) -> None:
    assert sandbox.run("kill -9 -1").exit_code == -9
    assert sandbox.run("echo ok").stdout == b"ok\n"


def test_a_full_place_for_output_is_the_agent_s_doing(sandbox: Sandbox) -> None:
    sandbox.run("head -c 70000000 /dev/zero > /dev/shm/all", timeout=30)
    assert sandbox.run("echo ok").stdout == b"ok\n"


def test_a_container_that_was_killed_is_gone_and_a_program_knows_its_python(sandbox: Sandbox) -> None:
    assert sandbox.run(["python3", "/opt/aem/who.py"]).stdout.startswith(b"/usr/")
    client = docker.from_env()
    name = sandbox.run(["cat", "/etc/hostname"]).stdout.decode().strip()
    client.containers.get(name).kill()
    with pytest.raises(SandboxGone):
        sandbox.run("true")
    client.close()


@pytest.mark.parametrize(("code", "reward"), [("exit 0", 1.0), ("exit 1", 0.0)])
def test_rllm_s_evaluator_grades_through_both_adapters(
    sandbox: Sandbox, tmp_path: Path, code: str, reward: float
) -> None:
    from rllm.eval.script_evaluator import ShellScriptEvaluator
    from rllm.types import Episode
    from rllm.types import Task as TheirTask

    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test.sh").write_text(
        f"#!/bin/bash\n({code}) && echo 1 > /logs/verifier/reward.txt || echo 0 > /logs/verifier/reward.txt\n"
    )
    task = TheirTask(id="t", instruction="", metadata={}, dataset_dir=tmp_path, sub_dir=None)
    result = ShellScriptEvaluator(as_rllm(sandbox)).evaluate(task, Episode())
    assert (result.reward, result.is_correct) == (reward, reward == 1.0)
