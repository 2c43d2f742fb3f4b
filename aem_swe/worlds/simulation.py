"""The moves of an expert in a generated game, answered in plain Python as the engine answers them.

Warm start needs thousands of episodes and the engine takes a second for each, so demonstrations are made here; nothing
else is. A test plays the same games in the engine and compares every word. Not covered, and refused: look, inventory,
help, slice, and examining an object.
"""

from dataclasses import dataclass, field

from aem_swe.worlds.generate import Game, numbered
from aem_swe.worlds.layouts import Place, rules
from aem_swe.worlds.pddl import START

NOTHING = "Nothing happens."
_STATE = {"clean": ("Cleanable", "SinkBasin"), "heat": ("Heatable", "Microwave"), "cool": ("Coolable", "Fridge")}


@dataclass(slots=True)
class Simulation:
    """One game under way."""

    game: Game
    won: bool = False
    _place: Place = START
    _opened: set[str] = field(default_factory=set)
    _held: str = ""
    _where: dict[str, str] = field(default_factory=dict)
    """Object -> receptacle; an object that is held is missing. Both by their names in the game."""
    _kinds: dict[str, str] = field(default_factory=dict)
    _places: dict[str, Place] = field(default_factory=dict)
    _states: set[tuple[str, str]] = field(default_factory=set)
    """(clean, heat, cool or use, object)."""

    def __post_init__(self) -> None:
        scene = self.game.scene
        receptacles, objects = numbered(scene.receptacles), numbered(item.identity for item in self.game.items)
        items = {item.identity: item for item in self.game.items}
        for identity, name in receptacles.items():
            self._kinds[name], self._places[name] = scene.receptacles[identity], scene.places[identity]
        for identity, name in objects.items():  # in the order that the engine lists them
            self._kinds[name] = items[identity].kind
            self._where[name] = receptacles[items[identity].receptacle]
        self._order = {name: position for position, name in enumerate(objects.values())}

    _order: dict[str, int] = field(default_factory=dict)

    def run(self, command: str) -> str:
        """What the game says. Raises ValueError for a command that is not simulated."""
        verb, _, rest = command.partition(" ")
        first, _, second = next(
            (rest.partition(word) for word in (" from ", " to ", " with ") if word in rest), (rest, "", "")
        )
        moves = {"go": self._go, "open": self._open, "close": self._close, "examine": self._examine, "use": self._use}
        if verb in moves:
            return moves[verb](first.removeprefix("to "))
        if verb == "take":
            return self._take(first, second)
        if verb == "move":
            return self._move(first, second)
        if verb in _STATE:
            return self._treat(verb, first, second)
        raise ValueError(f"{command!r} is not simulated")

    def _is_here(self, receptacle: str) -> bool:
        return self._places.get(receptacle) == self._place

    def _openable(self, receptacle: str) -> bool:
        return self._kinds[receptacle] in rules().openable

    def _accessible(self, receptacle: str) -> bool:
        return self._is_here(receptacle) and (not self._openable(receptacle) or receptacle in self._opened)

    def _describe(self, receptacle: str) -> str:
        if self._openable(receptacle) and receptacle not in self._opened:
            return f"The {receptacle} is closed."
        there = sorted((o for o, r in self._where.items() if r == receptacle), key=self._order.__getitem__)
        *most, last = [f"a {name}" for name in there] or ["nothing"]
        seen = f"{', '.join(most)}, and {last}" if most else last
        if self._openable(receptacle):
            return f"The {receptacle} is open. In it, you see {seen}."
        return f"On the {receptacle}, you see {seen}."

    def _go(self, receptacle: str) -> str:
        if receptacle not in self._places or self._is_here(receptacle):
            return NOTHING
        self._place = self._places[receptacle]
        self._judge()
        return f"You arrive at {receptacle}. {self._describe(receptacle)}"

    def _examine(self, receptacle: str) -> str:
        if receptacle in self._order:
            raise ValueError(f"examining {receptacle!r} is not simulated")
        return self._describe(receptacle) if self._is_here(receptacle) else NOTHING

    def _open(self, receptacle: str) -> str:
        if not self._is_here(receptacle) or not self._openable(receptacle) or receptacle in self._opened:
            return NOTHING
        self._opened.add(receptacle)
        return f"You open the {receptacle}. {self._describe(receptacle)}"

    def _close(self, receptacle: str) -> str:
        if not self._is_here(receptacle) or receptacle not in self._opened:
            return NOTHING
        self._opened.remove(receptacle)
        return f"You close the {receptacle}."

    def _take(self, name: str, receptacle: str) -> str:
        fixed = self._kinds.get(name) in rules().properties["Toggleable"]
        if self._held or fixed or self._where.get(name) != receptacle or not self._accessible(receptacle):
            return NOTHING
        self._held = name
        del self._where[name]
        self._judge()
        return f"You pick up the {name} from the {receptacle}."

    def _move(self, name: str, receptacle: str) -> str:
        if not name or name != self._held or not self._accessible(receptacle):
            return NOTHING
        if self._kinds[name] not in rules().holds[self._kinds[receptacle]]:
            return NOTHING
        self._where[name], self._held = receptacle, ""
        self._judge()
        return f"You move the {name} to the {receptacle}."

    def _treat(self, verb: str, name: str, station: str) -> str:
        quality, kind = _STATE[verb]
        able = name and name == self._held and self._kinds[name] in rules().properties[quality]
        if not able or not self._is_here(station) or self._kinds[station] != kind:
            return NOTHING
        self._states -= {({"heat": "cool", "cool": "heat"}.get(verb, ""), name)}
        self._states.add((verb, name))
        return f"You {verb} the {name} using the {station}."

    def _use(self, name: str) -> str:
        lamp = self._kinds.get(name) in rules().properties["Toggleable"]
        if not lamp or not self._is_here(self._where[name]):
            return NOTHING
        self._states.add(("use", name))
        self._judge()
        return f"You turn on the {name}."

    def _judge(self) -> None:
        """ALFWorld's goals (goal_library.py), with a won game staying won."""
        game = self.game
        if game.family == "look_at_obj_in_light":
            lit = any(verb == "use" and self._is_here(self._where[name]) for verb, name in self._states)
            self.won = self.won or (lit and self._kinds.get(self._held) == game.target)
            return
        wanted = {"pick_clean_then_place_in_recep": "clean", "pick_heat_then_place_in_recep": "heat",
                  "pick_cool_then_place_in_recep": "cool"}.get(game.family)  # fmt: skip
        there = [
            receptacle
            for name, receptacle in self._where.items()
            if self._kinds[name] == game.target and self._kinds[receptacle] == game.parent
            if wanted is None or (wanted, name) in self._states
        ]
        enough = 2 if game.family == "pick_two_obj_and_place" else 1
        self.won = self.won or any(there.count(receptacle) >= enough for receptacle in there)
