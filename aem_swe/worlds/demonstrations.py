"""Demonstrations of generated games for a warm start: the expert plays, and now and then strays.

With probability `noise` a move is a walk to some other receptacle: the policy sees how one goes on from there, and
reinforcement learning starts from one that still explores.
"""

import random
from collections.abc import Iterator

from aem_swe.worlds.expert import Aim, Expert
from aem_swe.worlds.generate import Game
from aem_swe.worlds.simulation import Simulation

Steps = Iterator[tuple[str, str]]
"""(response text, observation); the observation of the winning move is empty."""
MAX_MOVES = 50
"""The paper's limit."""


def action(thought: str, command: str) -> str:
    """A response as the agent says it. The thought names the goal again, which is far back in the context by then."""
    return f"{thought}\n<action>{command}</action>"


def demonstrate_game(game: Game, stream: random.Random, *, noise: float) -> Steps:
    """Play one game to its end, or for MAX_MOVES."""
    simulation = Simulation(game)
    expert = Expert(Aim(game.family, game.target.lower(), game.parent.lower()))
    command = expert.begin(game.intro)
    for _ in range(MAX_MOVES):
        if command == "look":  # it has nowhere left to go
            return
        if stream.random() < noise:
            command = f"go to {stream.choice(game.receptacles)}"
        said = action(expert.thought, command)
        observation = simulation.run(command)
        yield said, "" if simulation.won else observation
        if simulation.won:
            return
        command = expert.act(command, observation)
