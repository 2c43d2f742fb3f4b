"""A problem in PDDL, as ALFWorld's domain and its demangler want it.

Names are ALFRED's ids (Apple|+00.47|+01.15|-01.30) in the spelling that PDDL allows: | is _bar_, + is _plus_.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from aem_swe.worlds.layouts import Place, Rules, Scene

AGENT = "agent1"
START: Place = (0, 0, 0, 30)
_SPELLINGS = (("-", "_minus_"), ("|", "_bar_"), ("+", "_plus_"), (".", "_dot_"), (",", "_comma_"))
_STATES = {"Cleanable": "cleanable", "Heatable": "heatable", "Coolable": "coolable", "Sliceable": "sliceable"}


@dataclass(frozen=True, slots=True)
class Item:
    """An object and where it is at the start."""

    identity: str
    kind: str
    receptacle: str


def spell(identity: str) -> str:
    """An id as PDDL can have it."""
    for sign, word in _SPELLINGS:
        identity = identity.replace(sign, word)
    return identity


def _location(place: Place) -> str:
    return spell("loc|" + "|".join(map(str, place)))


def goal_of(template: str, fields: Mapping[str, str]) -> str:
    """The (:goal ...) of ALFWorld's library with its fields filled; there # stands for PDDL's -, and a problem ends."""
    text = re.sub(r"\s+", " ", template.format(**fields)).strip().replace("#", "-")
    surplus = text.count(")") - text.count("(")
    for _ in range(surplus):
        text = text.removesuffix(")").rstrip()
    return text


def write_problem(name: str, scene: Scene, items: tuple[Item, ...], goal: str, rules: Rules) -> str:
    """The whole problem: objects, initial facts, goal, metric."""
    object_kinds = sorted({item.kind for item in items} | {"Knife", "ButterKnife"})
    # the domain names these types in its preconditions, so every problem declares them
    receptacle_kinds = sorted({*scene.receptacles.values(), "SinkBasin", "Microwave", "Fridge"})
    locations = sorted({START, *scene.places.values()})
    declared = [
        f"{AGENT} - agent",
        *(f"{spell(item.identity)} - object" for item in items),
        *(f"{spell(identity)} - receptacle" for identity in scene.receptacles),
        *(f"{_location(place)} - location" for place in locations),
        *(f"{kind}Type - otype" for kind in object_kinds),
        *(f"{kind}Type - rtype" for kind in receptacle_kinds),
    ]
    facts = [f"(atLocation {AGENT} {_location(START)})"]
    for identity, kind in scene.receptacles.items():
        facts.append(f"(receptacleType {spell(identity)} {kind}Type)")
        facts.append(f"(receptacleAtLocation {spell(identity)} {_location(scene.places[identity])})")
        facts += [f"(openable {spell(identity)})"] * (kind in rules.openable)
    for item in items:
        facts += _facts_of(item, scene, rules)
    for receptacle in receptacle_kinds:
        facts += [
            f"(canContain {receptacle}Type {kind}Type)" for kind in object_kinds if kind in rules.holds[receptacle]
        ]
    return (
        f"(define (problem {name})\n(:domain alfred)\n(:objects\n{_lines(declared)})\n"
        f"(:init\n(= (total-cost) 0)\n{_lines(facts)})\n{goal}\n(:metric minimize (total-cost))\n)\n"
    )


def _facts_of(item: Item, scene: Scene, rules: Rules) -> list[str]:
    name = spell(item.identity)
    states = [word for state, word in _STATES.items() if item.kind in rules.properties[state]]
    states += ["toggleable" if item.kind in rules.properties["Toggleable"] else "pickupable"]
    return [
        f"(objectType {name} {item.kind}Type)",
        f"(inReceptacle {name} {spell(item.receptacle)})",
        f"(objectAtLocation {name} {_location(scene.places[item.receptacle])})",
        *(f"({state} {name})" for state in states),
    ]


def _lines(rows: list[str]) -> str:
    return "".join(f"{row}\n" for row in rows)
