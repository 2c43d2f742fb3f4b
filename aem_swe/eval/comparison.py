"""Runs side by side: arms, what came of each, the contrasts with the reference, and what to warn a reader of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.errors import ConfigError
from aem_swe.eval.arms import Arm, sort_into_arms
from aem_swe.eval.contrasts import Contrast, contrast
from aem_swe.eval.outcomes import Outcome, measure
from aem_swe.eval.runs import Run, load_run
from aem_swe.eval.visible import visible_line
from aem_swe.eval.wording import gain_claim, gain_sentence, learning_text, seeds_text

INCOMPARABLE = "The arms share no complete held-out evaluation after training began, so they cannot be compared"


@dataclass(frozen=True, slots=True)
class Comparison:
    outcomes: tuple[Outcome, ...]
    """One per arm, the reference first."""
    contrasts: tuple[Contrast, ...]
    """One per other arm that can be compared."""
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for outcome in self.outcomes for run in outcome.arm.runs)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(warning for outcome in self.outcomes for warning in outcome.warnings)

    @property
    def title(self) -> str:
        """The finding in one line; with more than two arms, that of the first contrast."""
        if self.contrasts:
            return self.contrasts[0].verdict
        if len(self.outcomes) == 1:
            return f"What {self.outcomes[0].arm.label} learned"
        return INCOMPARABLE

    def summary_lines(self) -> list[str]:
        """Plain lines for a terminal: one per arm, then the contrasts, warnings and notes."""
        lines = []
        for outcome in self.outcomes:
            lines.append(f"{outcome.arm.label} ({seeds_text(outcome.arm)}): {learning_text(outcome)}.")
            lines.append(gain_sentence(outcome))
        for item in self.contrasts:
            lines += [f"{item.verdict}: {item.numbers}", item.resolution, item.claim]
        if not self.contrasts:
            lines.append(INCOMPARABLE if len(self.outcomes) > 1 else gain_claim(self.outcomes[0]))
        lines += [f"WARNING: {warning}" for warning in self.warnings]
        lines += [f"note: {note}" for note in self.notes]
        return [visible_line(line, 1000) for line in lines]


def compare(folders: Sequence[Path]) -> Comparison:
    """Load the runs, sort them into arms and compare every arm with the reference.

    Raises ConfigError when no run is given or one is given twice, RunError when one cannot be read.
    """
    if not folders:
        raise ConfigError("no run folder is given; name at least one, such as runs/demo/deepswe")
    resolved = [folder.resolve() for folder in folders]
    if twice := sorted({str(folder) for folder in resolved if resolved.count(folder) > 1}):
        raise ConfigError(f"run folder {twice[0]!r} is given more than once; a run cannot be compared with itself")
    outcomes = tuple(measure(arm) for arm in sort_into_arms([load_run(folder) for folder in folders]))
    pairs = [contrast(outcomes[0], outcome) for outcome in outcomes[1:]]
    contrasts = tuple(item for item in pairs if item is not None)
    notes = [note for outcome in outcomes for note in (*_run_notes(outcome.arm), *outcome.notes)]
    notes += [note for item in contrasts for note in item.notes]
    notes += _origin_notes([run for outcome in outcomes for run in outcome.arm.runs])
    if len(contrasts) > 1:
        notes.append(f"{len(contrasts)} comparisons were made; their intervals and p-values are not corrected for that")
    return Comparison(outcomes, contrasts, tuple(dict.fromkeys(notes)))


def _run_notes(arm: Arm) -> list[str]:
    notes = []
    for run in arm.runs:
        if run.unreadable_lines:
            notes.append(f"{run.name}: {run.unreadable_lines} unreadable (torn) line(s) of metrics.jsonl skipped")
        planned = run.setting("trainer.steps")
        if isinstance(planned, int) and run.steps < planned:
            notes.append(f"{run.name}: stopped after step {run.steps} of {planned}")
    if not arm.seeds_differ:
        notes.append(f"{arm.label}: the runs do not all have different seeds, so no claim about the method is made")
    return notes


def _origin_notes(runs: Sequence[Run]) -> list[str]:
    """Differences outside the recipe that could explain a difference in the results."""
    notes = []
    for key, meaning in (("model_sha256", "starting policy"), ("git_commit", "code")):
        values = {str(run.manifest[key]) for run in runs if run.manifest.get(key) is not None}
        if len(values) > 1:
            notes.append(f"the runs do not share their {meaning}: {key} is one of {sorted(values)}")
    return notes
