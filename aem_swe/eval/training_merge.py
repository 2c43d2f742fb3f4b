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
    """Tried and failed where a file was made; still without values."""
    unfinished: list[Key] = field(default_factory=list)

    def absent(self, keys: Sequence[Key]) -> list[Key]:
        """Those without values, each once."""
        return [key for key in dict.fromkeys(keys) if isinstance(self.found[key], int)]

    def take(self, plan: Plan, path: Path) -> tuple[int, int]:
        """Put the runs of a file where there is none.

        Returns how many those are, and how many of the others have other values than the file. Raises ConfigError for
        an arm of other words or overrides; what a recipe's file said there is not known, only the runs' commits are.
        """
        result = read_result(path, "--with")
        taken = different = 0
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
                different += isinstance(there, RunValues) and _learned(there) != _learned(run)
        self.failed += self._of_plan(result.failed)
        self.unfinished += self._of_plan(result.unfinished)
        return taken, different

    def _of_plan(self, names: Sequence[RunName]) -> list[Key]:
        return [key for one in names if (key := (one.arm, one.seed)) in self.found]


def _learned(run: RunValues) -> RunValues:
    """What the seed decides, without what the machine does."""
    return run.model_copy(update={"step_seconds": 0.0, "commit": None})
