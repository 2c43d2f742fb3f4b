"""Trajectories written down by hand, for tests that need to know every token. Ids below 64, end of turn = 2."""

import random
from collections.abc import Sequence

from aem_swe.types import FormatError, Termination, Trajectory, Turn

END = 2
VOCABULARY = 64
Said = tuple[Sequence[int], Sequence[int]] | Turn
"""(prompt ids, response ids) of one turn, or the turn."""


def turn(prompt: Sequence[int], response: Sequence[int], *, version: int = 0) -> Turn:
    """A turn whose recorded log-probs are -0.1, -0.2, ..."""
    logprobs = tuple(-0.1 * (position + 1) for position in range(len(response)))
    return Turn(tuple(prompt), tuple(response), logprobs, "stop", version, "", FormatError("none"))


def trajectory(
    *said: Said,
    group: int = 0,
    rollout: int = 0,
    reward: float | None = 0.0,
    termination: Termination = Termination.FINISHED,
) -> Trajectory:
    """An episode of turns."""
    turns = tuple(each if isinstance(each, Turn) else turn(*each) for each in said)
    return Trajectory(f"task-{group}", group, rollout, turns, termination, reward, "by hand")


def episode(stream: random.Random, *, turns: int, **about: object) -> Trajectory:
    """An episode of random ids in which every prompt continues all that was said before."""
    said: list[Said] = []
    history = [stream.randrange(3, VOCABULARY) for _ in range(stream.randrange(2, 6))]
    for _ in range(turns):
        response = [stream.randrange(3, VOCABULARY) for _ in range(stream.randrange(1, 7))] + [END]
        said.append((list(history), response))
        history += response + [stream.randrange(3, VOCABULARY) for _ in range(stream.randrange(0, 4))]
    return trajectory(*said, **about)  # type: ignore[arg-type]  # passed on as they are
