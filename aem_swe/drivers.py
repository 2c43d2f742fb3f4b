"""Three small drivers of the same EpisodeRun: they ask a policy for responses and hand them over.

`run_cohorts` takes fixed cohorts in lockstep (while one generates, the tools of the others run), `run_thread` and
`run_async` take one episode each. A policy without an answer (PolicyError) ends the episode as an infrastructure error,
except in lockstep, where it concerns the whole batch and ends the run.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass

from aem_swe.agents.loop import AskPolicy
from aem_swe.agents.policy import AsyncPolicy, BatchPolicy, Policy
from aem_swe.errors import PolicyError
from aem_swe.profiling import Stopwatch, record, span
from aem_swe.rollout import EpisodeRun
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
    cohorts: Sequence[Sequence[EpisodeRun]], policies: Sequence[BatchPolicy], workers: Executor, stopwatch: Stopwatch
) -> list[Trajectory]:
    """Run fixed cohorts in lockstep, one turn of a whole cohort at a time; return the trajectories in order.

    Cohort c is answered by policies[c] in this thread, while the actions of the other cohorts run on `workers`. Which
    rows a policy sees together depends on the episodes alone, so delays anywhere change nothing but the time it takes.
    """
    pending = [[workers.submit(_advance, run, None, time.perf_counter()) for run in cohort] for cohort in cohorts]
    try:
        alive = list(range(len(cohorts)))
        while alive:
            for c in alive:
                with stopwatch.stage("rollout_wait", "wait") as waiting:
                    advanced = [future.result() for future in pending[c]]
                    last = max(range(len(advanced)), key=lambda row: advanced[row].at)
                    waiting.set(waits_for=cohorts[c][last].name)
                asks = [one.step if isinstance(one.step, AskPolicy) else None for one in advanced]
                if not any(asks):
                    continue
                with stopwatch.stage("rollout_policy", "policy"):
                    asked = time.perf_counter()
                    responses = policies[c].respond_batch(asks)
                for row, response in enumerate(responses):
                    if response is not None:
                        run, since = cohorts[c][row], advanced[row].at
                        _record_turn(run, response, since, asked)
                        pending[c][row] = workers.submit(_advance, run, response, time.perf_counter())
            alive = [
                c for c in alive if any(not f.done() or isinstance(f.result().step, AskPolicy) for f in pending[c])
            ]
        return [_trajectory(future.result().step) for cohort in pending for future in cohort]
    finally:
        for cohort, futures in zip(cohorts, pending, strict=True):
            for run, future in zip(cohort, futures, strict=True):
                future.cancel()
                run.close()


@dataclass(frozen=True, slots=True)
class _Advanced:
    step: AskPolicy | Trajectory
    at: float
    """time.perf_counter() when it was there."""


def _advance(run: EpisodeRun, response: Response | None, since: float) -> _Advanced:
    record("sandbox/queue", since, time.perf_counter() - since, **run.about)
    return _Advanced(run.advance(response), time.perf_counter())


def _record_turn(run: EpisodeRun, response: Response, since: float, asked: float) -> None:
    """What a turn took from the episode's side: it shares the forward passes with the other rows."""
    if response.seconds is not None:
        prefill, decode = response.seconds
        record("policy/queue", since, asked - since, latency=True, **run.about)
        record("policy/prefill", asked, prefill, latency=True, **run.about)
        record("policy/decode", asked + prefill, decode, latency=True, tokens=len(response.response_ids), **run.about)


def _trajectory(step: AskPolicy | Trajectory) -> Trajectory:
    assert isinstance(step, Trajectory)
    return step
