"""Runs sorted into arms: runs whose recipes differ in nothing but the seed and the folder they wrote are of one arm.

The name of a recipe is not compared, its values are: `demo` with `aem.enabled=true` and `demo_aem` are the same arm.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aem_swe.eval.runs import Run
from aem_swe.eval.visible import visible_line

IGNORED = frozenset({"recipe", "run_dir", "seed"})
ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """One key of the recipe that differs from the reference arm; values as JSON."""

    key: str
    reference: str
    value: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reference} -> {self.value}"


@dataclass(frozen=True, slots=True)
class Arm:
    label: str
    runs: tuple[Run, ...]
    changes: tuple[ConfigChange, ...]
    """Against the reference arm; empty for the reference itself."""

    @property
    def has_aem(self) -> bool:
        return self.runs[0].setting("aem.enabled") is True

    @property
    def seeds(self) -> tuple[object, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def seeds_differ(self) -> bool:
        """False when a seed occurs twice: such runs are copies, not independent training runs."""
        return len({str(seed) for seed in self.seeds}) == len(self.runs)


def sort_into_arms(runs: Sequence[Run]) -> tuple[Arm, ...]:
    """Arms in the order of their first run, the reference (the first without AEM, if any) in front."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(json.dumps(compared_settings(run.config), sort_keys=True), []).append(run)
    ordered = sorted(groups.values(), key=lambda group: group[0].setting("aem.enabled") is True)
    reference = compared_settings(ordered[0][0].config)
    changes = [config_changes(reference, compared_settings(group[0].config)) for group in ordered]
    labels = _labels([_recipe(group[0]) for group in ordered], changes)
    return tuple(
        Arm(label, tuple(group), change) for label, group, change in zip(labels, ordered, changes, strict=True)
    )


def compared_settings(config: Mapping[str, object]) -> dict[str, str]:
    """The recipe as dotted keys with JSON values, without what may differ inside an arm."""
    return {key: value for key, value in _flatten(config, "").items() if key not in IGNORED}


def _flatten(value: object, path: str) -> dict[str, str]:
    if isinstance(value, Mapping) and (value or not path):
        flat: dict[str, str] = {}
        for key, item in value.items():
            flat |= _flatten(item, f"{path}.{key}" if path else str(key))
        return flat
    return {path: json.dumps(value, default=str, sort_keys=True)}


def config_changes(reference: Mapping[str, str], other: Mapping[str, str]) -> tuple[ConfigChange, ...]:
    return tuple(
        ConfigChange(key, reference.get(key, ABSENT), other.get(key, ABSENT))
        for key in sorted({*reference, *other})
        if reference.get(key) != other.get(key)
    )


def _recipe(run: Run) -> str:
    return visible_line(str(run.config.get("recipe") or run.manifest.get("recipe") or run.name), 60)


def _labels(recipes: list[str], changes: list[tuple[ConfigChange, ...]]) -> list[str]:
    """Recipe names; where two arms share one, what was changed is added, and a number if that is too long to tell."""
    labels: list[str] = []
    for recipe, change in zip(recipes, changes, strict=True):
        label = recipe
        if recipes.count(recipe) > 1 and change:
            label = f"{recipe} ({visible_line(', '.join(f'{item.key}={item.value}' for item in change), 60)})"
        labels.append(label if label not in labels else f"{label} #{len(labels) + 1}")
    return labels
