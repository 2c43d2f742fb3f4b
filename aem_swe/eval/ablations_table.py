"""The tables of `aem-swe verify ablations`, for a terminal and for docs/ablations.md."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from aem_swe.eval.ablations import REGIMES, Choice, Summary, choices, contrasts_among, whole_run_arms
from aem_swe.eval.dynamics import Regime
from aem_swe.eval.pages import Marks, Table, markdown_table
from aem_swe.eval.statistics import t_interval
from aem_swe.eval.training import TEST, Arm
from aem_swe.eval.training_result import Result
from aem_swe.eval.training_table import absences, contrasts_table, filter_arms, lambda_arms, largest, mean_rate, rate
from aem_swe.eval.wording import counted

Json = dict[str, Any]  # JSON values
MARKS: Final = Marks("ablations", "docs/ablations.md")
_MICRO: Final = 1e6
_FIGURE: Final = (
    "![Alignment of each rule early and late; entropy under each lambda; the filters](ablations.svg)",
    "",
    "Left: how well the weights of each rule are aligned with what responses do to the entropy, early and late;",
    "diamonds are means over policies, bars 95% t intervals, the dotted line AEM's mean (the row token has a scale",
    "of its own). Right: entropy under each lambda (demo: 0, demo_aem: 1), truncation and training",
    "reward under each filter, in whole runs; thin lines are seeds, thick ones their means.",
    "",
)


def make_tables(dynamics: Json | None, training: Result | None) -> list[Table]:
    """AEM's choices by regime; arms and contrasts of lambda and of the filter. What has no row is left out."""
    rows = choices(dynamics) if dynamics else []
    tables = [_choices_table(regime, rows) for regime in REGIMES if any(regime in one.effects for one in rows)]
    if training:
        strengths, filters = lambda_arms(training), filter_arms(training)
        tables += [_lambda_table(training), _contrasts("lambda in whole runs", training, strengths)]
        tables += [_filter_table(training), _contrasts("The filter", training, filters)]
    return [table for table in tables if table.rows]


def _choices_table(regime: Regime, rows: list[Choice]) -> Table:
    header = ("choice", "setting", "minus permuted, 1e-6 nat per lr", "in sd", "in sd, minus AEM", "policies")
    title = f"{regime.capitalize()}: what one step does to the entropy (95% t intervals over policies)"
    return Table(title, header, tuple(_choice_row(one, regime) for one in rows))


def _choice_row(choice: Choice, regime: Regime) -> tuple[str, ...]:
    start = (choice.kind, choice.setting)
    if choice.rule is None:
        return (*start, "0, exactly", "", "", "")
    effect = choice.effects.get(regime)
    if effect is None or effect.minus_permuted is None:
        return (*start, "not measured", "", "", "")
    n = effect.minus_permuted.n
    aligned, minus_aem = (interval_text(one, n, 1.0, "+.2f") for one in (effect.standardised, effect.minus_aem))
    return (*start, interval_text(effect.minus_permuted, n, _MICRO, "+.3g"), aligned, minus_aem, str(n))


def interval_text(summary: Summary | None, policies: int, scale: float, form: str) -> str:
    """Mean and interval; n as well where the summary is over fewer than all `policies`."""
    if summary is None:
        return ""
    text = f"{summary.mean * scale:{form}}"
    if summary.low is not None and summary.high is not None:
        text += f" ({summary.low * scale:{form}} to {summary.high * scale:{form}})"
    return text if summary.n == policies else f"{text}, n = {summary.n}"


def _lambda_table(result: Result) -> Table:
    rows = []
    for name in lambda_arms(result):
        arm = result.arms[name]
        start = (f"{arm.lam:g}", name)
        if not arm.runs:
            rows.append((*start, "not run", *[""] * 3))
            continue
        held_out = f"{mean_rate(arm, 'held_out_first')} → {rate(arm, 'held_out')}"
        rows.append((*start, str(len(arm.runs)), _mean(arm, "entropy"), _mean(arm, "reward"), held_out))
    header = (
        "lambda", "arm", "seeds", "entropy, last 8 steps, nat", "training reward, last 8 steps",
        "held-out before → after",
    )  # fmt: skip
    return Table("lambda in whole runs: means over seeds (95% t intervals)", header, tuple(rows))


def _filter_table(result: Result) -> Table:
    rows = []
    for name in filter_arms(result):
        arm = result.arms[name]
        if not arm.runs:
            rows.append((arm.filter, name, "not run", *[""] * 4))
            continue
        held_out = f"{mean_rate(arm, 'held_out_first')} → {rate(arm, 'held_out')}"
        values = (rate(arm, "truncation"), largest(arm), _mean(arm, "reward"), held_out)
        rows.append((arm.filter, name, str(len(arm.runs)), *values))
    header = (
        "filter", "arm", "seeds", "truncated, last 8 steps", "worst step of any seed", "training reward, last 8 steps",
        "held-out before → after",
    )  # fmt: skip
    return Table("The filter: means over seeds (95% t intervals)", header, tuple(rows))


def _mean(arm: Arm, measure: str) -> str:
    values = arm.values(measure)
    if not values.size:
        return "not recorded"
    interval = t_interval(values)
    return f"{values.mean():.3f}" + (f" ({interval.low:.3f} to {interval.high:.3f})" if interval else "")


def _contrasts(title: str, result: Result, arms: Sequence[str]) -> Table:
    """Without the last column, what a paper says."""
    table = contrasts_table(contrasts_among(result, arms))
    rows = tuple(row[:-1] for row in table.rows)
    return replace(table, title=f"{title}: contrasts, paired by seed", header=table.header[:-1], rows=rows)


def notes(dynamics: Json | None, training: Result | None) -> list[str]:
    """What the tables are and are not, one line each."""
    said = ["No correction is made for the many rows: one 95% interval in twenty misses its true value."]
    if dynamics:
        said += [
            "lambda 0 is the base algorithm bit for bit; its 0 is by construction, not measured.",
            "Minus AEM is paired by policy. Token has none: over tokens a standard deviation is another scale.",
            *_regime_notes(dynamics["positive_share"]),
        ]
    if training:
        said.append(f"Contrasts: {TEST}; the other columns are not tested.")
    return [*said, f"Not covered: whole training runs of the variants other than lambda. {_whole_runs(training)}"]


def _regime_notes(shares: Mapping[str, float | None]) -> list[str]:
    """What the paper means by early and late, and whether the policies were there."""
    said = []
    expected = {"early": "fewer than half, and AEM raises the entropy", "late": "more than half, and AEM lowers it"}
    for regime, meant in expected.items():
        share = shares.get(regime)
        if share is not None:
            reached = "" if (share < 0.5) == (regime == "early") else " This regime was not reached."
            said.append(
                f"{regime.capitalize()}: {share:.0%} of the responses have A > 0; in the paper {meant}.{reached}"
            )
    return said


def _whole_runs(training: Result | None) -> str:
    """How far whole runs tell AEM itself from its base algorithms."""
    judged = [f"{one.algorithm}: {one.verdict}" for one in (training.pairs if training else ())]
    if not judged:
        return "Whole runs of AEM itself against its base algorithm: docs/training.md."
    said = ", ".join(judged)
    return f"Whole runs of AEM itself against its base algorithm, held-out success (docs/training.md): {said}."


def sources(dynamics: Json | None, training: Result | None) -> str:
    """What the results were made by; how many policies and runs."""
    said = []
    if dynamics:
        policies = counted(len(dynamics["policies"]), "policy", "policies")
        said.append(f"{_made(dynamics['command'], dynamics['aem_swe'], dynamics['date'])}: {policies}")
    if training:
        arms, about = whole_run_arms(training), training.about
        runs = counted(sum(len(training.arms[arm].runs) for arm in arms), "run")
        whole = ", ".join([f"{runs} of the arms that differ in lambda or in the filter", *absences(training, arms)])
        said.append(f"{_made(about.command, about.aem_swe, about.date)}: {whole}")
    return f"From {'; and '.join(said)}."


def _made(command: str, version: str, date: str) -> str:
    return f"`{command}` (aem-swe {version}, {date})"


def markdown(dynamics: Json | None, training: Result | None, missing: list[str]) -> str:
    """What stands between the marks."""
    lines = [sources(dynamics, training), *missing, "", *_FIGURE]
    for table in make_tables(dynamics, training):
        lines += markdown_table(table)
    return "\n".join([*lines, *(f"- {note}" for note in notes(dynamics, training)), ""])
