"""Driving episodes in real sandboxes: the drivers agree, failures are retried and recorded, never rewarded."""

import asyncio
import pickle
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Self  # Any: a sandbox's arguments are passed on as they are

import pytest

from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import AskPolicy, Limits
from aem_swe.agents.policy import ScriptedPolicy, turn_of
from aem_swe.drivers import run_async, run_cohorts, run_thread
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import LocalModel, load_model
from aem_swe.errors import PolicyError, SandboxError, SandboxGone, TaskError
from aem_swe.profiling import Stopwatch
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.sandboxes import CommandResult, Sandbox, Sandboxes, SandboxLimits, open_sandboxes, unavailable_reason
from aem_swe.sandboxes.base import Purpose
from aem_swe.tasks.demo import DemoProblem, grading_programs, make_problem
from aem_swe.tasks.demonstrations import call
from aem_swe.types import Response, Task, Termination, Trajectory

LIMITS = Limits(max_steps=6, response_budget=400, max_response_tokens=100)
PROBLEM = make_problem("train", 3)
FILE = f"{PROBLEM.target.module}.py"


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return load_model("builtin/demo-policy", device="cpu")


@pytest.fixture(scope="module")
def real() -> Iterator[Sandboxes]:
    if reason := unavailable_reason("local"):
        pytest.skip(reason)
    programs = {**load_agent("demo").programs(), **grading_programs()}
    with open_sandboxes("local", limits=SandboxLimits(command_timeout_s=1.0), programs=programs) as opened:
        yield opened


# --- real sandboxes in which something goes wrong


@dataclass
class Watched:
    """A real sandbox that reports what it is asked for, and to which `before` may do something first."""

    inner: Sandbox
    owner: "Watching"
    purpose: Purpose
    number: int
    """How many sandboxes of this purpose were opened before."""
    commands: list[str] = field(default_factory=list)

    def run(self, command: Sequence[str] | str, **options: Any) -> CommandResult:
        shown = command if isinstance(command, str) else options.get("stdin", b"").decode()
        self.commands.append(shown)
        self.owner.before(self, "run")
        return self.inner.run(command, **options)

    def diff(self) -> bytes:
        self.owner.before(self, "diff")
        return self.inner.diff()

    def close(self) -> None:
        self.owner.closed += 1
        self.inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass
class Watching:
    """The real sandboxes, each of them Watched."""

    inner: Sandboxes
    before: Callable[[Watched, str], None] = lambda sandbox, what: None
    opened: list[Watched] = field(default_factory=list)
    closed: int = 0

    def open(self, task: Task, *, purpose: Purpose = "agent") -> Watched:
        number = sum(sandbox.purpose == purpose for sandbox in self.opened)
        sandbox = Watched(self.inner.open(task, purpose=purpose), self, purpose, number)
        self.opened.append(sandbox)
        return sandbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def dying(purpose: Purpose, what: str, *, at: int = 1, sandboxes: int = 1) -> Callable[[Watched, str], None]:
    """In the first `sandboxes` sandboxes of `purpose`, kill it at its `at`-th call of `what`."""
    calls: dict[int, int] = {}

    def before(sandbox: Watched, called: str) -> None:
        if (sandbox.purpose, called) == (purpose, what) and sandbox.number < sandboxes:
            calls[sandbox.number] = calls.get(sandbox.number, 0) + 1
            if calls[sandbox.number] == at:
                sandbox.inner.close()
                raise SandboxGone("the machine was switched off")

    return before


# --- scripts

Script = Callable[[AskPolicy], str]


def script(*turns: str) -> Script:
    return lambda ask: turns[min(turn_of(ask), len(turns) - 1)]


def gold(problem: DemoProblem = PROBLEM) -> Script:
    old, new = f"return {problem.bug}", f"return {problem.target.variant.good}"
    return script(
        call("search", search_term=problem.target.name),
        call("execute_bash", cmd="echo note >> notes.txt"),
        call("file_editor", command="str_replace", path=f"{problem.target.module}.py", old_str=old, new_str=new),
        call("execute_bash", cmd="sh run_tests.sh; cat notes.txt"),
        call("finish", command="submit"),
    )


def setting(sandboxes: object, model: LocalModel, **changes: Any) -> Setting:
    made = Setting(load_agent("demo"), LIMITS, "keep_thinking", model.chat, sandboxes)  # type: ignore[arg-type]  # Watching passes on what it lacks
    return replace(made, **changes)


def episode_of(made: Setting, problem: DemoProblem = PROBLEM, rollout: int = 0) -> EpisodeRun:
    return EpisodeRun(made, problem.task(), problem.grader(), group=2, rollout=rollout, seed=(1, rollout))


def untimed(trajectory: Trajectory) -> Trajectory:
    return replace(trajectory, seconds={})


def verdict(trajectory: Trajectory) -> tuple[Termination, float | None, str]:
    return trajectory.termination, trajectory.reward, trajectory.reward_reason


def play(made: Setting, say: Script, problem: DemoProblem = PROBLEM) -> Trajectory:
    assert made.chat is not None
    return run_thread(episode_of(made, problem), ScriptedPolicy(say, made.chat))


# --- the drivers


def test_a_gold_episode_gets_its_reward_and_records_everything(real: Sandboxes, model: LocalModel) -> None:
    watching = Watching(real)
    trajectory = play(setting(watching, model), gold())
    assert verdict(trajectory) == (Termination.FINISHED, 1.0, "tests_passed")
    assert (trajectory.task_id, trajectory.group, trajectory.rollout, trajectory.retries) == ("demo-train-3", 2, 0, ())
    assert f"+    return {PROBLEM.target.variant.good}\n".encode() in trajectory.diff
    assert [turn.observation for turn in trajectory.turns][2:] == [f"The file {FILE} was edited.", "4 passed\nnote", ""]
    assert set(trajectory.seconds) == {"sandbox", "tools", "reward"}
    assert [sandbox.purpose for sandbox in watching.opened] == ["agent", "grading"]
    assert watching.closed == 2


def test_the_three_drivers_give_the_same_scripted_trajectories(real: Sandboxes, model: LocalModel) -> None:
    problems = [make_problem("train", seed) for seed in range(4)]
    nonsense, cut = script("no call"), script("blah " * 200)
    scripts = [gold(problems[0]), gold(problems[3]), nonsense, cut]
    made = setting(real, model)

    def runs() -> list[EpisodeRun]:
        return [episode_of(made, problem, rollout) for rollout, problem in enumerate(problems)]

    policies = [ScriptedPolicy(say, model.chat) for say in scripts]
    by_thread = [untimed(run_thread(run, policy)) for run, policy in zip(runs(), policies, strict=True)]

    async def together() -> list[Trajectory]:
        async def ask(policy: ScriptedPolicy, asked: AskPolicy) -> Response:
            await asyncio.sleep(0)
            return policy.respond(asked)

        pairs = zip(runs(), policies, strict=True)
        return await asyncio.gather(*(run_async(run, lambda asked, p=policy: ask(p, asked)) for run, policy in pairs))  # type: ignore[misc]  # mypy and default arguments

    assert [untimed(trajectory) for trajectory in asyncio.run(together())] == by_thread
    first, second = runs()[:2], runs()[2:]
    with ThreadPoolExecutor(3) as workers:
        cohorts = run_cohorts([first, second], [_Rows(policies[:2]), _Rows(policies[2:])], workers, Stopwatch())
    assert [untimed(trajectory) for trajectory in cohorts] == by_thread
    ends = [(trajectory.termination, trajectory.reward) for trajectory in by_thread]
    assert ends[0][0] is Termination.FINISHED
    assert ends[2:] == [(Termination.MAX_STEPS, 0.0), (Termination.TOKEN_BUDGET, 0.0)]


@dataclass
class _Rows:
    """A BatchPolicy with a policy of its own for every row."""

    policies: Sequence[ScriptedPolicy]

    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
        return [policy.respond(ask) if ask else None for policy, ask in zip(self.policies, asks, strict=True)]


def sampler(model: LocalModel, rows: int) -> Sampler:
    return Sampler(model, rows=rows, context=600, temperature=1.0, seed=11)


def test_the_three_drivers_give_the_same_trajectories_of_the_embedded_model(real: Sandboxes, model: LocalModel) -> None:
    made = setting(real, model)
    by_thread = [untimed(run_thread(episode_of(made, rollout=rollout), sampler(model, 1))) for rollout in range(3)]

    async def one(rollout: int) -> Trajectory:
        own = sampler(model, 1)

        async def policy(ask: AskPolicy) -> Response:
            return own.respond(ask)

        return await run_async(episode_of(made, rollout=rollout), policy)

    assert [untimed(asyncio.run(one(rollout))) for rollout in range(3)] == by_thread
    with ThreadPoolExecutor(2) as workers:
        cohorts = [[episode_of(made, rollout=rollout)] for rollout in range(3)]
        got = run_cohorts(cohorts, [sampler(model, 1) for _ in range(3)], workers, Stopwatch())
    assert [untimed(trajectory) for trajectory in got] == by_thread
    said = {tuple(turn.response_ids for turn in trajectory.turns) for trajectory in by_thread}
    assert len(said) == 3, "each rollout has its own random stream"
    for trajectory in by_thread:
        for before, after in zip(trajectory.turns, trajectory.turns[1:], strict=False):
            everything = before.prompt_ids + before.response_ids
            assert after.prompt_ids[: len(everything)] == everything


def cohorts_of(made: Setting, model: LocalModel) -> list[Trajectory]:
    """Two cohorts of four episodes, sampled from the embedded model."""
    problems = [make_problem("train", seed) for seed in (3, 4)]
    cohorts = [[episode_of(made, problem, rollout) for rollout in range(4)] for problem in problems]
    with ThreadPoolExecutor(4) as workers:
        got = run_cohorts(cohorts, [sampler(model, 4), sampler(model, 4)], workers, Stopwatch())
    return [untimed(trajectory) for trajectory in got]


def test_delays_in_the_tools_change_nothing(real: Sandboxes, model: LocalModel) -> None:
    undisturbed = cohorts_of(setting(real, model), model)
    delays = random.Random(0)
    slow = Watching(real, lambda sandbox, what: time.sleep(0.05 * delays.random()))
    assert cohorts_of(setting(slow, model), model) == undisturbed


def test_the_stopwatch_of_cohorts_tells_policy_time_from_waiting(real: Sandboxes, model: LocalModel) -> None:
    stopwatch = Stopwatch()
    with ThreadPoolExecutor(1) as workers:
        run_cohorts([[episode_of(setting(real, model))]], [ScriptedPolicy(gold(), model.chat)], workers, stopwatch)
    assert set(stopwatch.seconds) == {"rollout_policy", "rollout_wait"}


def test_trajectories_pickle(real: Sandboxes, model: LocalModel) -> None:
    trajectory = play(setting(real, model), gold())
    assert pickle.loads(pickle.dumps(trajectory)) == trajectory


# --- a sandbox fails


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_sandbox_that_dies_is_replaced_and_the_earlier_actions_are_replayed(
    real: Sandboxes, model: LocalModel, at: int
) -> None:
    undisturbed = play(setting(real, model), gold())
    watching = Watching(real, dying("agent", "run", at=at))
    trajectory = play(setting(watching, model), gold())
    assert replace(untimed(trajectory), retries=()) == untimed(undisturbed)
    (line,) = trajectory.retries
    assert line.endswith(", attempt 1: the machine was switched off")
    first, second = (sandbox for sandbox in watching.opened if sandbox.purpose == "agent")
    assert first.commands == second.commands[:at]
    assert len(second.commands) == 4
    assert watching.closed == len(watching.opened) == 3


def test_a_sandbox_that_dies_while_the_diff_is_taken_is_replayed_too(real: Sandboxes, model: LocalModel) -> None:
    trajectory = play(setting(Watching(real, dying("agent", "diff")), model), gold())
    assert (trajectory.reward, trajectory.retries) == (1.0, ("diff, attempt 1: the machine was switched off",))


def test_a_sandbox_that_dies_while_grading_is_replaced(real: Sandboxes, model: LocalModel) -> None:
    for at in (1, 2):
        trajectory = play(setting(Watching(real, dying("grading", "run", at=at)), model), gold())
        assert (trajectory.reward, trajectory.retries) == (1.0, ("grading, attempt 1: the machine was switched off",))


@pytest.mark.parametrize(("purpose", "what"), [("agent", "run"), ("agent", "diff"), ("grading", "run")])
def test_a_sandbox_that_keeps_dying_is_an_infrastructure_error_without_a_reward(
    real: Sandboxes, model: LocalModel, purpose: Purpose, what: str
) -> None:
    watching = Watching(real, dying(purpose, what, sandboxes=99))
    trajectory = play(setting(watching, model, retries=2), gold())
    assert (trajectory.termination, trajectory.reward) == (Termination.INFRASTRUCTURE_ERROR, None)
    assert trajectory.reward_reason == "infrastructure_error"
    tries = [line.removesuffix(": the machine was switched off").rpartition(", ")[2] for line in trajectory.retries]
    assert tries == ["attempt 1", "attempt 2", "gave up"]
    assert watching.closed == len(watching.opened)
    assert "switched off" not in "".join(turn.observation for turn in trajectory.turns)


def test_a_sandbox_that_cannot_even_be_opened_is_an_infrastructure_error(real: Sandboxes, model: LocalModel) -> None:
    class Broken:
        def open(self, task: Task, *, purpose: Purpose = "agent") -> Sandbox:
            raise SandboxError("no room left")

    trajectory = play(setting(Broken(), model, retries=1), gold())
    assert (trajectory.termination, trajectory.reward) == (Termination.INFRASTRUCTURE_ERROR, None)
    assert trajectory.retries == ("search, attempt 1: no room left", "gave up: no room left")


def test_one_dead_sandbox_of_eight_leaves_the_other_seven_as_they_are(real: Sandboxes, model: LocalModel) -> None:
    undisturbed = cohorts_of(setting(real, model), model)
    victim = next(i for i, trajectory in enumerate(undisturbed) if trajectory.diff)
    task, rollout = undisturbed[victim].task_id, undisturbed[victim].rollout
    watching = Watching(real)
    made, cut_off = setting(watching, model), setting(Watching(real, dying("agent", "run", sandboxes=99)), model)
    problems = [make_problem("train", seed) for seed in (3, 4)]
    cohorts = [
        [episode_of(cut_off if (p.task().id, r) == (task, rollout) else made, p, r) for r in range(4)] for p in problems
    ]
    with ThreadPoolExecutor(4) as workers:
        got = [untimed(t) for t in run_cohorts(cohorts, [sampler(model, 4), sampler(model, 4)], workers, Stopwatch())]
    assert got[victim].termination is Termination.INFRASTRUCTURE_ERROR
    assert got[:victim] + got[victim + 1 :] == undisturbed[:victim] + undisturbed[victim + 1 :]


# --- the policy fails


def test_a_policy_error_is_an_infrastructure_error_with_the_turns_so_far(real: Sandboxes, model: LocalModel) -> None:
    scripted = ScriptedPolicy(gold(), model.chat)

    def respond(ask: AskPolicy) -> Response:
        if turn_of(ask) == 2:
            raise PolicyError("the endpoint is down")
        return scripted.respond(ask)

    @dataclass
    class Failing:
        def respond(self, ask: AskPolicy) -> Response:
            return respond(ask)

    async def arespond(ask: AskPolicy) -> Response:
        return respond(ask)

    watching = Watching(real)
    made = setting(watching, model)
    by_thread = run_thread(episode_of(made), Failing())
    assert (by_thread.termination, by_thread.reward) == (Termination.INFRASTRUCTURE_ERROR, None)
    assert (by_thread.retries, len(by_thread.turns)) == (("policy: the endpoint is down",), 2)
    assert untimed(asyncio.run(run_async(episode_of(made), arespond))) == untimed(by_thread)
    assert watching.closed == len(watching.opened) == 2


# --- limits of time


def test_an_episode_beyond_its_wall_clock_limit_ends_ungraded(real: Sandboxes, model: LocalModel) -> None:
    trajectory = play(setting(real, model, trajectory_timeout_s=0.0), gold())
    assert verdict(trajectory) == (Termination.TIMEOUT, 0.0, "not_graded")
    assert trajectory.turns == ()


def test_the_wall_clock_limit_is_looked_at_after_every_action(real: Sandboxes, model: LocalModel) -> None:
    say = script(call("execute_bash", cmd="sleep 0.6"))
    trajectory = play(setting(real, model, trajectory_timeout_s=0.5), say)
    assert (trajectory.termination, len(trajectory.turns)) == (Termination.TIMEOUT, 1)


def test_an_action_at_its_time_limit_is_tried_once_more_and_recorded(real: Sandboxes, model: LocalModel) -> None:
    watching = Watching(real)
    say = script(
        call("execute_bash", cmd="echo 1 >> count"), call("execute_bash", cmd="cat count; sleep 60"), call("finish")
    )
    trajectory = play(setting(watching, model), say)
    assert trajectory.retries == ("execute_bash: reached its time limit",)
    assert trajectory.turns[1].observation == "1\n<the command reached its time limit and was killed>"
    assert [len(sandbox.commands) for sandbox in watching.opened[:2]] == [2, 2]


def test_an_action_that_was_only_slow_once_succeeds_at_the_second_try(real: Sandboxes, model: LocalModel) -> None:
    def busy(sandbox: Watched, what: str) -> None:
        if sandbox.purpose == "agent" and sandbox.number == 0 and sandbox.commands[-1] == "sh run_tests.sh":
            sandbox.inner.write("run_tests.sh", b"sleep 60")

    say = script(call("execute_bash", cmd="sh run_tests.sh"), call("finish"))
    trajectory = play(setting(Watching(real, busy), model), say)
    assert trajectory.retries == ("execute_bash: reached its time limit",)
    assert not trajectory.turns[0].observation.endswith("killed>")
    assert trajectory.diff == b""


def test_tests_at_their_time_limit_are_run_once_more_and_then_failed(real: Sandboxes, model: LocalModel) -> None:
    watching = Watching(real)
    say = script(call("execute_bash", cmd=f"echo 'while True: pass' > {FILE}"), call("finish"))
    trajectory = play(setting(watching, model), say)
    assert (trajectory.reward, trajectory.reward_reason) == (0.0, "tests_timeout")
    assert trajectory.retries == ("grading: the tests reached their time limit",)
    assert [sandbox.purpose for sandbox in watching.opened] == ["agent", "grading", "grading"]


# --- what an agent leaves behind, and mistakes of ours


def test_a_change_too_large_for_a_patch_is_0_and_no_failure_of_the_sandbox(real: Sandboxes, model: LocalModel) -> None:
    say = script(call("execute_bash", cmd="head -c 20000000 /dev/urandom > big"), call("finish"))
    trajectory = play(setting(real, model), say)
    assert (trajectory.termination, trajectory.reward) == (Termination.FINISHED, 0.0)
    assert (trajectory.reward_reason, trajectory.retries) == ("no_patch", ())


def test_a_bad_task_is_recorded_with_its_id_and_ends_only_its_own_episode(real: Sandboxes, model: LocalModel) -> None:
    class Unfit:
        def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Any:  # never returns
            raise TaskError(f"{task.id}: has no tests")

    watching = Watching(real)
    run = EpisodeRun(setting(watching, model), PROBLEM.task(), Unfit(), group=0, rollout=0, seed=(1,))
    trajectory = run_thread(run, ScriptedPolicy(gold(), model.chat))
    assert verdict(trajectory) == (Termination.INFRASTRUCTURE_ERROR, None, "infrastructure_error")
    assert trajectory.retries == ("gave up: demo-train-3: has no tests",)
    assert watching.closed == len(watching.opened) == 2


def test_an_error_of_ours_ends_the_run_and_closes_the_sandbox(real: Sandboxes, model: LocalModel) -> None:
    class Broken:
        def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Any:  # never returns
            raise ZeroDivisionError("a bug")

    watching = Watching(real)
    run = EpisodeRun(setting(watching, model), PROBLEM.task(), Broken(), group=0, rollout=0, seed=(1,))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_thread(run, ScriptedPolicy(gold(), model.chat))
    assert watching.closed == len(watching.opened) == 2


def test_cohorts_that_are_interrupted_close_every_sandbox(real: Sandboxes, model: LocalModel) -> None:
    policy = ScriptedPolicy(gold(), model.chat)

    class Interrupted:
        def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
            if any(ask and turn_of(ask) == 2 for ask in asks):
                raise KeyboardInterrupt
            return policy.respond_batch(asks)

    watching = Watching(real)
    made = setting(watching, model)
    with ThreadPoolExecutor(2) as workers, pytest.raises(KeyboardInterrupt):
        run_cohorts([[episode_of(made, rollout=r) for r in range(3)]], [Interrupted()], workers, Stopwatch())
    assert watching.closed == len(watching.opened) == 3


@dataclass
class _WhenOpened:
    """A BatchPolicy that waits, at the first turn, until so many sandboxes are open."""

    policy: ScriptedPolicy
    watching: Watching
    wanted: int

    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
        until = time.monotonic() + 20
        while len(self.watching.opened) < self.wanted and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.watching.opened) >= self.wanted
        return self.policy.respond_batch(asks)


def test_sandboxes_are_opened_while_the_first_responses_are_generated(real: Sandboxes, model: LocalModel) -> None:
    watching = Watching(real)
    runs = [episode_of(setting(watching, model), rollout=rollout) for rollout in range(3)]
    with ThreadPoolExecutor(2) as workers:
        policy = _WhenOpened(ScriptedPolicy(gold(), model.chat), watching, 3)
        got = run_cohorts([runs], [policy], workers, Stopwatch())
    assert [verdict(one) for one in got] == [(Termination.FINISHED, 1.0, "tests_passed")] * 3
    assert watching.closed == len(watching.opened) == 6


def test_a_sandbox_that_was_opened_ahead_for_nothing_is_closed(real: Sandboxes, model: LocalModel) -> None:
    watching = Watching(real)
    made = setting(watching, model, limits=replace(LIMITS, max_response_tokens=2))  # cut before there is an action
    with ThreadPoolExecutor(1) as workers:
        policy = _WhenOpened(ScriptedPolicy(gold(), model.chat), watching, 1)
        got = run_cohorts([[episode_of(made)]], [policy], workers, Stopwatch())
    assert got[0].termination is Termination.TOKEN_BUDGET
    assert watching.closed == len(watching.opened) == 1


def test_a_sandbox_that_cannot_be_opened_ahead_is_tried_again(real: Sandboxes, model: LocalModel) -> None:
    class Refusing(Watching):
        refused = False

        def open(self, task: Task, *, purpose: Purpose = "agent") -> Watched:
            if not self.refused:
                self.refused = True
                raise SandboxError("no room")
            return super().open(task, purpose=purpose)

    with ThreadPoolExecutor(1) as workers:
        runs = [episode_of(setting(Refusing(real), model))]
        got = run_cohorts([runs], [ScriptedPolicy(gold(), model.chat)], workers, Stopwatch())
    assert verdict(got[0]) == (Termination.FINISHED, 1.0, "tests_passed")
    assert got[0].retries == ("search, attempt 1: no room",)


def test_seconds_are_a_mapping_of_stages_to_time(real: Sandboxes, model: LocalModel) -> None:
    seconds = play(setting(real, model), script(call("execute_bash", cmd="sleep 0.3"), call("finish"))).seconds
    assert isinstance(seconds, Mapping)
    assert 0.3 <= seconds["tools"] < 1.0


@dataclass
class _Asked:
    """A BatchPolicy of scripts that sets an event when a row is asked for its n-th turn."""

    policies: Sequence[ScriptedPolicy]
    turn: int
    event: threading.Event

    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
        if any(ask and turn_of(ask) == self.turn for ask in asks):
            self.event.set()
        return _Rows(self.policies).respond_batch(asks)


def test_a_reward_in_the_making_holds_up_no_turn_of_the_others(real: Sandboxes, model: LocalModel) -> None:
    asked, in_time = threading.Event(), []

    def before(sandbox: Watched, what: str) -> None:
        if sandbox.purpose == "grading" and not in_time:
            in_time.append(asked.wait(20))

    made = setting(Watching(real, before), model)
    at_once = script(call("finish", command="submit"))
    policies = [ScriptedPolicy(say, model.chat) for say in (at_once, gold())]
    runs = [episode_of(made, rollout=rollout) for rollout in range(2)]
    with ThreadPoolExecutor(2) as workers, ThreadPoolExecutor(1) as graders:
        got = run_cohorts([runs], [_Asked(policies, 4, asked)], workers, Stopwatch(), graders)
    assert in_time == [True]
    assert [trajectory.reward for trajectory in got] == [0.0, 1.0]


def test_of_two_cohorts_the_one_that_is_ready_is_asked_first(real: Sandboxes, model: LocalModel) -> None:
    asked, in_time = threading.Event(), []

    def before(sandbox: Watched, what: str) -> None:
        if what == "run" and sandbox.owner is slow and not in_time:
            in_time.append(asked.wait(20))

    slow = Watching(real, before)
    runs = [[episode_of(setting(slow, model), rollout=0)], [episode_of(setting(real, model), rollout=1)]]
    scripted = ScriptedPolicy(gold(), model.chat)
    policies = [_Rows([scripted]), _Asked([scripted], 3, asked)]
    with ThreadPoolExecutor(2) as workers:
        got = run_cohorts(runs, policies, workers, Stopwatch())
    assert in_time == [True]
    assert [trajectory.reward for trajectory in got] == [1.0, 1.0]


def test_an_error_in_a_reward_ends_the_rollout_and_leaves_no_sandbox(real: Sandboxes, model: LocalModel) -> None:
    def before(sandbox: Watched, what: str) -> None:
        if sandbox.purpose == "grading":
            raise ZeroDivisionError("a bug of the grader's")

    watching = Watching(real, before)
    runs = [episode_of(setting(watching, model), rollout=rollout) for rollout in range(3)]
    with ThreadPoolExecutor(2) as workers, pytest.raises(ZeroDivisionError):
        run_cohorts([runs], [_Rows([ScriptedPolicy(gold(), model.chat)] * 3)], workers, Stopwatch())
    assert watching.closed == len(watching.opened) > 0


def test_an_error_in_a_reward_is_met_at_the_next_turn_of_anybody(real: Sandboxes, model: LocalModel) -> None:
    def before(sandbox: Watched, what: str) -> None:
        if sandbox.purpose == "grading":
            raise ZeroDivisionError("a bug of the grader's")

    made, turns = setting(Watching(real, before), model, limits=replace(LIMITS, max_steps=50)), []

    def endless(ask: AskPolicy) -> str:
        turns.append(turn_of(ask))
        time.sleep(0.05)
        return call("execute_bash", cmd="true")

    policies = [ScriptedPolicy(say, model.chat) for say in (script(call("finish", command="submit")), endless)]
    runs = [episode_of(made, rollout=rollout) for rollout in range(2)]
    with ThreadPoolExecutor(2) as workers, pytest.raises(ZeroDivisionError):
        run_cohorts([runs], [_Rows(policies)], workers, Stopwatch())
    assert max(turns) < 20


def test_an_error_in_closing_a_sandbox_is_no_reward_of_zero(real: Sandboxes, model: LocalModel) -> None:
    class Stubborn(Watched):
        def close(self) -> None:
            super().close()
            if self.purpose == "agent":
                raise ConnectionResetError("the engine hung up")

    class Opening(Watching):
        def open(self, task: Task, *, purpose: Purpose = "agent") -> Watched:
            made = super().open(task, purpose=purpose)
            return Stubborn(made.inner, self, purpose, made.number)

    with pytest.raises(ConnectionResetError):
        play(setting(Opening(real), model), gold())
