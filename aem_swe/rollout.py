"""Run an episode: give it a sandbox, carry out what it asks for, and record every failure once, on its trajectory.

`EpisodeRun.advance(response)` does everything up to the next question for the policy, which the drivers (drivers.py)
ask. This is the only place that catches what a sandbox raises.

What is retried: an action whose sandbox failed, in a new sandbox in which the earlier actions were replayed; the first
action of an episode that reaches its wall-clock limit (one is enough to tell a slow machine from an endless loop, and
more would let a policy hold up a step); and grading, in another fresh sandbox. A replay must give the observations that
the policy has read (but for numbers, such as times), else the new sandbox is not used. Every retry and every limit
leaves one line on the trajectory.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import AgentDefinition
from aem_swe.agents.loop import Abort, AskPolicy, Ending, Episode, Grade, History, Limits, Result, RunTool, episode
from aem_swe.agents.tools import ToolResult, run_tool
from aem_swe.errors import ContextExceeded, PolicyError, ReplayDiffers, SandboxError, SandboxGone, TaskError
from aem_swe.profiling import Stopwatch, Value, inherited, span
from aem_swe.replay import Memory, alike
from aem_swe.sandboxes import Sandboxes
from aem_swe.sandboxes.ahead import SandboxAhead
from aem_swe.sandboxes.base import Sandbox
from aem_swe.sandboxes.event_spans import closing, record_events
from aem_swe.tasks.grading import Grader, PatchGrader, conclude
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
    grader: Grader | None  # None: the diff is taken and judged later, by somebody else
    group: int
    rollout: int
    seed: tuple[int, ...]
    memory: Memory | None = None
    name: str = ""
    """Tells it from the others of its step, for the profile; default: group/rollout."""
    ahead: SandboxAhead | None = field(init=False, default=None)  # what the first action that wants a sandbox takes
    diverged: bool = field(init=False, default=False)  # a sandbox could not be brought to where the last one was
    about: Mapping[str, Value] = field(init=False)
    """What its spans have: step and phase of where it was made, episode, task, turn."""
    _stopwatch: Stopwatch = field(init=False, default_factory=Stopwatch)
    _episode: Episode = field(init=False)
    _resources: ExitStack = field(init=False, default_factory=ExitStack)
    _sandbox: Sandbox | None = field(init=False, default=None)
    _done: list[tuple[ToolCall, ToolResult]] = field(init=False, default_factory=list)
    _retries: list[str] = field(init=False, default_factory=list)
    _closed: bool = field(init=False, default=False)
    _deadline: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        s = self.setting
        self.name = self.name or f"{self.group}/{self.rollout}"
        self.about = {**inherited(), "episode": self.name, "task": self.task.id}
        self._episode = episode(self.task, s.definition, s.limits, s.chat, seed=self.seed, history=s.history)

    def advance(self, response: Response | Abort | None) -> AskPolicy | Trajectory:
        """Send `response` (None at the start) and do what the episode asks for, up to its next question or its end."""
        step = self.converse(response)
        return self.judge() if isinstance(step, Grade) else step

    def converse(self, response: Response | Abort | None) -> AskPolicy | Trajectory | Grade:
        """The same, but stop before the reward: it wants no more of the policy, so others need not wait for it."""
        limit = self.setting.trajectory_timeout_s
        self._deadline = self._deadline or time.monotonic() + (math.inf if limit is None else limit)
        return self._go_on(response)

    def judge(self) -> Trajectory:
        """Make the reward that `converse` has stopped before."""
        return self._go_on(Grade())  # type: ignore[return-value]  # nothing comes after it

    def _go_on(self, result: Result | Grade | None) -> AskPolicy | Trajectory | Grade:
        try:
            with span("agent", **self.about):
                return self._advance(self._carry_out(result) if isinstance(result, Grade) else result)
        except BaseException:
            self.close()
            raise

    def _advance(self, result: Result | None) -> AskPolicy | Trajectory | Grade:
        while True:
            try:
                request = next(self._episode) if result is None else self._episode.send(result)
            except StopIteration as stop:
                return self._finish(stop.value)
            if isinstance(request, Grade):  # finished in time: graded, as in DeepSWE
                return request
            if time.monotonic() > self._deadline:
                result = Abort(Termination.TIMEOUT)
            elif isinstance(request, AskPolicy):
                self.about = {**self.about, "turn": request.seed[-1]}
                return request
            else:
                result = self._carry_out(request)

    def close(self) -> None:
        """End the episode's sandbox for good."""
        self._closed = True
        self._drop_sandbox()
        if self.ahead:
            self.ahead.close()

    def _drop_sandbox(self) -> None:
        self._sandbox = None
        self._resources.close()

    def _carry_out(self, request: RunTool | Grade) -> Result:
        try:
            return self._act(request.call) if isinstance(request, RunTool) else self._grade()
        except (SandboxError, TaskError) as error:  # a task that cannot be set up is no reason to end a run of others
            self._retries.append(f"gave up: {error}")
            return Abort(Termination.INFRASTRUCTURE_ERROR)

    def _retried(self, what: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until the sandbox holds, at most 1 + retries times."""
        for number in range(1, self.setting.retries + 1):
            try:
                return attempt()
            except SandboxError as error:
                if self._closed:
                    raise
                self._retries.append(f"{what}, attempt {number}: {error}")
                self._drop_sandbox()
        return attempt()

    def _act(self, call: ToolCall) -> ToolResult:
        number = len(self._done)
        if self.memory and (known := self.memory.recorded(number)):
            self._done.append((call, known))  # the next sandbox that is opened will be brought there
            return known
        result = self._retried(call.name, lambda: self._run(call, self._open()))
        if result.timed_out:
            first = not any(earlier.timed_out for _, earlier in self._done)
            self._retries.append(f"{call.name}: reached its time limit")
            result = (self._second_try(call) if first else None) or result
        self._done.append((call, result))
        if self.memory:
            self.memory.record(number, result)
        return result

    def _run(self, call: ToolCall, sandbox: Sandbox, **marks: Value) -> ToolResult:
        with self._stopwatch.stage("tools", f"tool/{call.name}", tool=call.name, **marks):
            return run_tool(call, self.setting.definition, sandbox, workdir=self.task.workdir)

    def _second_try(self, call: ToolCall) -> ToolResult | None:
        """Run an action again in a new sandbox; None, and the old sandbox stays, where that cannot be done."""
        old_sandbox, old_resources = self._sandbox, self._resources
        self._sandbox, self._resources = None, ExitStack()
        try:
            result = self._run(call, self._open(), replay=True)
        except SandboxError as error:
            self._retries.append(f"{call.name}, second try: {error}")
            self._resources.close()
            self._sandbox, self._resources = old_sandbox, old_resources
            return None
        old_resources.close()
        return result

    def _open(self) -> Sandbox:
        """Return the sandbox, brought up to date with the actions so far; SandboxError also where one now differs."""
        if self._sandbox is None:
            with self._stopwatch.stage("sandbox", "sandbox/open") as opening:
                ahead, self.ahead = self.ahead, None
                sandbox = ahead.take() if ahead else self.setting.sandboxes.open(self.task, purpose="agent")
                self._resources.enter_context(closing(sandbox))
                record_events(sandbox, opening.started)
            if self._closed:  # by another thread, meanwhile
                self._drop_sandbox()
                raise SandboxGone("the episode was closed")
            for call, result in self._done:
                if not alike(self._run(call, sandbox, replay=True), result):
                    self.diverged = True
                    raise ReplayDiffers(f"replaying {call.name} gave another observation")
            self._sandbox = sandbox
        return self._sandbox

    def _grade(self) -> Graded:
        try:
            with span("diff"):
                diff = self._retried("diff", lambda: self._open().diff())
        except OSError as error:  # not the sandbox's failure but what the agent left there: too large to be a patch
            return Graded(0.0, "no_patch", output=str(error))
        self._drop_sandbox()  # the tests run in another
        if self.grader is None:
            return Graded(0.0, "not_graded", diff)
        graded = self._retried("grading", lambda: self._grade_fresh(diff))
        if graded.reason == "tests_timeout":
            self._retries.append("grading: the tests reached their time limit")
            graded = self._retried("grading", lambda: self._grade_fresh(diff))
        return Graded(graded.reward, graded.reason, diff, graded.output)

    def _grade_fresh(self, diff: bytes) -> Graded:
        assert self.grader is not None
        if isinstance(self.grader, PatchGrader):
            with self._stopwatch.stage("reward", "reward/tests"):
                return self.grader.grade_patch(self.task, diff)
        with self._stopwatch.stage("reward", "reward/start"):
            opened = self.setting.sandboxes.open(self.task, purpose="grading")
        with closing(opened) as sandbox, self._stopwatch.stage("reward", "reward/tests"):
            return self.grader.grade(self.task, diff, sandbox)

    def _finish(self, ending: Ending) -> Trajectory:
        self.close()
        graded = ending.graded
        termination, reward, reason = conclude(ending.termination, graded)
        return Trajectory(
            task_id=self.task.id,
            group=self.group,
            rollout=self.rollout,
            turns=ending.turns,
            termination=termination,
            reward=reward,
            reward_reason=reason,
            diff=graded.diff if graded else b"",
            retries=tuple(self._retries),
            seconds=dict(self._stopwatch.seconds),
        )

    def policy_failed(self, error: PolicyError) -> AskPolicy | Trajectory:
        """Go on where the policy had no answer: the episode ends, unless its context is full as the world's fault."""
        self._retries.append(f"policy: {error}")
        full = isinstance(error, ContextExceeded)
        return self.advance(Abort(Termination.TOKEN_BUDGET if full else Termination.INFRASTRUCTURE_ERROR))
