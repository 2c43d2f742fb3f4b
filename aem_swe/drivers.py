"""Three small drivers of the same EpisodeRun: they ask a policy for responses and hand them over.

`run_cohorts` takes fixed cohorts in lockstep (while one generates, the tools of the others run), `run_thread` and
`run_async` take one episode each. A policy without an answer (PolicyError) ends the episode as an infrastructure error,
except in lockstep, where it concerns the whole batch and ends the run.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import closing

from aem_swe.agents.loop import AskPolicy
from aem_swe.agents.policy import AsyncPolicy, BatchPolicy, Policy
from aem_swe.errors import PolicyError
from aem_swe.profiling import Stopwatch
from aem_swe.rollout import EpisodeRun
from aem_swe.types import Trajectory


def run_thread(run: EpisodeRun, policy: Policy) -> Trajectory:
    """Run one episode to its end in this thread."""
    with closing(run):
        step = run.advance(None)
        while isinstance(step, AskPolicy):
            try:
                response = policy.respond(step)
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
                response = await policy(step)
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
    pending: list[list[Future[AskPolicy | Trajectory]]] = [
        [workers.submit(run.advance, None) for run in cohort] for cohort in cohorts
    ]
    try:
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
        for cohort, futures in zip(cohorts, pending, strict=True):
            for run, future in zip(cohort, futures, strict=True):
                future.cancel()
                run.close()


def _trajectory(step: AskPolicy | Trajectory) -> Trajectory:
    assert isinstance(step, Trajectory)
    return step
