"""What an evaluation is to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.eval.swebench.protocol import Protocol
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.rows import Row

Unit = tuple[int, str]
"""(run, instance id)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    folder: Path
    model: str
    protocol: Protocol
    rows: Mapping[str, Row]
    """By instance id, in the form of swebench 5."""
    problems: Sequence[Problem]
    """The same instances, in the order in which they are played."""
    workers: int
    grading_workers: int
    engines: tuple[str, ...] = ()
    prices: tuple[float, float] | None = None
    """Of a million prompt and completion tokens."""
    give_up_after: int = 10
    """Infrastructure errors in a row that stop the evaluation."""

    @property
    def units(self) -> list[Unit]:
        return [(run, one.task.id) for run in range(1, self.protocol.runs + 1) for one in self.problems]
