"""Drive episodes: give each a sandbox, carry out what it asks for, and record every failure once, on its trajectory.

`EpisodeRun` holds one episode with its sandbox; `advance(response)` does everything up to the next question for the
policy. Three small drivers run the same object: `run_cohorts` (lockstep; while one cohort generates, the other's tools
run), `run_thread` and `run_async`. This is the only place that catches what a sandbox or a policy raises.

What is retried: an action whose sandbox failed, or that reached its wall-clock limit, in a new sandbox in which the
earlier actions were replayed; and grading, in another fresh sandbox. Each retry leaves one line on the trajectory.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import AgentDefinition
from aem_swe.agents.loop import Abort, AskPolicy, Ending, Episode, Grade, History, Limits, Result, RunTool, episode
from aem_swe.agents.policy import AsyncPolicy, BatchPolicy, Policy
from aem_swe.agents.tools import ToolResult, run_tool
from aem_swe.errors import PolicyError, SandboxError
from aem_swe.profiling import Stopwatch
from aem_swe.sandboxes import Sandboxes
from aem_swe.sandboxes.base import Sandbox
from aem_swe.tasks.grading import Grader
from aem_swe.types import Graded, Response, Task, Termination, ToolCall, Trajectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """What all episodes of a run share."""

    definition: AgentDefinition
    limits: Limits
    history: History
    chat: ChatFormat | None
    sandboxes: Sandboxes
    retries: int = 2
    """How often an action or a grading is tried again after the sandbox failed."""
    trajectory_timeout_s: float | None = None
    """Wall-clock limit of an episode, checked between actions; None (the demo): limits are in tokens and turns only."""


@dataclass(slots=True)
class EpisodeRun:
    """One episode under way. Not shared between threads; `close` may be called from any and more than once."""

    setting: Setting
    task: Task
    grader: Grader
    group: int
    rollout: int
    seed: tuple[int, ...]
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    _episode: Episode = field(init=False)
    _resources: ExitStack = field(init=False, default_factory=ExitStack)
    _sandbox: Sandbox | None = field(init=False, default=None)
    _done: list[ToolCall] = field(init=False, default_factory=list)
    _retries: list[str] = field(init=False, default_factory=list)
    _started: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        s = self.setting
        self._episode = episode(self.task, s.definition, s.limits, s.chat, seed=self.seed, history=s.history)

    def advance(self, response: Response | Abort | None) -> AskPolicy | Trajectory:
        """Send `response` (None at the start) and do what the episode asks for, up to its next question or its end."""
        result: Result | None = response
        try:
            while True:
                try:
                    request = next(self._episode) if result is None else self._episode.send(result)
                except StopIteration as stop:
                    return self._finish(stop.value)
                if self._expired():
                    result = Abort(Termination.TIMEOUT)
                elif isinstance(request, AskPolicy):
                    return request
                else:
                    result = self._carry_out(request)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sandbox."""
        self._sandbox = None
        self._resources.close()

    def _expired(self) -> bool:
        limit = self.setting.trajectory_timeout_s
        return limit is not None and time.monotonic() - self._started > limit

    def _carry_out(self, request: RunTool | Grade) -> Result:
        try:
            return self._act(request.call) if isinstance(request, RunTool) else self._grade()
        except SandboxError as error:
            self._retries.append(f"gave up: {error}")
            return Abort(Termination.INFRASTRUCTURE_ERROR)

    def _retried(self, what: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until the sandbox holds, at most 1 + retries times."""
        for number in range(1, self.setting.retries + 1):
            try:
                return attempt()
            except SandboxError as error:
                self._retries.append(f"{what}, attempt {number}: {error}")
                self.close()
        return attempt()

    def _act(self, call: ToolCall) -> ToolResult:
        def attempt() -> ToolResult:
            sandbox = self._open()
            with self.stopwatch.stage("tools"):
                return run_tool(call, self.setting.definition, sandbox, workdir=self.task.workdir)

        result = self._retried(call.name, attempt)
        if result.timed_out:  # a slow machine or an endless loop: only a second try can tell
            self._retries.append(f"{call.name}: reached its time limit")
            self.close()
            result = self._retried(call.name, attempt)
        self._done.append(call)
        return result

    def _open(self) -> Sandbox:
        """Return the sandbox, opened and brought up to date with the actions so far."""
        if self._sandbox is None:
            with self.stopwatch.stage("sandbox"):
                sandbox = self._resources.enter_context(self.setting.sandboxes.open(self.task, purpose="agent"))
            for call in self._done:
                run_tool(call, self.setting.definition, sandbox, workdir=self.task.workdir)
            self._sandbox = sandbox
        return self._sandbox

    def _grade(self) -> Graded:
        try:
            diff = self._retried("diff", lambda: self._open().diff())
        except OSError as error:  # not the sandbox's failure but what the agent left there: too large to be a patch
            return Graded(0.0, "no_patch", output=str(error))
        graded = self._retried("grading", lambda: self._grade_fresh(diff))
        if graded.reason == "tests_timeout":
            self._retries.append("grading: the tests reached their time limit")
            graded = self._retried("grading", lambda: self._grade_fresh(diff))
        return Graded(graded.reward, graded.reason, diff, graded.output)

    def _grade_fresh(self, diff: bytes) -> Graded:
        with self.stopwatch.stage("reward"), self.setting.sandboxes.open(self.task, purpose="grading") as sandbox:
            return self.grader.grade(self.task, diff, sandbox)

    def _finish(self, ending: Ending) -> Trajectory:
        self.close()
        graded = ending.graded
        if ending.termination is Termination.INFRASTRUCTURE_ERROR:
            reward, reason = None, "infrastructure_error"
        elif graded is None:
            reward, reason = 0.0, "not_graded"
        else:
            reward, reason = graded.reward, graded.reason
        return Trajectory(
            task_id=self.task.id,
            group=self.group,
            rollout=self.rollout,
            turns=ending.turns,
            termination=ending.termination,
            reward=reward,
            reward_reason=reason,
            diff=graded.diff if graded else b"",
            retries=tuple(self._retries),
            seconds=dict(self.stopwatch.seconds),
        )


def _failed(run: EpisodeRun, error: PolicyError) -> AskPolicy | Trajectory:
    run._retries.append(f"policy: {error}")
    return run.advance(Abort(Termination.INFRASTRUCTURE_ERROR))


def run_thread(run: EpisodeRun, policy: Policy) -> Trajectory:
    """Run one episode to its end in this thread."""
    step = run.advance(None)
    while isinstance(step, AskPolicy):
        try:
            response = policy.respond(step)
        except PolicyError as error:
            step = _failed(run, error)
        else:
            step = run.advance(response)
    return step


async def run_async(run: EpisodeRun, policy: AsyncPolicy) -> Trajectory:
    """Run one episode to its end on an event loop; sandbox work goes to the loop's thread pool."""
    step = await asyncio.to_thread(run.advance, None)
    while isinstance(step, AskPolicy):
        try:
            response = await policy(step)
        except PolicyError as error:
            step = _failed(run, error)
        else:
            step = await asyncio.to_thread(run.advance, response)
    return step


def run_cohorts(
    cohorts: Sequence[Sequence[EpisodeRun]], policies: Sequence[BatchPolicy], workers: Executor, stopwatch: Stopwatch
) -> list[Trajectory]:
    """Run fixed cohorts in lockstep, one turn of a whole cohort at a time; return the trajectories in order.

    Cohort c is answered by policies[c] in this thread, while the actions of the other cohorts run on `workers`. Which
    rows a policy sees together depends on the episodes alone, so delays anywhere change nothing but the time it takes.
    """
    runs = [run for cohort in cohorts for run in cohort]
    try:
        pending: list[list[Future[AskPolicy | Trajectory]]] = [
            [workers.submit(run.advance, None) for run in cohort] for cohort in cohorts
        ]
        alive = list(range(len(cohorts)))
        while alive:
            for c in alive:
                with stopwatch.stage("rollout_wait"):
                    steps = [future.result() for future in pending[c]]
                asks = [step if isinstance(step, AskPolicy) else None for step in steps]
                if not any(asks):
                    continue
                with stopwatch.stage("rollout_policy"):
                    responses = policies[c].respond_batch(asks)
                for row, response in enumerate(responses):
                    if response is not None:
                        pending[c][row] = workers.submit(cohorts[c][row].advance, response)
            alive = [c for c in alive if any(not f.done() or isinstance(f.result(), AskPolicy) for f in pending[c])]
        return [_trajectory(future.result()) for cohort in pending for future in cohort]
    finally:
        for run in runs:
            run.close()


def _trajectory(step: AskPolicy | Trajectory) -> Trajectory:
    assert isinstance(step, Trajectory)
    return step
