"""Numbers as sentences: what may be said about one arm, and how a difference and its uncertainty are written."""

from aem_swe.eval.arms import Arm
from aem_swe.eval.outcomes import Outcome
from aem_swe.eval.statistics import Difference


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def interval_text(difference: Difference) -> str:
    p_value = "p < 0.001" if difference.p_value < 0.001 else f"p = {difference.p_value:.2g}"
    return f"95% interval {points(difference.low)} to {points(difference.high)}, {p_value}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun; plural: where that is not the noun with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def seeds_text(arm: Arm) -> str:
    seeds = ", ".join("not recorded" if seed is None else str(seed) for seed in arm.seeds)
    return f"{counted(len(arm.runs), 'run')}, {'seed' if len(arm.runs) == 1 else 'seeds'} {seeds}"


def judged_gain(outcome: Outcome) -> Difference | None:
    """The gain that lets the seeds vary too, where there are several."""
    return outcome.gain_with_seeds or outcome.gain


def gain_sentence(outcome: Outcome) -> str:
    """Held-out success before and after training."""
    if not outcome.curve:
        return f"Held-out pass@1 of {outcome.arm.label} is not recorded."
    first, last = outcome.curve[0], outcome.curve[-1]
    found = judged_gain(outcome)
    if found is None:
        return f"Held-out pass@1 of {outcome.arm.label} is {last.interval.value:.1%} after step {last.step}."
    verb = "did not detectably change" if found.holds_zero else "rose" if found.value > 0 else "fell"
    return (
        f"Held-out pass@1 of {outcome.arm.label} {verb}: {first.interval.value:.1%} after step {first.step}, "
        f"{last.interval.value:.1%} after step {last.step} ({points(found.value)} points, {interval_text(found)})."
    )


def gain_claim(outcome: Outcome) -> str:
    """What the gain of one arm is a claim about."""
    runs = len(outcome.arm.runs)
    if outcome.gain is None:
        return "There is no second held-out evaluation, so nothing can be said about a gain."
    tasks = counted(outcome.gain.tasks, "held-out task")
    if outcome.gain_with_seeds is not None:
        return f"Units: {runs} training seeds and {tasks}. This is about the recipe, as far as so few seeds carry."
    runs_text = "this run (one training seed)" if runs == 1 else f"these {runs} runs"
    return f"Unit: {tasks}. This is about {runs_text}, not about the recipe."


def learning_text(outcome: Outcome) -> str:
    """Training reward of the first and the last steps, averaged over the runs that recorded it."""
    changes = [item for item in outcome.learning if item is not None]
    if not changes:
        return "training reward not recorded"
    first = sum(item.first for item in changes) / len(changes)
    last = sum(item.last for item in changes) / len(changes)
    return f"training reward {first:.3f} -> {last:.3f} (first and last {counted(changes[0].window, 'step')})"
