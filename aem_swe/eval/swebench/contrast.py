"""Arms of checkpoints against a reference, at three levels: training seed, evaluation run, instance.

An instance's runs are averaged for each checkpoint first. Then, as in aem_swe.eval.statistics:

1) about THESE checkpoints: instances are resampled, each with all its runs. That holds the noise of the runs too, since
   every instance was sampled anew. p-value: permutation of the two sides of each instance; with one run of one
   checkpoint on each side the exact McNemar test (1947, doi 10.1007/BF02295996), which is that permutation in full.
2) about the METHOD: the checkpoints of different training seeds are the units, and instances vary with them.
   Equal seed numbers are not paired: after the first sampled token two arms share no more than the order of tasks.

Not covered: correction for several comparisons, and runs that are worse as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aem_swe.errors import ConfigError
from aem_swe.eval.statistics import CONFIDENCE, Difference, Floats, crossed_difference
from aem_swe.eval.swebench.arms import Arm, evaluation_notes, protocol_warnings
from aem_swe.eval.swebench.differences import Flip, GroupDifference, flips, group_differences, instance_difference
from aem_swe.eval.swebench.measures import distinct, summarise, summary_text, tallies
from aem_swe.eval.swebench.results import Evaluation, Instance
from aem_swe.eval.visible import visible_line
from aem_swe.eval.wording import counted, interval_text, points

FEW_INSTANCES = 10
SHOWN_FLIPS = 10
INCOMPARABLE = "No instance was graded on both sides, so the arms cannot be compared"


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """`arm - reference` over the instances that every checkpoint of both has at least one graded run of."""

    reference: Arm
    arm: Arm
    instances: tuple[Instance, ...]
    reference_CI: Floats
    """pass@1 of checkpoint C on instance I."""
    arm_CI: Floats
    these_checkpoints: Difference
    method: Difference | None
    """Training seeds vary too; None with one checkpoint on each side, or where seeds are unknown."""
    lost: tuple[Flip, ...]
    """The reference resolves them mostly, the arm does not; the clearest first."""
    gained: tuple[Flip, ...]
    not_in_both: int
    """Instances that some checkpoint was not asked to solve."""
    not_graded: int
    """Instances that are in both, of which some checkpoint has no graded run."""

    @property
    def judged(self) -> Difference:
        """What the headline is about: the method, where it can be."""
        return self.method or self.these_checkpoints

    @property
    def exact(self) -> bool:
        return self.reference.runs == (1,) and self.arm.runs == (1,)

    @property
    def detected(self) -> bool:
        """Both the interval and the test say so; at the edge they can disagree, and then neither is believed."""
        return not self.judged.holds_zero and self.judged.p_value < 1.0 - CONFIDENCE

    @property
    def verdict(self) -> str:
        names = self.arm.label, self.reference.label
        if not self.detected:
            return f"No detectable difference at this scale between {names[0]} and {names[1]}"
        order = "ahead of" if self.judged.value > 0 else "behind"
        if self.method is None:
            return f"The checkpoints of {names[0]} evaluated here are {order} those of {names[1]}"
        return f"{names[0]} is {order} {names[1]}"

    @property
    def numbers(self) -> str:
        rates = [f"{table_CI.mean():.1%}" for table_CI in (self.reference_CI, self.arm_CI)]
        test = "t test over seeds" if self.method else "exact McNemar test" if self.exact else "paired permutation test"
        change = f"{points(self.judged.value)} points of pass@1 ({interval_text(self.judged)}, {test})"
        return f"{rates[0]} -> {rates[1]}, {change}."

    @property
    def resolution(self) -> str:
        """What such data could have shown at all."""
        if self.judged.detectable is None:
            return "Nothing varied between the two, so nothing can be said about what could have been detected."
        size = f"{100 * self.judged.detectable:.1f} points"
        return f"A true difference of {size} would have been detected with 80% power; a smaller one may well be missed."

    @property
    def claim(self) -> str:
        """What the difference is a claim about; never about a method without several training seeds."""
        unit, sides = counted(len(self.instances), "instance"), (self.reference, self.arm)
        if self.method is not None:
            seeds = " and ".join(str(len(side.evaluations)) for side in sides)
            return (
                f"Units: training seeds ({seeds}) and {unit}. This is about the methods, as far as so few seeds carry."
            )
        runs = "one run each" if self.exact else " and ".join("+".join(map(str, side.runs)) for side in sides) + " runs"
        number = sum(len(side.evaluations) for side in sides)
        which = "two" if number == 2 else str(number)
        return f"Unit: {unit}, with {runs}. This is about these {which} checkpoints, not about the method."

    @property
    def context(self) -> str | None:
        """The narrower claim beside the judged one, where there are both."""
        if self.method is None:
            return None
        found = self.these_checkpoints
        number = len(self.reference.evaluations) + len(self.arm.evaluations)
        text = f"{points(found.value)} points ({interval_text(found)})"
        return f"About these {number} checkpoints alone, with only instances and runs varying: {text}."

    def by_repository(self) -> tuple[GroupDifference, ...]:
        return self._groups([one.repository for one in self.instances])

    def by_difficulty(self) -> tuple[GroupDifference, ...]:
        """Empty where the data set has none."""
        return self._groups([one.difficulty for one in self.instances])

    def _groups(self, names: list[str]) -> tuple[GroupDifference, ...]:
        return group_differences(self.arm_CI, self.reference_CI, names, exact=self.exact)

    def flip_lines(self) -> list[str]:
        lines = []
        for found, verb in ((self.gained, "gains"), (self.lost, "loses")):
            if found:
                more = f", and {len(found) - SHOWN_FLIPS} more" if len(found) > SHOWN_FLIPS else ""
                shown = [
                    visible_line(flip.instance_id, 80) if self.exact else str(flip) for flip in found[:SHOWN_FLIPS]
                ]
                lines.append(f"{self.arm.label} {verb} {counted(len(found), 'instance')}: {', '.join(shown)}{more}.")
        return lines

    def notes(self) -> list[str]:
        notes = []
        names = f"{self.reference.label} and {self.arm.label}"
        if len({one.arm for side in (self.reference, self.arm) for one in side.evaluations}) == 1:
            notes.append(f"{names}: both are of one method; a difference between them is not one of methods")
        if self.not_in_both:
            notes.append(f"{names}: {counted(self.not_in_both, 'instance')} left out, not in every evaluation")
        if self.not_graded:
            notes.append(f"{names}: {counted(self.not_graded, 'instance')} left out, not graded for every checkpoint")
        if len(self.instances) < FEW_INSTANCES:
            notes.append(f"only {counted(len(self.instances), 'instance')}: the intervals are rough")
        if self.judged.holds_zero == (self.judged.p_value < 1.0 - CONFIDENCE):
            notes.append(f"{names}: the interval and the test disagree about 0, so this is at the edge; run more")
        for side, other in ((self.reference, self.arm), (self.arm, self.reference)):
            if self.method is not None and len(side.evaluations) == 1:
                notes.append(f"{side.label} has one training seed; its spread is taken to be that of {other.label}")
        return notes


@dataclass(frozen=True, slots=True)
class Comparison:
    arms: tuple[Arm, ...]
    """The reference first."""
    contrasts: tuple[Contrast, ...]
    """One per other arm that shares a graded instance with the reference."""
    warnings: tuple[str, ...]
    """What makes the scores incomparable."""
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """The finding in one line; with more than two arms, that of the first contrast."""
        if self.contrasts:
            return self.contrasts[0].verdict
        return f"What {self.arms[0].label} resolves" if len(self.arms) == 1 else INCOMPARABLE

    def summary_lines(self) -> list[str]:
        """Plain lines for a terminal: warnings, the checkpoints, then each contrast with its tables, and notes."""
        lines = [f"WARNING: {warning}" for warning in self.warnings]
        for arm in self.arms:
            lines += [f"{_name(arm, one)}: {summary_text(summarise(one))}." for one in arm.evaluations]
        for item in self.contrasts:
            lines += [f"{item.verdict}: {item.numbers}", item.resolution, item.claim]
            lines += [item.context] if item.context else []
            lines += item.flip_lines()
            lines += [f"  {group}" for group in (*item.by_repository(), *item.by_difficulty())]
        if len(self.arms) > 1 and not self.contrasts:
            lines.append(INCOMPARABLE)
        lines += [f"note: {note}" for note in self.notes]
        return [visible_line(line, 2000) for line in lines]


def _name(arm: Arm, evaluation: Evaluation) -> str:
    seed = "" if evaluation.training_seed is None else f", seed {evaluation.training_seed}"
    names = dict.fromkeys((arm.label, str(evaluation.folder)))
    return f"{', '.join(names)} ({counted(evaluation.runs, 'run')}{seed})"


def compare_arms(arms: Sequence[Arm]) -> Comparison:
    """Compare every arm with the first. Raises ConfigError where two arms were evaluated on no common instance."""
    pairs = [contrast(arms[0], arm) for arm in arms[1:]]
    contrasts = tuple(item for item in pairs if item is not None)
    notes = [note for arm in arms for note in evaluation_notes(arm)]
    notes += [note for item in contrasts for note in item.notes()]
    if len(contrasts) > 1:
        notes.append(f"{len(contrasts)} comparisons were made; their intervals and p-values are not corrected for that")
    warnings = protocol_warnings([one for arm in arms for one in arm.evaluations])
    return Comparison(tuple(arms), contrasts, tuple(warnings), tuple(dict.fromkeys(notes)))


def contrast(reference: Arm, arm: Arm) -> Contrast | None:
    """None where no instance has a graded run in every checkpoint."""
    sides = [[tallies(one) for one in side.evaluations] for side in (reference, arm)]
    found = [tally for side in sides for tally in side]
    common = [name for name in found[0] if all(name in tally for tally in found)]
    if not common:
        raise ConfigError(
            f"{reference.label!r} and {arm.label!r} were evaluated on no common instance; give evaluations of the same "
            "subset"
        )
    graded = [name for name in common if all(tally[name].graded for tally in found)]
    if not graded:
        return None
    minus_CI, plus_CI = (np.array([[tally[name].rate for name in graded] for tally in side]) for side in sides)
    single = reference.runs == (1,) and arm.runs == (1,)
    seeds = reference.seeds_differ and arm.seeds_differ
    instances = distinct([one for side in (reference, arm) for each in side.evaluations for one in each.instances])
    return Contrast(
        reference, arm, tuple(instances[name] for name in graded), minus_CI, plus_CI,
        these_checkpoints=instance_difference(plus_CI, minus_CI, exact=single),
        method=crossed_difference(plus_CI, minus_CI, same_runs=False) if seeds else None,
        lost=flips(graded, *sides, down=True),
        gained=flips(graded, *sides, down=False),
        not_in_both=len(instances) - len(common), not_graded=len(common) - len(graded),
    )  # fmt: skip
