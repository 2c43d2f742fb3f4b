"""The adapter onto the real r2egym: what needs it runs where it can be imported, with an engine and a small image."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import docker
import pytest
from docker.errors import DockerException

from aem_swe.errors import ConfigError, SandboxError, SandboxGone, TaskError
from aem_swe.sandboxes import SandboxLimits
from aem_swe.sandboxes.r2egym import INSTALL, R2EGymGrader, R2EGymSandboxes, _load, unavailable_reason
from aem_swe.sandboxes.reaper import LABEL
from aem_swe.tasks.grading import Problem
from aem_swe.types import Graded, Task

RUN = "test-r2egym"
LIMITS = SandboxLimits(command_timeout_s=60.0)
PROGRAMS = {"/opt/aem/who.py": "import sys\nprint(sys.version_info >= (3, 6), sys.executable)\n"}


def test_where_r2egym_is_missing_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "r2egym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "r2egym", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", sys)  # some module, so that nothing heavy is imported
    monkeypatch.setattr(sys, "HfFolder", None, raising=False)
    with pytest.raises(ConfigError, match="sandbox=r2egym needs the package r2egym") as caught:
        R2EGymSandboxes({}, limits=LIMITS).__enter__()
    assert INSTALL in str(caught.value) and "\n" not in str(caught.value)
    assert unavailable_reason() == str(caught.value)


def test_its_grader_takes_no_other_sandbox() -> None:
    from aem_swe.sandboxes.local import LocalSandboxes

    limits = SandboxLimits()
    task = Task(id="t", statement=())
    try:
        with LocalSandboxes(limits=limits) as sandboxes, sandboxes.open(task) as sandbox:
            with pytest.raises(ConfigError, match="set sandbox=r2egym with it"):
                R2EGymGrader().grade(task, b"", sandbox)
    except SandboxError as error:
        pytest.skip(str(error))


# --- with r2egym and an engine


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, dict[str, object]], Problem]:
    """The row of a small task in R2E-Gym's form, with its image, and its problem."""
    if reason := unavailable_reason():
        pytest.skip(reason)
    from aem_swe.tasks import r2e_build, r2e_gym, rows

    try:
        with contextlib.closing(docker.from_env()) as client:
            path = r2e_build.build(client, tmp_path_factory.mktemp("r2e"), ["toolz"])
    except (DockerException, SandboxError) as error:
        pytest.skip(f"no container engine: {error}; start one (dockerd) to run these tests")
    (row,) = rows.read_rows(path)
    assert not isinstance(row, rows.BadRow)
    problem = replace(r2e_gym.make_problem(row), grader=R2EGymGrader())
    return {problem.task.id: dict(row)}, problem


@pytest.fixture(scope="module")
def sandboxes(built: tuple[dict[str, dict[str, object]], Problem]) -> Iterator[R2EGymSandboxes]:
    with R2EGymSandboxes(built[0], limits=LIMITS, programs=PROGRAMS, run=RUN) as opened:
        yield opened
    with contextlib.closing(docker.from_env()) as client:
        assert client.containers.list(all=True, filters={"label": f"{LABEL}.run={RUN}"}) == []


@pytest.fixture(scope="module")
def problem(built: tuple[dict[str, dict[str, object]], Problem]) -> Problem:
    return built[1]


def episode(sandboxes: R2EGymSandboxes, problem: Problem, change: str = "true", patch: bytes = b"") -> Graded:
    """What a rollout does: the agent works, its diff is taken, another sandbox is opened for grading."""
    with sandboxes.open(problem.task, purpose="agent") as agent:
        assert agent.run(["git", "apply", "-"], stdin=patch).exit_code == 0 or not patch
        assert agent.run(change).exit_code == 0
        diff = agent.diff()
        with sandboxes.open(problem.task, purpose="grading") as grading:
            graded = problem.grader.grade(problem.task, diff, grading)
        assert agent.alive()
    return graded


in_containers = pytest.mark.docker


@in_containers
def test_no_op_is_0_and_gold_1_in_the_agent_s_own_container(sandboxes: R2EGymSandboxes, problem: Problem) -> None:
    graded = episode(sandboxes, problem)
    assert (graded.reward, graded.reason) == (0.0, "tests_failed")
    assert "short test summary info" in graded.output
    assert episode(sandboxes, problem, patch=problem.gold).reward == 1.0


@in_containers
def test_a_grading_sandbox_without_a_diff_before_it_is_fresh_and_gets_the_patch(
    sandboxes: R2EGymSandboxes, problem: Problem
) -> None:
    for diff, reward, reason in (
        (problem.gold, 1.0, "tests_passed"),
        (b"", 0.0, "tests_failed"),
        (b"diff --git a/no b/no\n--- a/no\n+++ b/no\n@@ -1 +1 @@\n-a\n+b\n", 0.0, "patch_does_not_apply"),
    ):
        with sandboxes.open(problem.task, purpose="grading") as fresh:
            graded = problem.grader.grade(problem.task, diff, fresh)
        assert (graded.reward, graded.reason) == (reward, reason)


@in_containers
def test_the_flaws_are_the_original_s(sandboxes: R2EGymSandboxes, problem: Problem) -> None:
    """Tests within reach, a result that a conftest.py forges, and a change that no diff shows."""
    forged = """cat > conftest.py <<'END'
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    report.outcome = "passed"
    report.longrepr = None
END
"""
    assert episode(sandboxes, problem, "ls r2e_tests/ && cat r2e_tests/*.py && cat /root/run_tests.sh").reward == 0.0
    assert episode(sandboxes, problem, forged).reward == 1.0
    assert episode(sandboxes, problem, "printf '#!/bin/bash\\nexit 0\\n' > /root/run_tests.sh").reward == 0.0


@in_containers
def test_the_diff_is_recorded_and_holds_only_what_the_agent_did(sandboxes: R2EGymSandboxes, problem: Problem) -> None:
    with sandboxes.open(problem.task) as agent:
        assert agent.diff() == b""
        agent.write("new.txt", b"1\n")
        assert agent.diff().startswith(b"diff --git a/new.txt b/new.txt\nnew file mode 100644\n")
        assert agent.run("setsid sleep 1000 & sleep 0.1").exit_code == 0
        agent.diff()
        assert b"sleep 1000" in agent.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout  # they live on, as there


@in_containers
def test_commands_and_tools_run_as_in_the_original(sandboxes: R2EGymSandboxes, problem: Problem) -> None:
    with sandboxes.open(problem.task) as agent:
        assert agent.run("pwd; echo $PATH").stdout.startswith(b"/testbed\n/root/.venv/bin:/root/.local/bin:")
        assert agent.run(["python3", "/opt/aem/who.py"]).stdout.startswith(b"True /")
        result = agent.run("echo out; echo err >&2; exit 3")
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
        assert agent.run("sleep 60", timeout=0.5).timed_out
        assert agent.run(["cat"], stdin=bytes(range(256)) * 400, max_output=200_000).stdout == bytes(range(256)) * 400


@in_containers
def test_episodes_of_the_same_task_in_several_threads_get_their_own_rewards(
    sandboxes: R2EGymSandboxes, problem: Problem
) -> None:
    barrier = threading.Barrier(3)

    def work(index: int) -> float | None:
        barrier.wait(60)
        return episode(sandboxes, problem, patch=problem.gold if index == 1 else b"").reward

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [0.0, 1.0, 0.0]


@in_containers
def test_a_container_that_dies_before_its_reward_is_no_0(sandboxes: R2EGymSandboxes, problem: Problem) -> None:
    with sandboxes.open(problem.task) as agent:
        diff = agent.diff()
        name = agent.run(["cat", "/etc/hostname"]).stdout.decode().strip()
        grading = sandboxes.open(problem.task, purpose="grading")
        with contextlib.closing(docker.from_env()) as client:
            client.containers.get(name).kill()
        with pytest.raises(SandboxGone, match="ended while r2egym computed its reward"):
            problem.grader.grade(problem.task, diff, grading)
    for _ in range(2):  # a retry of the same episode finds no other container
        with pytest.raises(SandboxGone, match="r2egym computes the reward nowhere else"):
            sandboxes.open(problem.task, purpose="grading")
    assert episode(sandboxes, problem).reward == 0.0  # the next one in this thread does


@in_containers
def test_containers_carry_the_labels_that_gc_looks_for(sandboxes: R2EGymSandboxes, problem: Problem) -> None:
    with sandboxes.open(problem.task) as agent, contextlib.closing(docker.from_env()) as client:
        found = client.containers.list(filters={"label": [f"{LABEL}=container", f"{LABEL}.run={RUN}"]})
        assert agent.run(["cat", "/etc/hostname"]).stdout.decode().strip() in [one.short_id for one in found]


@in_containers
def test_a_task_without_a_row_or_with_a_bad_one_or_without_image_is_named(
    built: tuple[dict[str, dict[str, object]], Problem],
) -> None:
    rows, problem = built
    ((name, row),) = rows.items()
    bad = {name: row | {"parsed_commit_content": "{"}, "imageless": row | {"docker_image": "aem-swe/no-such:image"}}
    with R2EGymSandboxes(bad, limits=LIMITS, run=RUN) as sandboxes:
        with pytest.raises(TaskError, match="unknown: is no row of R2E-Gym"):
            sandboxes.open(replace(problem.task, id="unknown"))
        with pytest.raises(TaskError, match=f"{name}: its row is not one that r2egym can use: JSONDecodeError"):
            sandboxes.open(problem.task)
        with pytest.raises(SandboxError, match="imageless: no sandbox of image"):
            sandboxes.open(replace(problem.task, id="imageless"))


@in_containers
def test_importing_it_leaves_logging_as_it_was() -> None:
    import logging

    if reason := unavailable_reason():
        pytest.skip(reason)
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        _load()
        assert handler in logging.getLogger().handlers
    finally:
        logging.getLogger().removeHandler(handler)
