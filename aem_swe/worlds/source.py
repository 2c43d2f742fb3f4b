"""The problems of a recipe with data.source=alfworld: training games, and held-out ones in rooms that training has not.

alfworld         generated (generate.py): endless, the six families in turn
alfworld_small   the same in rooms with at most 20 receptacles: shorter episodes for small policies
alfworld:PATH    downloaded (official.py); PATH may be a split's name where ALFWORLD_DATA is set
"""

import itertools
import random
from pathlib import Path

from aem_swe.tasks.grading import Problem
from aem_swe.types import Part, Task
from aem_swe.worlds import SMALL
from aem_swe.worlds.games import GameSandboxes
from aem_swe.worlds.generate import Files, Game, Split, generate
from aem_swe.worlds.layouts import require_installed
from aem_swe.worlds.official import folder_of, game_folders, read_games
from aem_swe.worlds.reward import HELD_OUT, GameGrader
from aem_swe.worlds.sandbox import SHOW_ADMISSIBLE, listed

_GAMES_PER_SEED = 100_000


def task_of(game: Game, *, admissible: bool) -> Task:
    """A generated game as a task; its statement is what the game says at the start."""
    moves = sorted([*(f"go to {name}" for name in game.receptacles), "inventory", "look"])
    return _task(game.id, game.files, game.intro, moves, admissible=admissible)


def _task(identity: str, files: Files, intro: str, moves: list[str], *, admissible: bool) -> Task:
    parts = (Part("text", intro), *([Part("text", f"\n{listed(moves)}")] if admissible else []))
    return Task(identity, parts, files=files, workdir="/", env=(SHOW_ADMISSIBLE,) if admissible else ())


def training_games(source: str, size: int, seed: int, *, admissible: bool) -> list[Problem]:
    """The `size` training problems of a seed, or all of a folder that holds fewer. Raises ConfigError."""
    require_installed()
    world, _, path = source.partition(":")
    if not path:
        seeds = range(seed * _GAMES_PER_SEED, seed * _GAMES_PER_SEED + size)
        return [_generated("train", number, world, GameGrader(), admissible) for number in seeds]
    folders = game_folders(folder_of(path))
    chosen = random.Random(f"{seed}/pool").sample(folders, len(folders))
    return _downloaded(chosen, size, GameGrader(), admissible)


def held_out_games(source: str, size: int, *, admissible: bool) -> list[Problem]:
    """The first `size` held-out problems, the same for every run, graded by winning alone. Raises ConfigError."""
    require_installed()
    world, _, path = source.partition(":")
    if not path:
        return [_generated("test", number, world, HELD_OUT, admissible) for number in range(size)]
    return _downloaded(game_folders(folder_of(path)), size, HELD_OUT, admissible)


def _generated(split: Split, seed: int, world: str, grader: GameGrader, admissible: bool) -> Problem:
    return Problem(task_of(generate(split, seed, small=world == SMALL), admissible=admissible), grader)


def _downloaded(folders: list[Path], size: int, grader: GameGrader, admissible: bool) -> list[Problem]:
    problems = []
    with GameSandboxes() as games:  # only the engine knows how a downloaded game begins
        for identity, files in itertools.islice(read_games(folders), size):
            with games.open(Task(identity, (), files=files)) as game:
                seen = game.seen
            task = _task(identity, files, seen.feedback, list(seen.admissible), admissible=admissible)
            problems.append(Problem(task, grader))
    return problems
