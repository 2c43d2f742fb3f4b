"""The tables of the report: what was compared, how the metrics moved, why trajectories were filtered.
Where the time went is in timings.py.

A metric that a run did not write is None and reads 'not recorded'; it is never 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aem_swe.eval.arms import Arm
from aem_swe.eval.outcomes import Outcome, Success
from aem_swe.eval.runs import Run
from aem_swe.eval.statistics import change

METRICS = {
    "Training reward": "critic/rewards/mean",
    "Token entropy (nats)": "actor/entropy",
    "Truncated episodes": "rollout/truncation_rate",
    "Tokens per response": "response/length_mean",
    "Turns per episode": "rollout/turns_mean",
    "Gradient norm": "actor/grad_norm",
    "Alpha, positive advantage": "aem/alpha_positive_mean",
    "Alpha, negative advantage": "aem/alpha_negative_mean",
    "Alpha over tokens": "aem/alpha_token_mean",
}


@dataclass(frozen=True, slots=True)
class TableRow:
    name: str
    cells: tuple[str | None, ...]
    """One per arm; None: not recorded."""
    nested: bool = False


def provenance_rows(arms: Sequence[Arm]) -> tuple[TableRow, ...]:
    def row(name: str, read: Callable[[Run], str | None]) -> TableRow:
        found = [[value for run in arm.runs if (value := read(run)) is not None] for arm in arms]
        return TableRow(name, tuple("; ".join(dict.fromkeys(values)) or None for values in found))

    return (
        row("Run folders", lambda run: run.name),
        row("AEM", _aem),
        row("Seeds", lambda run: None if run.seed is None else str(run.seed)),
        row("Steps done", _steps),
        row("Starting policy (SHA-256)", lambda run: _shortened(run.manifest.get("model_sha256"))),
        row("Code (git commit)", lambda run: _shortened(run.manifest.get("git_commit"))),
        row("Versions", _versions),
    )


def _aem(run: Run) -> str | None:
    if run.setting("aem.enabled") is not True:
        return None if run.setting("aem.enabled") is None else "off"
    return f"on, lambda {run.setting('aem.lambda')}, group {run.setting('aem.group')}"


def _steps(run: Run) -> str:
    planned = run.setting("trainer.steps")
    return str(run.steps) if planned is None else f"{run.steps} of {planned}"


def _shortened(value: object) -> str | None:
    return None if value is None else str(value)[:12]


def _versions(run: Run) -> str | None:
    versions = run.manifest.get("versions")
    if not isinstance(versions, Mapping) or not versions:
        return None
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def metric_rows(arms: Sequence[Arm]) -> tuple[TableRow, ...]:
    """First and last steps of every metric, averaged over the runs of an arm."""
    return tuple(TableRow(name, tuple(_metric_cell(arm, key) for arm in arms)) for name, key in METRICS.items())


def _metric_cell(arm: Arm, key: str) -> str | None:
    changes = [item for run in arm.runs if (item := change(run.series(key).values)) is not None]
    if not changes:
        return None
    first = sum(item.first for item in changes) / len(changes)
    last = sum(item.last for item in changes) / len(changes)
    if key == "rollout/truncation_rate":
        return f"{first:.1%} to {last:.1%}"
    digits = 1 if max(abs(first), abs(last)) >= 10 else 3
    return f"{first:.{digits}f} to {last:.{digits}f}"


def success_rows(outcomes: Sequence[Outcome]) -> tuple[TableRow, ...]:
    """Held-out pass@1 at every step that some arm was evaluated at."""
    found = [{item.step: item for item in outcome.curve} for outcome in outcomes]
    steps = sorted({step for by_step in found for step in by_step})
    return tuple(
        TableRow(f"step {step}", tuple(_success_cell(by_step.get(step)) for by_step in found)) for step in steps
    )


def _success_cell(success: Success | None) -> str | None:
    if success is None:
        return None
    interval = success.interval
    return f"{interval.value:.1%} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def ledger_rows(arms: Sequence[Arm]) -> tuple[TableRow, ...]:
    """Trajectories per filter reason over the whole of training, `kept` first, then by count."""
    reasons = {key for arm in arms for run in arm.runs for key in run.keys("filter/")}
    counts = {key: [total_of(arm, key) for arm in arms] for key in reasons}
    ordered = sorted(reasons, key=lambda key: (key != "filter/kept", -sum(n or 0.0 for n in counts[key]), key))
    sizes = [total_of(arm, "rollout/trajectories") for arm in arms]
    return tuple(
        TableRow(key.removeprefix("filter/"), tuple(map(_count_cell, counts[key], _wholes(key, sizes))))
        for key in ordered
    )


def total_of(arm: Arm, key: str) -> float | None:
    """Sum of a metric over all steps and runs of an arm; None if it was never recorded."""
    found = [series.values.sum() for run in arm.runs if (series := run.series(key)).values.size]
    return float(sum(found)) if found else None


def _wholes(key: str, sizes: list[float | None]) -> list[float | None]:
    # Counts of groups are no share of the trajectories.
    return [None] * len(sizes) if key.endswith("_groups") else sizes


def _count_cell(count: float | None, whole: float | None) -> str | None:
    if count is None:
        return None
    return f"{count:,.0f} ({count / whole:.1%})" if whole else f"{count:,.0f}"
