"""The half of playing on a cluster that runs on a node (ray_player.py is the driver's); plain Python, without Ray.

A node plays as one machine does, with a LocalPlayer, and writes journals and trajectories into the same folder, which
all nodes share. Every episode under way has a claim, a file with the name of its present player: one that was given up
and still lives (a cut network, a killed driver) finds another name there, or none, and keeps no further answer.
"""

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aem_swe import __version__
from aem_swe.agents.loop import AskPolicy
from aem_swe.agents.policy import Policy
from aem_swe.errors import ConfigError, RunError
from aem_swe.eval.swebench.play import LocalPlayer, Stopped
from aem_swe.eval.swebench.played import Played
from aem_swe.eval.swebench.protocol import Retries
from aem_swe.rollout import Setting
from aem_swe.sandboxes.base import DOCKER_DEFAULTS
from aem_swe.sandboxes.diagnosis import missing_images
from aem_swe.tasks.grading import Problem
from aem_swe.types import Response

_CLAIMS, _TOKEN = ".ray-", "token"
Tokens = list[tuple[int, int]]
"""Prompt and completion tokens of turns."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every actor is told; it travels by pickle."""

    folder: Path
    """Of the evaluation, absolute."""
    claims: Path
    """A folder in it, of this driver alone."""
    opening: Callable[[], AbstractContextManager[tuple[Setting, Policy]]]
    """Opens sandboxes and a policy, on the node."""
    images: Sequence[str]
    retries: Retries
    version: str = __version__

    def claim_file(self, run: int, problem: Problem) -> Path:
        return self.claims / f"{run}.{problem.task.id}"


class Actor:
    """Plays on its node. Any number of threads."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._lock, self._ending, self._resources = threading.Lock(), threading.Event(), ExitStack()
        self._opened: tuple[Setting, Policy] | None = None
        self._turns: dict[str, Tokens] = {}

    def check(self) -> None:
        """Raise the error (an AemSweError) that says why this node cannot play, now, with the remedy."""
        work = self._work
        if __version__ != work.version:
            raise ConfigError(f"it has aem-swe {__version__} and the driver {work.version}; install the same")
        try:
            seen = (work.claims / _TOKEN).read_text() == work.claims.name
            (work.claims / uuid.uuid4().hex).touch()
        except OSError:
            seen = False
        if not seen:
            raise ConfigError(
                f"it does not see --out {str(work.folder)!r}, or cannot write there; choose an --out that all nodes "
                "share at the same path"
            )
        if missing := missing_images(DOCKER_DEFAULTS, work.images):
            raise ConfigError(
                f"{len(missing)} of {len(set(work.images))} images are on no engine of its own, the first is "
                f"{missing[0]}; fetch them there: aem-swe sandbox pull ROWS"
            )
        self._open()

    def _open(self) -> tuple[Setting, Policy]:
        """Once; also in an actor that was started again and has not been checked."""
        with self._lock:
            if self._opened is None:
                self._opened = self._resources.enter_context(self._work.opening())
            return self._opened

    def play(self, run: int, problem: Problem, claim: str) -> tuple[Played, Tokens]:
        """As LocalPlayer does; also the turns that `turned` has not returned. Raises Stopped without the claim."""
        turns = self._turns[claim] = []
        try:
            setting, policy = self._open()
            policy = _Claimed(policy, self._work.claim_file(run, problem), claim)
            player = LocalPlayer(setting, policy, self._work.folder, self._work.retries, self._ending.is_set)
            played = player.play(run, problem, lambda *tokens: turns.append(tokens))
            return played, self.turned(claim)
        finally:
            del self._turns[claim]

    def turned(self, claim: str) -> Tokens:
        """The new turns of an episode since the last call."""
        turns = self._turns.get(claim, [])
        return [turns.pop(0) for _ in range(len(turns))]

    def close(self) -> None:
        """End what is under way, and remove the containers."""
        self._ending.set()
        with self._lock:
            self._resources.close()


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A policy whose answers count for as long as the episode is this player's."""

    policy: Policy
    file: Path
    claim: str

    def respond(self, ask: AskPolicy) -> Response:
        response = self.policy.respond(ask)
        try:
            ours = self.file.read_text() == self.claim
        except FileNotFoundError:
            ours = False
        if not ours:
            raise Stopped
        return response


def claims_in(folder: Path) -> Path:
    """A new name for a folder of claims."""
    return folder / f"{_CLAIMS}{uuid.uuid4().hex}"


@contextmanager
def claims(folder: Path) -> Iterator[None]:
    """Make the driver's folder of claims, with a token in it, and end those of drivers that were killed."""
    for old in folder.parent.glob(f"{_CLAIMS}*"):
        shutil.rmtree(old, ignore_errors=True)
    try:
        write_claim(folder / _TOKEN, folder.name)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_claim(path: Path, claim: str) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(claim)
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}); mend it, or choose another --out") from error
