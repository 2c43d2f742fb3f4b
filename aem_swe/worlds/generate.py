"""New problems of ALFWorld's six task families in the floor plans that its package ships.

A game is a pure function of (split, seed): family, room, which objects there are and where, and the goal. Held-out
games ("test") are in ALFRED's unseen rooms, so no layout is in both splits. What a game needs is made sure of: the
target object is there, the goal does not hold at the start, and the sink, microwave, fridge or desk lamp that the
family uses is in the room. Where objects lie follows ALFRED's own table of what belongs where; the draw is ours, so
these games are not the ones that ALFWorld's authors sampled in a simulator (official.py reads those).
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from aem_swe.errors import TaskError
from aem_swe.worlds import ALFWORLD, FAMILIES, SMALL
from aem_swe.worlds.layouts import Rules, Scene, rules, scene
from aem_swe.worlds.pddl import Item, goal_of, spell, write_problem

Split = Literal["train", "test"]
Files = tuple[tuple[str, bytes], ...]
"""(name, content), as Task.files."""
_NEEDS = {
    "pick_clean_then_place_in_recep": ("Cleanable", "SinkBasin"),
    "pick_heat_then_place_in_recep": ("Heatable", "Microwave"),
    "pick_cool_then_place_in_recep": ("Coolable", "Fridge"),
}
"""Family -> what its object must be, and the receptacle that it is taken to."""
LAMP = "DeskLamp"
_LAMP_STANDS_ON = ("Desk", "SideTable", "Dresser", "CoffeeTable", "DiningTable", "Shelf")
_MOST_OF_A_KIND = 3
SMALL_ROOM = 20
"""Receptacles: every family has rooms that small in both splits, and their games load in half a second."""


@dataclass(frozen=True, slots=True)
class Game:
    """A game file and what its expert has to know."""

    id: str
    family: str
    target: str
    """Kind of the object."""
    parent: str
    """Kind of the receptacle that it has to be in; empty for look_at_obj_in_light."""
    goal: str
    """As the game says it: put a mug in coffeemachine."""
    files: Files
    """game.tw-pddl and traj_data.json, as in ALFWorld's download."""
    scene: Scene
    items: tuple[Item, ...]

    @property
    def receptacles(self) -> tuple[str, ...]:
        """In the game's words and order: cabinet 2, cabinet 1, ..."""
        return tuple(numbered(self.scene.receptacles).values())

    @property
    def intro(self) -> str:
        """What the engine will say at the start. Whoever opens the game compares the two."""
        *most, last = [f"a {name}" for name in self.receptacles]
        seen = f"{', '.join(most)}, and {last}" if most else last
        return (
            "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you,"
            f" you see {seen}.\n\nYour task is to: {self.goal}."
        )


def generate(split: Split, seed: int, *, small: bool = False) -> Game:
    """The game of (split, seed); seeds go through the families in turn. Raises ConfigError without the extra.

    small: only in rooms with at most SMALL_ROOM receptacles.
    """
    if split not in ("train", "test"):
        raise TaskError(f"alfworld split {split!r} is unknown; choose one of ['test', 'train']")
    known, family, world = rules(), FAMILIES[seed % len(FAMILIES)], SMALL if small else ALFWORLD
    stream = random.Random(f"{world}/{split}/{family}/{seed}")
    numbers = sorted(
        number
        for room in known.rooms_of_family[family]
        for number in known.rooms[room]
        if (number in known.test_scenes) == (split == "test")
        if not small or len(scene(number).receptacles) <= SMALL_ROOM
    )
    while True:  # some rooms have nothing for a family: no desk lamp, one soap bar and no other place for it
        here = scene(stream.choice(numbers))
        game = _in_scene(f"{world}-{split}-{seed}", family, here, known, stream)
        if game is not None:
            return game


def _in_scene(identity: str, family: str, here: Scene, known: Rules, stream: random.Random) -> Game | None:
    looking = family == "look_at_obj_in_light"
    if looking and LAMP not in here.objects:
        return None
    state, station = _NEEDS.get(family, (None, None))
    if station is not None and station not in here.receptacles.values():
        return None
    kinds = [kind for kind in here.objects if kind != LAMP and (state is None or kind in known.properties[state])]
    choices = [(kind, parent) for kind in kinds for parent in _parents(kind, station, here, known, looking=looking)]
    if not choices:
        return None
    target, parent = stream.choice(choices)
    items = _furnish(here, known, stream, target, parent, at_least=2 if family == FAMILIES[5] else 1)
    if items is None:
        return None
    return _game(identity, family, here, known, items, (target, parent), stream)


def _parents(kind: str, station: str | None, here: Scene, known: Rules, *, looking: bool) -> list[str]:
    """Kinds of receptacles where the object may have to go: not where it is cleaned, heated or cooled."""
    if looking:
        return [""]
    return sorted({r for r in here.receptacles.values() if kind in known.holds[r]} - {station or ""})


def _furnish(
    here: Scene, known: Rules, stream: random.Random, target: str, parent: str, *, at_least: int
) -> tuple[Item, ...] | None:
    """Put objects where they belong, none of the target's kind where the goal wants it. None where it has no room."""
    items: list[Item] = []
    for kind in here.objects:
        homes = _LAMP_STANDS_ON if kind == LAMP else [r for r, held in known.holds.items() if kind in held]
        wanted = [
            identity for identity, r in here.receptacles.items() if r in homes and not (kind == target and r == parent)
        ]
        count = 1 if kind == LAMP else stream.randint(at_least if kind == target else 1, _MOST_OF_A_KIND)
        if not wanted:
            if kind in (target, LAMP):
                return None
            continue
        for _ in range(count):
            receptacle = stream.choice(wanted)
            items.append(Item(_identity(kind, len(items), stream), kind, receptacle))
    return tuple(items)


def _identity(kind: str, number: int, stream: random.Random) -> str:
    """An id of ALFRED's form; the last coordinate makes it unique."""
    x, y = stream.uniform(-9, 9), stream.uniform(0, 2)
    return f"{kind}|{x:+06.2f}|{y:+06.2f}|{number / 100:+06.2f}"


def _game(
    identity: str,
    family: str,
    here: Scene,
    known: Rules,
    items: tuple[Item, ...],
    aim: tuple[str, str],
    stream: random.Random,
) -> Game:
    target, parent = aim
    kinds = {"obj": target, "recep": parent, "toggle": LAMP, "mrecep": ""}
    library = known.goals[family]
    said = str(stream.choice(library["templates"])).format(**{field: kind.lower() for field, kind in kinds.items()})
    problem = write_problem(identity.replace("-", "_"), here, items, goal_of(str(library["pddl"]), kinds), known)
    game = {
        "pddl_domain": known.domain,
        "grammar": known.grammar.replace("UNKNOWN GOAL", said),
        "pddl_problem": problem,
    }
    return Game(identity, family, target, parent, said, _files(game, family, target, parent), here, items)


def numbered(identities: Iterable[str]) -> dict[str, str]:
    """{id: its name in the game}, in the engine's order. ALFWorld's demangler gives the first of a kind the highest
    number."""
    ordered = sorted(identities, key=lambda identity: spell(identity).lower())
    kinds = [spelled.partition("|")[0] + "basin" * ("basin" in spelled) for spelled in map(str.lower, ordered)]
    left = Counter(kinds)
    names = {}
    for identity, kind in zip(ordered, kinds, strict=True):
        names[identity] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _files(game: Mapping[str, str], family: str, target: str, parent: str) -> Files:
    about = {
        "task_type": family,
        "pddl_params": {
            "object_target": target,
            "parent_target": parent,
            "toggle_target": LAMP if family == "look_at_obj_in_light" else "",
            "mrecep_target": "",
            "object_sliced": False,
        },
    }
    return (
        ("game.tw-pddl", json.dumps(dict(game)).encode()),
        ("traj_data.json", json.dumps(about).encode()),
    )
