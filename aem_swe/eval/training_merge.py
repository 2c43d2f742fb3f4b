"""Runs of other result files, put beside those of a folder: `aem-swe verify training --with`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aem_swe.errors import ConfigError
from aem_swe.eval.training_plan import Plan
from aem_swe.eval.training_result import RunName, read_result
from aem_swe.eval.training_values import RunValues

Key = tuple[str, int]
"""Arm and seed."""


@dataclass(slots=True)
class Merged:
    """Every run of a plan, from a folder first and then from files."""

    found: dict[Key, RunValues | int]
    """The values of a finished run, else how many steps it has in the folder."""
    failed: list[Key] = field(default_factory=list)
    """Tried and failed where a file was made; values may have come from elsewhere."""
    unfinished: list[Key] = field(default_factory=list)

    def absent(self, keys: Sequence[Key]) -> list[Key]:
        """Those without values, each once."""
        return [key for key in dict.fromkeys(keys) if isinstance(self.found[key], int)]

    def contradicted(self) -> list[Key]:
        """Runs with values that failed where some file was made."""
        return [key for key in dict.fromkeys(self.failed) if isinstance(self.found[key], RunValues)]

    def take(self, plan: Plan, path: Path) -> tuple[int, list[Key]]:
        """Put the runs of a file where there is none.

        Returns how many those are, and which of the others have other values than the file. Raises ConfigError for
        an arm of other words or overrides; what a recipe's file said there is not known, only the runs' commits are.
        """
        result = read_result(path, "--with")
        taken = 0
        different: list[Key] = []
        for name in [name for name in plan.arms if name in result.arms]:
            theirs, ours = ((one.overrides, one.arms[name]) for one in (result.plan, plan))
            if theirs != ours:
                raise ConfigError(
                    f"--with {str(path)!r}: arm {name!r} was made with other settings; leave the file out"
                )
            for run in result.arms[name].runs:
                there = self.found.get((name, run.seed))
                if isinstance(there, int):
                    self.found[name, run.seed] = run
                    taken += 1
                elif there and _learned(there) != _learned(run):
                    different.append((name, run.seed))
        self.failed += self._of_plan(result.failed)
        self.unfinished += self._of_plan(result.unfinished)
        return taken, different

    def _of_plan(self, names: Sequence[RunName]) -> list[Key]:
        return [key for one in names if (key := (one.arm, one.seed)) in self.found]


def _learned(run: RunValues) -> RunValues:
    """What the seed decides, without what the machine does."""
    return run.model_copy(update={"step_seconds": 0.0, "commit": None})
