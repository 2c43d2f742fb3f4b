"""What the alfworld package ships: PDDL domain, grammar, goals and floor plans, read as files.

Importing alfworld makes a folder in the user's home and changes the environment, so this process never does: its two
modules of constants are executed on their own, and everything else is JSON and text. Only game processes import it.
"""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any  # module attributes and JSON

from aem_swe.errors import ConfigError

INSTALL = "pip install 'aem-swe[alfworld]'"
Place = tuple[int, int, int, int]
"""x and z in steps of 0.25 m, quarter turns, degrees of the camera: where an agent stands to use a receptacle."""
_NO_PLACE_X = 1000
"""Where the made-up places begin: no floor plan reaches there."""


def missing() -> str | None:
    """None where textworld and alfworld are installed, else one line with the remedy."""
    absent = [name for name in ("textworld", "alfworld", "fast_downward") if importlib.util.find_spec(name) is None]
    return f"text worlds need {' and '.join(absent)}, not installed here; {INSTALL}" if absent else None


def require_installed() -> None:
    """Raises ConfigError, with the command that installs what is missing."""
    reason = missing()
    if reason:
        raise ConfigError(reason)


@cache
def package_folder() -> Path:
    """The installed alfworld package. Raises ConfigError where it is missing."""
    require_installed()
    found = importlib.util.find_spec("alfworld")
    assert found is not None and found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations)))


def _module(name: str) -> Any:  # its attributes are whatever the file defines
    path = package_folder() / "gen" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_alfworld_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True, slots=True)
class Rules:
    """The constants that problems are made by. Names of kinds are ALFRED's: "SinkBasin", "DeskLamp"."""

    domain: str
    grammar: str
    """With the words UNKNOWN GOAL where the goal is said."""
    goals: Mapping[str, Mapping[str, Any]]
    """Family -> its PDDL goal and its sentences, with fields."""
    holds: Mapping[str, frozenset[str]]
    """Kind of receptacle -> kinds of objects that belong there."""
    openable: frozenset[str]
    properties: Mapping[str, frozenset[str]]
    """Cleanable, Heatable, Coolable, Sliceable -> kinds of objects."""
    rooms: Mapping[str, tuple[int, ...]]
    """Kitchen, LivingRoom, Bedroom, Bathroom -> numbers of floor plans."""
    rooms_of_family: Mapping[str, frozenset[str]]
    test_scenes: frozenset[int]
    """ALFRED's unseen floor plans: 6 of each 30."""


@cache
def rules() -> Rules:
    """Read them. Raises ConfigError where alfworld is missing."""
    constants, goals = _module("constants"), _module("goal_library")
    data = package_folder() / "data"
    movable = set(constants.MOVABLE_RECEPTACLES)
    holds = {r: frozenset(objects) for r, objects in constants.VAL_RECEPTACLE_OBJECTS.items() if r not in movable}
    return Rules(
        domain=(data / "alfred.pddl").read_text(),
        grammar=(data / "alfred.twl2").read_text(),
        goals=goals.gdict,
        holds=holds,
        openable=frozenset(constants.OPENABLE_CLASS_LIST),
        properties={name: frozenset(kinds) for name, kinds in constants.VAL_ACTION_OBJECTS.items()},
        rooms={name: tuple(numbers) for name, numbers in constants.SCENE_TYPE.items()},
        rooms_of_family={family: frozenset(rooms) for family, rooms in constants.GOALS_VALID.items()},
        test_scenes=frozenset(constants.TEST_SCENE_NUMBERS),
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """One floor plan, empty of objects."""

    number: int
    receptacles: Mapping[str, str]
    """Id, for example Cabinet|+00.68|+00.50|-02.20 -> kind."""
    places: Mapping[str, Place]
    """Id of a receptacle -> where an agent stands to use it; several may share one."""
    objects: tuple[str, ...]
    """Kinds of objects that are found here and that some receptacle here holds; a DeskLamp as well."""


@cache
def scene(number: int) -> Scene:
    """Read a floor plan.

    A few kinds that the plan lists have no place in it (burners, most bins): they get one each, apart from all others.
    """
    known, folder = rules(), package_folder() / "gen" / "layouts"
    placed: Mapping[str, list[float]] = json.loads((folder / f"FloorPlan{number}-openable.json").read_text())
    kinds: list[str] = sorted(json.loads((folder / f"FloorPlan{number}-objects.json").read_text()))
    receptacles, places = {}, {}
    for identity, (x, z, turn, horizon) in placed.items():
        first, *_, last = identity.split("|")
        kind = f"{first}Basin" if last.endswith("Basin") else first  # Sink|x|y|z|SinkBasin
        if kind in known.holds:
            receptacles[identity] = kind
            places[identity] = (round(x * 4), round(z * 4), round(turn) // 90, round(horizon))
    for kind in kinds:
        if kind in known.holds and kind not in receptacles.values():
            x = _NO_PLACE_X + 4 * len(places)
            identity = f"{kind.removesuffix('Basin')}|+{x // 4}.00|+00.00|+00.00"
            identity += f"|{kind}" * kind.endswith("Basin")
            receptacles[identity], places[identity] = kind, (x, 0, 0, 30)
    here = frozenset().union(*(known.holds[kind] for kind in receptacles.values()))
    objects = tuple(kind for kind in kinds if (kind in here or kind == "DeskLamp") and kind not in known.holds)
    return Scene(number, receptacles, places, objects)
