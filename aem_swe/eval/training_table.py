"""The tables of `aem-swe verify training`, for a terminal and for docs/training.md."""

from collections.abc import Sequence
from typing import Final

from aem_swe.eval.pages import Marks, Table, between_marks, markdown_table
from aem_swe.eval.statistics import t_interval
from aem_swe.eval.training import Arm, Judgement, difference_text
from aem_swe.eval.training_plan import Measure
from aem_swe.eval.training_result import Result
from aem_swe.eval.wording import counted

MARKS: Final = Marks("training", "docs/training.md")
_UNITS: Final[dict[Measure, str]] = {
    "held_out": "held-out, points",
    "reward": "training reward",
    "truncation": "truncated, points",
    "entropy": "entropy, nat",
}

_FIGURE: Final = (
    "![Held-out success with and without AEM; truncated episodes; entropy](training.svg)",
    "",
    "Left: dots are seeds, diamonds their means, bars 95% t intervals. Middle: truncation under each filter. Right:",
    "entropy under the masks of Analysis A and under AEM. Thin lines are seeds, thick ones their means.",
    "",
)


def make_tables(result: Result) -> list[Table]:
    """Algorithms with and without AEM, all contrasts, all arms; a table without a row is left out."""
    tables = [_algorithms(result), contrasts_table(result.judgements), _arms(result)]
    return [table for table in tables if table.rows]


def _algorithms(result: Result) -> Table:
    rows = []
    for one in result.pairs:
        without, with_aem = (result.arms[name] for name in (one.contrast.against, one.contrast.arm))
        rows.append((one.algorithm, rate(without, "held_out"), rate(with_aem, "held_out"), *_judged(one)))
    return Table(
        "Held-out success with and without AEM",
        ("base algorithm", "without AEM", "with AEM", *_judged_header("difference, points")),
        tuple(rows),
    )


def arms_of(judgements: Sequence[Judgement]) -> list[str]:
    """The arms that are compared, references first, each once."""
    arms = [*(one.contrast.against for one in judgements), *(one.contrast.arm for one in judgements)]
    return list(dict.fromkeys(arms))


def filter_arms(result: Result) -> list[str]:
    """Arms whose truncation is judged: those that differ in the filter."""
    return arms_of([one for one in result.judgements if one.measure == "truncation"])


def of_lambda(result: Result) -> list[Judgement]:
    """Contrasts of entropy between arms that differ in AEM's lambda; a plan's own if they differ in more."""
    named = [one for one in result.judgements if one.measure == "entropy"]
    return [one for one in named if result.arms[one.contrast.arm].lam != result.arms[one.contrast.against].lam]


def lambda_arms(result: Result) -> list[str]:
    """The arms of these contrasts; 0, without AEM, first."""
    return sorted(arms_of(of_lambda(result)), key=lambda name: result.arms[name].lam)


def contrasts_table(judgements: Sequence[Judgement]) -> Table:
    rows = []
    for one in judgements:
        least = "" if one.detectable is None else difference_text(one.detectable, one.measure, unit=False).lstrip("+")
        sides = f"{one.contrast.arm} - {one.contrast.against}"
        paper = one.contrast.paper or ""
        rows.append((one.name, sides, _UNITS[one.measure], *_judged(one), least, paper))
    header = ("contrast", "arms", "of", *_judged_header("difference"), "80% power for, uncorrected", "a paper says")
    return Table("Contrasts, paired by seed", header, tuple(rows))


def _judged_header(difference: str) -> tuple[str, ...]:
    return (f"{difference} (95% t interval, uncorrected)", "seeds", "p, Holm", "verdict")


def _judged(one: Judgement) -> tuple[str, ...]:
    if one.mean is None:
        return ("", "0", "", one.verdict)
    text = difference_text(one.mean, one.measure, unit=False)
    if one.interval:
        low, high = (difference_text(x, one.measure, unit=False) for x in (one.interval.low, one.interval.high))
        text += f" ({low} to {high})"
    return (text, str(one.n), "" if one.p_holm is None else f"{one.p_holm:.2g}", one.verdict)


def _arms(result: Result) -> Table:
    rows = []
    for name, arm in result.arms.items():
        if not arm.runs:
            rows.append((name, "not run", *[""] * 6))
            continue
        cut = f"{mean_rate(arm, 'truncation')} / {largest(arm)}"
        reward = f"{_number(arm, 'reward_first', 2)} → {_number(arm, 'reward', 2)}"
        alphas = [run.alpha.token for run in arm.runs if run.alpha and run.alpha.token is not None]
        alpha = f"{sum(alphas) / len(alphas):.3f}" if alphas else ""
        held_out = (mean_rate(arm, "held_out_first"), rate(arm, "held_out"))
        rows.append((name, str(len(arm.runs)), *held_out, reward, cut, _number(arm, "entropy", 3), alpha))
    header = (
        "arm", "seeds", "held-out before", "after (95% t interval)", "reward, first 8 → last 8 steps",
        "truncated, last 8 / worst step", "entropy, nat", "alpha per token",
    )  # fmt: skip
    return Table("Arms, means over seeds", header, tuple(rows))


def rate(arm: Arm, measure: str) -> str:
    """A mean in per cent with its interval over seeds."""
    interval = t_interval(arm.values(measure))
    if interval is None:
        return mean_rate(arm, measure)
    return f"{interval.value:.1%} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def mean_rate(arm: Arm, measure: str) -> str:
    """A mean in per cent."""
    values = arm.values(measure)
    return f"{values.mean():.1%}" if values.size else "not recorded" if arm.runs else "not run"


def largest(arm: Arm) -> str:
    """The worst truncation of any step of any seed."""
    values = arm.values("truncation_max")
    return f"{values.max():.0%}" if values.size else "not recorded"


def _number(arm: Arm, measure: str, digits: int) -> str:
    values = arm.values(measure)
    return f"{values.mean():.{digits}f}" if values.size else "not recorded"


def closing_line(result: Result) -> str:
    """How much there was to run, in words that no machine can be compared by; what failed, and the code that ran."""
    hours = result.step_seconds / 3600
    wanted = len(result.plan.arms) * len(result.plan.seeds)
    said = f"{result.runs} of {counted(wanted, 'run')}; their steps took {hours:.1f} hours by their own clocks, summed"
    said += "".join(f"; {one}" for one in absences(result, list(result.arms)))
    if len(commits := result.commits) > 1:
        said += f"; runs of {len(commits)} commits are compared ({', '.join(commits)})"
    return said


def absences(result: Result, arms: Sequence[str]) -> list[str]:
    """Runs of these arms that were begun and have no values, so that none of them is just a seed less."""
    said = []
    for runs, what in ((result.failed, "FAILED"), (result.unfinished, "not finished")):
        names = [f"{one.arm} seed {one.seed}" for one in runs if one.arm in arms]
        if names:
            said.append(f"{len(names)} {what}: {', '.join(names)}")
    return said


def markdown(result: Result) -> str:
    """What stands between the marks."""
    made = f"Made by `{result.about.command}` (aem-swe {result.about.aem_swe}, {result.about.date}): "
    lines = [f"{made}{closing_line(result)}. Settings of every arm: `{' '.join(result.plan.overrides)}`.", "", *_FIGURE]
    for table in make_tables(result):
        lines += markdown_table(table)
    return "\n".join(lines)


def with_tables(page: str, result: Result) -> str:
    """The document with new tables between the marks."""
    return between_marks(page, markdown(result), MARKS)
