"""An expert for ALFWorld's games that knows no more than the player: it reads the intro and what each move shows.

It looks for the object where such objects belong, open places before closed ones (they cost one move, not two), takes
it, does to it what the family wants, and puts it where the goal says. ALFWorld's own hand-coded agent gets caught in
loops on a part of the games (`aem-swe tasks worlds --theirs` measures it), so this one makes the demonstrations.

Not covered: goals worded by people, sliced objects, floor lamps.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field

from aem_swe.errors import TaskError
from aem_swe.types import Task
from aem_swe.worlds.layouts import Rules, rules

_STATIONS = {
    "pick_clean_then_place_in_recep": ("clean", ("sinkbasin", "bathtubbasin")),
    "pick_heat_then_place_in_recep": ("heat", ("microwave",)),
    "pick_cool_then_place_in_recep": ("cool", ("fridge",)),
}
_NAME = re.compile(r"\ba ([a-z]+ \d+)")
_LAMP = "desklamp"


@dataclass(frozen=True, slots=True)
class Aim:
    """What a game wants, in the game's spelling: kinds in lower case."""

    family: str
    target: str
    parent: str


def aim_of(task: Task) -> Aim:
    """Read it from the task's traj_data.json, which ALFWorld's games have as well. Raises TaskError without one."""
    try:
        about = json.loads(dict(task.files)["traj_data.json"])
        wanted = about["pddl_params"]
        return Aim(about["task_type"], wanted["object_target"].lower(), wanted["parent_target"].lower())
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise TaskError(f"{task.id}: its traj_data.json does not say what the goal is ({error!r})") from error


def kind_of(name: str) -> str:
    """cabinet 12 -> cabinet"""
    return name.partition(" ")[0]


@dataclass(slots=True)
class Expert:
    """Plays one game: `begin` with the intro, then `act` with what the last command showed."""

    aim: Aim
    here: str = ""
    """The receptacle it stands at."""
    holding: str = ""
    ready: bool = False
    """What it holds has been cleaned, heated or cooled, if that was wanted."""
    placed: set[str] = field(default_factory=set)
    home: str = ""
    """The one receptacle that it puts things in."""
    contents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Receptacle -> what was seen there; those that are closed or unseen are missing."""
    closed: set[str] = field(default_factory=set)
    receptacles: list[str] = field(default_factory=list)
    _order: list[str] = field(default_factory=list)
    _same_place: bool = False

    def begin(self, intro: str) -> str:
        """Read the intro; return the first command."""
        self.receptacles = _NAME.findall(intro.partition("you see")[2].partition("Your task is to")[0])
        known = rules()
        self._order = sorted(self.receptacles, key=lambda name: self._unlikely(name, known))
        return self._next()

    def act(self, command: str, feedback: str) -> str:
        """Take in what `command` showed; return the next one."""
        self._observe(command, feedback)
        return self._next()

    @property
    def thought(self) -> str:
        """What it is about: find mug, heat mug, put mug in desk. Said before the next command in demonstrations."""
        if not self.holding:
            return f"find {self.aim.target}"
        if not self.ready:
            return f"{_STATIONS[self.aim.family][0]} {self.aim.target}"
        if self.aim.family == "look_at_obj_in_light":
            return f"find {_LAMP}"
        return f"put {self.aim.target} in {self.aim.parent}"

    def _unlikely(self, name: str, known: Rules) -> tuple[bool, bool, bool]:
        """Sort key of the search for the target: where it belongs, not where it must go, open before closed."""
        kind = kind_of(name)
        holds = {r.lower(): {object_.lower() for object_ in held} for r, held in known.holds.items()}
        openable = {r.lower() for r in known.openable}
        return self.aim.target not in holds.get(kind, set()), kind == self.aim.parent, kind in openable

    def _observe(self, command: str, feedback: str) -> None:
        verb, _, rest = command.partition(" ")
        if verb in ("go", "examine", "open"):
            self.here = rest.removeprefix("to ")
        if "Nothing happens" in feedback:
            # receptacles can share a place; one does not go to where one stands
            self._same_place = verb == "go"
            return
        self._same_place = False
        if verb == "take":
            self.holding, self.ready = rest.partition(" from ")[0], self.aim.family not in _STATIONS
            self._forget(self.holding)
        elif verb == "move":
            if rest.partition(" to ")[2] == self.home:
                self.placed.add(self.holding)
            self.holding = ""
        elif verb in ("clean", "heat", "cool"):
            self.ready = True
        if verb in ("go", "examine", "open"):
            if "is closed" in feedback:
                self.closed.add(self.here)
            else:
                self.closed.discard(self.here)
                self.contents[self.here] = tuple(_NAME.findall(feedback.partition("you see")[2]))

    def _forget(self, name: str) -> None:
        for receptacle, names in self.contents.items():
            self.contents[receptacle] = tuple(other for other in names if other != name)

    def _next(self) -> str:
        if self._same_place and self.here not in self.contents and self.here not in self.closed:
            return f"examine {self.here}"
        if not self.holding:
            return self._get()
        if not self.ready:
            verb, stations = _STATIONS[self.aim.family]
            station = next((name for kind in stations for name in self.receptacles if kind_of(name) == kind), "")
            return self._at(station, f"{verb} {self.holding} with {station}") if station else "look"
        if self.aim.family == "look_at_obj_in_light":
            lamp = self._seen({_LAMP})
            return self._at(lamp[0], f"use {lamp[1]}") if lamp else self._explore(self.receptacles)
        self.home = self.home or next((name for name in self.receptacles if kind_of(name) == self.aim.parent), "")
        if self.home in self.closed and self.here == self.home:
            return f"open {self.home}"
        return self._at(self.home, f"move {self.holding} to {self.home}") if self.home else "look"

    def _get(self) -> str:
        found = self._seen({self.aim.target}, without=self.placed)
        return self._at(found[0], f"take {found[1]} from {found[0]}") if found else self._explore(self._order)

    def _seen(self, kinds: Collection[str], without: Collection[str] = ()) -> tuple[str, str] | None:
        """(receptacle, object) of an object that was seen, where it stands first."""
        for receptacle in sorted(self.contents, key=lambda name: name != self.here):
            for name in self.contents[receptacle]:
                if kind_of(name) in kinds and name not in without:
                    return receptacle, name
        return None

    def _at(self, receptacle: str, command: str) -> str:
        return command if self.here == receptacle else f"go to {receptacle}"

    def _explore(self, order: list[str]) -> str:
        if self.here in self.closed:
            return f"open {self.here}"
        unseen = next((name for name in order if name not in self.contents), None)
        return f"go to {unseen}" if unseen else "look"
