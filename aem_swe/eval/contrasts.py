"""One arm against the reference: the paired difference of held-out success, and the sentences that it supports."""

from dataclasses import dataclass

from aem_swe.eval.outcomes import Outcome, aligned
from aem_swe.eval.statistics import Difference, crossed_difference, paired_difference
from aem_swe.eval.wording import interval_text, points

FEW_TASKS = 10


@dataclass(frozen=True, slots=True)
class Contrast:
    """`arm - reference` after the last step at which every run of both was evaluated."""

    reference: Outcome
    outcome: Outcome
    step: int
    these_runs: Difference
    """Tasks resampled, runs as they are."""
    method: Difference | None
    """Training seeds vary too; None with one run per arm."""
    notes: tuple[str, ...]

    @property
    def judged(self) -> Difference:
        """The difference that the headline is about: the one with the training seed as a unit, where there is one."""
        return self.method or self.these_runs

    @property
    def verdict(self) -> str:
        names = self.outcome.arm.label, self.reference.arm.label
        if self.judged.holds_zero:
            return f"No detectable difference at this scale between {names[0]} and {names[1]}"
        order = "ahead of" if self.judged.value > 0 else "behind"
        if self.method is None:  # not yet something about the recipes
            return f"The training of {names[0]} seen here is {order} that of {names[1]} on held-out tasks"
        return f"{names[0]} is {order} {names[1]} on held-out tasks"

    @property
    def numbers(self) -> str:
        found = self.judged
        return f"{points(found.value)} points of held-out pass@1 after step {self.step} ({interval_text(found)})."

    @property
    def resolution(self) -> str:
        """What such data could have shown at all."""
        if self.judged.detectable is None:
            return "Both solved every task equally often, so nothing can be said about what could have been detected."
        size = f"{100 * self.judged.detectable:.1f} points"
        return f"A true difference of {size} would have been detected with 80% power; a smaller one may well be missed."

    @property
    def claim(self) -> str:
        tasks = f"{self.judged.tasks} held-out tasks"
        runs = len(self.reference.arm.runs), len(self.outcome.arm.runs)
        if self.method is not None:
            return (
                f"Units: training seeds ({runs[1]} and {runs[0]}) and {tasks}. This is about the two recipes on "
                "this family of tasks, as far as so few seeds carry."
            )
        if runs == (1, 1):
            return f"Unit: {tasks}. This is about these two runs (one training seed each), not about the method."
        return f"Unit: {tasks}. This is about these {sum(runs)} runs, not about the method."

    @property
    def context(self) -> str | None:
        """The narrower claim beside the judged one, where there are both."""
        if self.method is None:
            return None
        found = self.these_runs
        return (
            f"About these {len(self.reference.arm.runs) + len(self.outcome.arm.runs)} runs alone, with only the tasks "
            f"varying: {points(found.value)} points ({interval_text(found)})."
        )


def _order_by_seed(reference: Outcome, outcome: Outcome) -> list[int] | None:
    """Where the runs of `outcome` have the seeds of `reference`: their indices in that order, else None."""
    wanted, found = ([run.seed for run in side.arm.runs] for side in (reference, outcome))
    if len(set(map(str, wanted))) != len(wanted) or sorted(map(str, wanted)) != sorted(map(str, found)):
        return None
    return [found.index(seed) for seed in wanted]


def contrast(reference: Outcome, outcome: Outcome) -> Contrast | None:
    """None if the two arms share no evaluated step after the starting policy, or no task."""
    shared = {item.step for item in reference.curve} & {item.step for item in outcome.curve}
    step = max(shared, default=0)
    if step == 0:
        return None
    same_seeds = _order_by_seed(reference, outcome)
    by_seed = tuple(outcome.evaluations[index] for index in same_seeds or range(len(outcome.evaluations)))
    minus, plus = aligned(reference.evaluations, step, by_seed, step)
    if not plus.size:
        return None
    notes = []
    for side in (reference, outcome):
        if side.curve[-1].step > step:
            notes.append(f"{side.arm.label} was evaluated until step {side.curve[-1].step}; compared after step {step}")
        left_out = max(len(by_step[step].rewards) for by_step in side.evaluations) - plus.shape[1]
        if left_out:
            notes.append(f"{side.arm.label}: {left_out} task(s) that are not graded in every compared run are left out")
    if plus.shape[1] < FEW_TASKS:
        notes.append(f"only {plus.shape[1]} tasks: the intervals are rough")
    independent = reference.arm.seeds_differ and outcome.arm.seeds_differ
    # runs of one seed share their tasks and random streams, in whichever arm: what the seed does cancels out
    method = crossed_difference(plus, minus, same_runs=same_seeds is not None) if independent else None
    return Contrast(reference, outcome, step, paired_difference(plus, minus), method, tuple(notes))
