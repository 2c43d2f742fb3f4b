"""Three small drivers of the same EpisodeRun: they ask a policy for responses and hand them over.

`run_cohorts` takes fixed cohorts in lockstep (while one generates, the tools of the others run), `run_thread` and
`run_async` take one episode each. A policy without an answer (PolicyError) ends the episode as an infrastructure error,
except in lockstep, where it concerns the whole batch and ends the run.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import closing
from dataclasses import dataclass, field

from aem_swe.agents.loop import AskPolicy, Grade
from aem_swe.agents.policy import AsyncPolicy, BatchPolicy, Policy
from aem_swe.errors import PolicyError
from aem_swe.profiling import Stopwatch, record, span
from aem_swe.rollout import EpisodeRun
from aem_swe.sandboxes.ahead import SandboxAhead
from aem_swe.types import Response, Trajectory


def run_thread(run: EpisodeRun, policy: Policy) -> Trajectory:
    """Run one episode to its end in this thread."""
    with closing(run):
        step = run.advance(None)
        while isinstance(step, AskPolicy):
            try:
                with span("policy/request", **run.about) as asking:
                    response = policy.respond(step)
                    asking.set(tokens=len(response.response_ids))
            except PolicyError as error:
                step = run.policy_failed(error)
            else:
                step = run.advance(response)
        return step


async def run_async(run: EpisodeRun, policy: AsyncPolicy) -> Trajectory:
    """Run one episode to its end on an event loop; sandbox work goes to the loop's thread pool."""
    with closing(run):
        step = await asyncio.to_thread(run.advance, None)
        while isinstance(step, AskPolicy):
            try:
                with span("policy/request", **run.about) as asking:
                    response = await policy(step)
                    asking.set(tokens=len(response.response_ids))
            except PolicyError as error:
                step = run.policy_failed(error)
            else:
                step = await asyncio.to_thread(run.advance, response)
        return step


def run_cohorts(
    cohorts: Sequence[Sequence[EpisodeRun]],
    policies: Sequence[BatchPolicy],
    workers: Executor,
    stopwatch: Stopwatch,
    graders: Executor | None = None,
) -> list[Trajectory]:
    """Run fixed cohorts in lockstep, one turn of a whole cohort at a time; return the trajectories in order.

    Cohort c is answered by policies[c] in this thread, whichever is ready first, while the actions of the others run on
    `workers` and the rewards of finished episodes are made on `graders` (None: on the workers). Which rows a policy
    sees together depends on the episodes alone, so delays anywhere change nothing but the time it takes.
    """

    assert len(cohorts) <= len(policies), "a cohort without a policy"

    def submit(run: EpisodeRun, response: Response | None) -> "Future[_Advanced]":
        return workers.submit(_advance, run, response, time.perf_counter(), graders or workers)

    alive = [_Cohort([_Row(run) for run in runs], policy) for runs, policy in zip(cohorts, policies, strict=False)]
    rows = [row for cohort in alive for row in cohort.rows]
    try:
        for row in rows:
            row.pending = submit(row.run, None)
        while alive:
            for row in rows:
                row.require_sound()
            with stopwatch.stage("rollout_wait", "wait") as waiting:
                cohort = _first_ready(alive)
                waiting.set(waits_for=_last([(row.run, row.now) for row in cohort.rows]))
            alive.remove(cohort)
            asks = [step if isinstance(step := row.now.step, AskPolicy) else None for row in cohort.rows]
            if not any(asks):
                continue
            alive.append(cohort)
            cohort.open_ahead(workers)
            with stopwatch.stage("rollout_policy", "policy"):
                asked = time.perf_counter()
                responses = cohort.policy.respond_batch(asks)
            for row, response in zip(cohort.rows, responses, strict=True):
                if response is not None:
                    _record_turn(row.run, response, row.now.at, asked)
                    row.pending = submit(row.run, response)
        with stopwatch.stage("rollout_wait", "wait") as waiting:
            ended = [row.ended.result() for row in rows]
            waiting.set(waits_for=_last(list(zip((row.run for row in rows), ended, strict=True))))
        return [_trajectory(one.step) for one in ended]
    finally:
        for row in rows:
            row.close()


@dataclass(frozen=True, slots=True)
class _Advanced:
    """Where an episode has got to: a question, its end, or the reward that is being made."""

    step: "AskPolicy | Trajectory | Future[_Advanced]"
    at: float
    """time.perf_counter() when it was there."""


@dataclass(slots=True)
class _Row:
    run: EpisodeRun
    pending: "Future[_Advanced]" = field(default_factory=Future)

    @property
    def now(self) -> _Advanced:
        return self.pending.result()

    @property
    def ended(self) -> "Future[_Advanced]":
        step = self.now.step
        return step if isinstance(step, Future) else self.pending

    def require_sound(self) -> None:
        """Raise what its reward has raised, if that is known: nobody should play on for an hour towards an error."""
        if self.pending.done() and self.ended.done():
            self.ended.result()

    def close(self) -> None:
        self.pending.cancel()
        if self.pending.done() and not self.pending.cancelled() and self.pending.exception() is None:
            self.ended.cancel()
        self.run.close()


@dataclass(slots=True)
class _Cohort:
    rows: list[_Row]
    policy: BatchPolicy
    _opened: bool = False

    def open_ahead(self, workers: Executor) -> None:
        """Have its sandboxes made while its first responses are generated, and not before others' actions."""
        for row in self.rows if not self._opened else ():
            if isinstance(row.now.step, AskPolicy):
                row.run.ahead = SandboxAhead(workers, row.run.setting.sandboxes, row.run.task)
        self._opened = True


def _first_ready(cohorts: Sequence[_Cohort]) -> _Cohort:
    """Wait for a cohort of which every row has a question or none left; of several, the first in the list."""
    while True:
        for cohort in cohorts:
            if all(row.pending.done() for row in cohort.rows):
                return cohort
        pending = [row.pending for cohort in cohorts for row in cohort.rows if not row.pending.done()]
        wait(pending, return_when=FIRST_COMPLETED)


def _last(advanced: Sequence[tuple[EpisodeRun, _Advanced]]) -> str:
    return max(advanced, key=lambda pair: pair[1].at)[0].name


def _advance(run: EpisodeRun, response: Response | None, since: float, graders: Executor) -> _Advanced:
    record("worker/queue", since, time.perf_counter() - since, latency=True, **run.about)
    step = run.converse(response)
    now = time.perf_counter()
    return _Advanced(graders.submit(_judge, run, now) if isinstance(step, Grade) else step, now)


def _judge(run: EpisodeRun, since: float) -> _Advanced:
    record("reward/queue", since, time.perf_counter() - since, latency=True, **run.about)
    return _Advanced(run.judge(), time.perf_counter())


def _record_turn(run: EpisodeRun, response: Response, since: float, asked: float) -> None:
    """What a turn took from the episode's side: it shares the forward passes with the other rows."""
    if response.seconds is not None:
        prefill, decode = response.seconds
        record("policy/queue", since, asked - since, latency=True, **run.about)
        record("policy/prefill", asked, prefill, latency=True, **run.about)
        record("policy/decode", asked + prefill, decode, latency=True, tokens=len(response.response_ids), **run.about)


def _trajectory(step: object) -> Trajectory:
    assert isinstance(step, Trajectory)
    return step
