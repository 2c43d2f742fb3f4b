"""Play one instance: answers that were given before come from its journal, new ones from the policy.

An attempt that the world ended (endpoint, container, engine) is begun again from nothing, a bounded number of times.
What is kept is ID.traj.json, written whole when the episode is over; its presence says that the instance is played.
"""

import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from aem_swe.agents.loop import AskPolicy
from aem_swe.agents.policy import Policy, turn_of
from aem_swe.drivers import run_thread
from aem_swe.errors import ContextExceeded, PolicyError, UnusableAnswer
from aem_swe.eval.swebench.journal import Journal
from aem_swe.eval.swebench.played import Played, failed, finished, write_trajectory
from aem_swe.eval.swebench.protocol import Retries
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.tasks.grading import Problem
from aem_swe.types import Response, Termination, Trajectory

Turned = Callable[[int, int], None]
"""Called after every new answer with its prompt and completion tokens."""


class Stopped(Exception):
    """The evaluation is being ended: what an episode meets now is no result."""


class Player(Protocol):
    """Plays instances; here (`LocalPlayer`), or on other machines."""

    def play(self, run: int, problem: Problem, turned: Turned) -> Played: ...


class JournaledPolicy:
    """A policy that writes down what it is asked and says, and never asks twice."""

    def __init__(self, policy: Policy, journal: Journal, *, retries: int, turned: Turned) -> None:
        """retries: of an answer that cannot be used; the policy itself retries what it was refused."""
        self._policy, self._journal, self._retries, self._turned = policy, journal, retries, turned

    def respond(self, ask: AskPolicy) -> Response:
        turn = turn_of(ask)
        known = self._journal.answer(turn)
        if known is not None:
            return known
        for left in range(self._retries, -1, -1):
            self._journal.asked(turn, len(ask.prompt_ids))
            started = time.perf_counter()
            again = self._retries - left  # with the same seed a server would give the same answer again
            try:
                response = self._policy.respond(replace(ask, seed=(*ask.seed[:-1], again, turn)) if again else ask)
            except PolicyError as error:
                self._journal.unanswered(str(error), *(error.usage if isinstance(error, UnusableAnswer) else (0, 0)))
                if not left or not isinstance(error, UnusableAnswer) or isinstance(error, ContextExceeded):
                    raise
                continue
            prompt, completion = response.usage or (len(ask.prompt_ids), len(response.response_ids))
            self._journal.answered(turn, response, prompt, completion, time.perf_counter() - started)
            self._turned(prompt, completion)
            return response
        raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True)
class LocalPlayer:
    """Plays in this process. Safe to share between threads."""

    setting: Setting
    policy: Policy
    folder: Path
    """Of the evaluation."""
    retries: Retries
    stopping: Callable[[], bool]

    def play(self, run: int, problem: Problem, turned: Turned) -> Played:
        """Play to an end. Raises Stopped where the evaluation ends first, RunError where the disk does."""
        place = self.folder / f"run_{run}" / problem.task.id
        with closing(Journal(place / "journal.jsonl")) as journal:
            left, resumes = self.retries.episodes + 1, journal.turns > 0  # attempts of earlier processes do not count
            seconds: dict[str, float] = {}
            while left:
                episode, trajectory = self._attempt(run, problem, journal, turned)
                for name, value in trajectory.seconds.items():
                    seconds[name] = seconds.get(name, 0.0) + value
                if self.stopping():
                    raise Stopped
                if trajectory.termination is not Termination.INFRASTRUCTURE_ERROR:
                    played = finished(trajectory, journal, seconds)
                    write_trajectory(place, trajectory, journal, self.setting, problem, played)
                    return played
                journal.failed(trajectory.retries[-1] if trajectory.retries else "infrastructure_error")
                # an episode that cannot go on where a kill has cut it off has not failed; it begins anew
                left -= not (resumes and episode.diverged)
                resumes = False
            return failed(journal, seconds)

    def _attempt(self, run: int, problem: Problem, journal: Journal, turned: Turned) -> tuple[EpisodeRun, Trajectory]:
        seed = (run, zlib.crc32(problem.task.id.encode()), journal.attempt)
        episode = EpisodeRun(self.setting, problem.task, None, run, journal.attempt, seed, memory=journal)
        policy = JournaledPolicy(self.policy, journal, retries=self.retries.answers, turned=turned)
        return episode, run_thread(episode, policy)
