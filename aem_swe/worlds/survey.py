"""Can the expert play? How many generated games of each family it wins within the limit, in the real engine.

A family is `present` where the expert wins at least 95% of its games, else `absent`: there is nobody to learn it from.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aem_swe.worlds import FAMILIES
from aem_swe.worlds.expert import Expert, aim_of
from aem_swe.worlds.games import GameSandboxes
from aem_swe.worlds.generate import Split, generate
from aem_swe.worlds.sandbox import GameSandbox
from aem_swe.worlds.source import task_of

ENOUGH = 0.95


@dataclass(frozen=True, slots=True)
class Attempt:
    """One game, played once."""

    game: str
    family: str
    goal: str
    won: bool
    moves: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a family came out."""

    family: str
    games: int
    won: int
    low: float
    """95% interval of the share won (Clopper-Pearson)."""
    high: float
    mean_moves: float | None
    """Of the games that were won."""

    @property
    def present(self) -> bool:
        return self.won >= ENOUGH * self.games


def play_games(
    games: int, *, split: Split, limit: int, theirs: bool, random_player: bool = False, first: int = 0
) -> Iterator[Attempt]:
    """Play games `first`, `first` + 1, ... of a split. theirs: with ALFWorld's hand-coded expert instead of ours."""
    with GameSandboxes() as sandboxes:
        for seed in range(first, first + games):
            game = generate(split, seed)
            task = task_of(game, admissible=False)
            with sandboxes.open(task, expert=theirs, seed=seed) as sandbox:
                if random_player:
                    player = _random_player(sandbox, seed)
                else:
                    player = _advice(sandbox) if theirs else _our_expert(sandbox, Expert(aim_of(task)))
                moves = 0
                for command in player:
                    if moves == limit or sandbox.seen.won:
                        break
                    sandbox.run(command)
                    moves += 1
                yield Attempt(game.id, game.family, game.goal, sandbox.seen.won, moves)


def _our_expert(sandbox: GameSandbox, expert: Expert) -> Iterator[str]:
    command = expert.begin(sandbox.seen.feedback)
    while True:
        yield command
        command = expert.act(command, sandbox.seen.feedback)


def _advice(sandbox: GameSandbox) -> Iterator[str]:
    while sandbox.seen.expert is not None:
        yield sandbox.seen.expert


def _random_player(sandbox: GameSandbox, seed: int) -> Iterator[str]:
    stream = random.Random(seed)
    while True:
        yield stream.choice(sandbox.seen.admissible)


def standings(attempts: Sequence[Attempt]) -> list[Standing]:
    """One row per family that was played, in ALFWorld's order."""
    from scipy.stats import binomtest

    rows = []
    for family in FAMILIES:
        of_it = [attempt for attempt in attempts if attempt.family == family]
        won = [attempt.moves for attempt in of_it if attempt.won]
        if of_it:
            interval = binomtest(len(won), len(of_it)).proportion_ci()
            mean = sum(won) / len(won) if won else None
            rows.append(Standing(family, len(of_it), len(won), float(interval.low), float(interval.high), mean))
    return rows


def write_standings(out: Path, rows: Sequence[Standing], *, player: str, split: Split, limit: int, first: int) -> None:
    """Write the table with what it was made with, versions included."""
    from importlib.metadata import version

    about = {
        "player": player,
        "split": split,
        "limit": limit,
        "first": first,
        "versions": {name: version(name) for name in ("alfworld", "textworld")},
        "families": [{**asdict(row), "present": row.present} for row in rows],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(about, indent=2) + "\n")
