"""Engines and trainers that die in the middle of an episode: the episode goes on or is masked, and nothing is left."""

import contextlib
import gc
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import docker
import pytest
from command_line import environment
from engines import PrivateEngine, can_start_engines, containers_of, no_engine, private_engine

from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import AskPolicy, Limits
from aem_swe.agents.policy import turn_of
from aem_swe.drivers import run_thread
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.sandboxes import DockerSettings, SandboxLimits
from aem_swe.sandboxes.docker import DockerSandboxes
from aem_swe.sandboxes.gc import collect
from aem_swe.sandboxes.images import BASE_TAG
from aem_swe.tasks.demo import grading_programs, make_problem
from aem_swe.tasks.demonstrations import call
from aem_swe.types import Response, Task, Termination

pytestmark = [
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the SDK leaves
]
PROBLEM = make_problem("train", 3)
LIMITS = SandboxLimits(memory_mb=128, processes=32, disk_mb=16, command_timeout_s=30.0)

OWNER = """
import sys, time
from aem_swe.sandboxes import DockerSettings, SandboxLimits
from aem_swe.sandboxes.docker import DockerSandboxes
from aem_swe.sandboxes.gc import collect
from aem_swe.sandboxes.images import BASE_TAG
from aem_swe.types import Task
task = Task(id="t", statement=())
with DockerSandboxes(limits=SandboxLimits(), run=sys.argv[1], settings=DockerSettings(warm=3)) as sandboxes:
    sandboxes.expect([task] * 4)
    sandbox = sandboxes.open(task)
    print("open", flush=True)
    sandbox.run("sleep 1000", timeout=1000)
"""


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """The SDK leaves a socket to the garbage collector where it cannot connect: collect it here, not elsewhere."""
    yield
    gc.collect()


@pytest.fixture
def engine() -> Iterator[PrivateEngine]:
    if reason := no_engine():
        pytest.skip(reason)
    if not can_start_engines():
        pytest.skip("an engine that may be stopped needs root and dockerd (docker.io)")
    with private_engine() as opened:
        yield opened


def _solution() -> list[str]:
    file, good = f"{PROBLEM.target.module}.py", PROBLEM.target.variant.good
    return [
        call("execute_bash", cmd="ls"),
        call("execute_bash", cmd="sleep 2; head -1 run_tests.sh"),
        call("file_editor", command="str_replace", path=file, old_str=PROBLEM.bug, new_str=good),
        call("finish"),
    ]


class Scripted:
    """Says its lines in order; `before` may do something to the world first."""

    def __init__(self, lines: list[str], before: Callable[[int], None] = lambda turn: None) -> None:
        self._lines, self._before = lines, before

    def respond(self, ask: AskPolicy) -> Response:
        self._before(turn_of(ask))
        return Response(self._lines[turn_of(ask)], (), (), "stop")


def _episode(sandboxes: DockerSandboxes) -> EpisodeRun:
    setting = Setting(
        definition=load_agent("demo"),
        limits=Limits(max_steps=8, response_budget=10_000),
        history="keep_thinking",
        chat=None,
        sandboxes=sandboxes,
    )
    return EpisodeRun(setting, PROBLEM.task(), PROBLEM.grader(), group=0, rollout=0, seed=(0,))


def _programs() -> dict[str, str]:
    return {**load_agent("demo").programs(), **grading_programs()}


def test_an_engine_that_restarts_in_the_middle_costs_a_retry(engine: PrivateEngine) -> None:
    run = uuid.uuid4().hex
    settings = DockerSettings(engines=(engine.url,), warm=2)
    restarts: list[threading.Thread] = []

    def restart(turn: int) -> None:
        if turn == 1:

            def soon() -> None:
                time.sleep(0.3)  # in the middle of the command
                engine.stop()
                time.sleep(1.0)
                engine.start()

            restarts.append(threading.Thread(target=soon))
            restarts[0].start()

    with DockerSandboxes(limits=LIMITS, programs=_programs(), settings=settings, run=run) as sandboxes:
        sandboxes.expect([PROBLEM.task()] * 2)
        trajectory = run_thread(_episode(sandboxes), Scripted(_solution(), restart))
        restarts[0].join()
    assert (trajectory.termination, trajectory.reward, trajectory.reward_reason) == (
        Termination.FINISHED, 1.0, "tests_passed",
    )  # fmt: skip
    assert any(retry.startswith("execute_bash, attempt 1: ") for retry in trajectory.retries)
    assert containers_of(run, engine.url) == []


def test_an_engine_that_stays_away_ends_the_episode_as_an_infrastructure_error(engine: PrivateEngine) -> None:
    run = uuid.uuid4().hex
    settings = DockerSettings(engines=(engine.url,), warm=0, engine_wait_s=1.0)
    with DockerSandboxes(limits=LIMITS, programs=_programs(), settings=settings, run=run) as sandboxes:
        policy = Scripted(_solution(), lambda turn: engine.stop() if turn == 1 else None)
        trajectory = run_thread(_episode(sandboxes), policy)
        assert (trajectory.termination, trajectory.reward) == (Termination.INFRASTRUCTURE_ERROR, None)
        assert "cannot be reached" in trajectory.retries[-1]
        engine.start()
    assert containers_of(run, engine.url) == []


def test_a_container_killed_in_mid_command_costs_a_retry() -> None:
    if reason := no_engine():
        pytest.skip(reason)
    run = uuid.uuid4().hex

    def kill(turn: int) -> None:
        if turn == 1:
            victims = containers_of(run)

            def soon() -> None:
                time.sleep(0.3)
                subprocess.run(["docker", "kill", *victims], check=True, stdout=subprocess.DEVNULL)

            threading.Thread(target=soon).start()

    with DockerSandboxes(limits=LIMITS, programs=_programs(), settings=DockerSettings(warm=0), run=run) as sandboxes:
        trajectory = run_thread(_episode(sandboxes), Scripted(_solution(), kill))
    assert (trajectory.reward, trajectory.reward_reason) == (1.0, "tests_passed")
    assert [retry for retry in trajectory.retries if "ended with exit code 137" in retry]
    assert containers_of(run) == []


def test_a_trainer_that_is_killed_leaves_nothing_running_and_the_next_start_removes_the_rest() -> None:
    if reason := no_engine():
        pytest.skip(reason)
    run = uuid.uuid4().hex
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, run], stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    assert owner.stdout
    assert owner.stdout.readline() == "open\n"
    time.sleep(0.5)  # some of those started ahead are just being created
    assert containers_of(run)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    with DockerSandboxes(limits=LIMITS, settings=DockerSettings(warm=0)):
        pass
    assert containers_of(run) == []


def test_an_interrupted_trainer_removes_its_containers_itself() -> None:
    if reason := no_engine():
        pytest.skip(reason)
    run = uuid.uuid4().hex
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, run], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment(), start_new_session=True,
    )  # fmt: skip
    assert owner.stdout
    assert owner.stdout.readline() == "open\n"
    owner.send_signal(signal.SIGINT)
    owner.wait(30)
    owner.stdout.close()
    assert containers_of(run) == []


def test_two_engines_share_the_work(engine: PrivateEngine) -> None:
    run = uuid.uuid4().hex
    settings = DockerSettings(engines=("unix:///var/run/docker.sock", engine.url), warm=0)
    with DockerSandboxes(limits=LIMITS, settings=settings, run=run) as sandboxes:
        opened = [sandboxes.open(Task(id=str(number), statement=())) for number in range(4)]
        assert (len(containers_of(run)), len(containers_of(run, engine.url))) == (2, 2)
        engine.stop()
        with sandboxes.open(Task(id="more", statement=())) as more:
            assert more.run(["true"]).exit_code == 0
        assert len(containers_of(run)) >= 2
        engine.start()
        for sandbox in opened:
            sandbox.close()
    assert containers_of(run) == containers_of(run, engine.url) == []


def test_gc_removes_what_is_cached_when_nothing_runs(engine: PrivateEngine) -> None:
    settings = DockerSettings(engines=(engine.url,), warm=0)
    with DockerSandboxes(limits=LIMITS, settings=settings) as sandboxes:
        with sandboxes.open(Task(id="t", statement=())):
            (busy,) = collect(settings, cached=True)
            assert (busy.kept, busy.images, busy.volumes) == (1, 0, 0)
    (idle,) = collect(settings, cached=True)
    assert (idle.containers, idle.kept, idle.images, idle.volumes) == (0, 0, 1, 2)
    with (
        DockerSandboxes(limits=LIMITS, settings=settings) as sandboxes,
        sandboxes.open(Task(id="t", statement=())) as again,
    ):
        assert again.run(["true"]).exit_code == 0


def test_a_pool_goes_on_with_the_engine_that_works(engine: PrivateEngine) -> None:
    """An engine without the image, or that refuses, must not attract every start."""
    settings = DockerSettings(engines=(engine.url, "unix:///var/run/docker.sock"), warm=0)
    with DockerSandboxes(limits=LIMITS, settings=settings) as sandboxes:
        with contextlib.closing(docker.DockerClient(base_url=engine.url)) as client:
            client.images.remove(BASE_TAG, force=True)
        for number in range(3):
            with sandboxes.open(Task(id=str(number), statement=())) as sandbox:
                assert sandbox.run(["true"]).exit_code == 0
