"""What `aem-swe verify dynamics` shows: the claims, the rules, and how far the linear estimate is from real steps."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from rich import box
from rich.table import Table

from aem_swe.eval.dynamics import Regime, Row, Verdict
from aem_swe.eval.dynamics_rules import rule_effects, summary, values_of

_MICRO = 1e6
_NOTHING = {"mean": None, "low": None, "high": None}
Json = dict[str, Any]  # JSON values


def claims_table(verdicts: Sequence[Verdict]) -> Table:
    """One row per claim; contrasts in millionths of a nat per unit of learning rate."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in (
        "claim",
        "verdict",
        "contrast, 1e-6 nat per lr (95% interval)",
        "p, Holm",
        "policies",
        "batches",
        "needed",
    ):
        table.add_column(name, justify="left" if name in ("claim", "verdict") else "right")
    for one in verdicts:
        p_value = "" if one.p_holm is None else f"{one.p_holm:.2g}"
        needed = "" if one.batches_needed is None else str(one.batches_needed)
        table.add_row(
            one.claim.text, one.said, _interval(one.mean, one.low, one.high, _MICRO), p_value, str(one.policies),
            str(one.batches), needed,
        )  # fmt: skip
    return table


def rules_table(rows: Sequence[Row]) -> Table:
    """What every rule does to the entropy, beside its permuted control, by regime; intervals are over policies."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in (
        "regime",
        "rule",
        "change, 1e-6 nat per lr",
        "minus permuted (95% interval)",
        "in sd of permutations",
        "weight per token",
        "gradient norm",
    ):
        table.add_column(name, justify="left" if name in ("regime", "rule") else "right")
    for found in rule_effects(rows):
        effect, aligned = found["minus_permuted"], found["standardised"]
        weight, norm = (found[key] for key in ("weight_token_mean", "gradient_norm"))
        table.add_row(
            found["regime"], found["rule"], f"{found['change'] * _MICRO:+.3g}",
            "" if effect is None else _interval(effect["mean"], effect["low"], effect["high"], _MICRO),
            "" if aligned is None else _interval(aligned["mean"], aligned["low"], aligned["high"], 1.0),
            "" if weight is None else f"{weight:.3g}", "" if norm is None else f"{norm:.3g}",
        )  # fmt: skip
    return table


def estimator_errors(rows: Sequence[Row]) -> Json | None:
    """The largest errors over all checked batches, relative to the largest change of that batch; None without a check.

    real_step: linear estimate against the measured SGD step. half_step: twice the half step against the whole one (a
    linear change gives 0). backpropagation: linear estimate against <gradient, grad H>.
    """
    errors: dict[str, list[float]] = {"real_step": [], "half_step": [], "backpropagation": []}
    for row in rows:
        rules: Mapping[str, Mapping[str, float]] = row.get("check", {}).get("rules", {})
        scale = max((abs(one["measured"]) for one in rules.values()), default=0.0)
        for one in rules.values() if scale else ():
            errors["real_step"].append(abs(one["linear"] - one["measured"]) / scale)
            errors["half_step"].append(abs(2 * one["measured_half"] - one["measured"]) / scale)
            errors["backpropagation"].append(abs(one["linear"] - one["exact"]) / scale)
    if not errors["real_step"]:
        return None
    return {name: max(values) for name, values in errors.items()} | {"steps": len(errors["real_step"])}


def drift_correlations(rows: Sequence[Row]) -> list[Json]:
    """Theorem 3.2.2, read locally: rank correlation of what a response does to the entropy with A (S - H).

    Also without the advantage on both sides, which shares no factor. Batches are averaged within a policy; the interval
    is a t interval over policies, None below two.
    """
    found = []
    regimes: tuple[Regime, ...] = ("early", "late")
    for regime in regimes:
        inside = [row for row in rows if row["regime"] == regime]
        for key in ("drift_correlation", "surprise_correlation") if inside else ():
            ranked = [row for row in inside if row[key] is not None]
            one = summary(values_of(ranked, regime, itemgetter(key))) or {"n": 0, **_NOTHING}
            found.append({"regime": regime, "measure": key, "policies": one.pop("n"), **one})
    return found


def drift_line(found: Json) -> str:
    what = "A (S - H)" if found["measure"] == "drift_correlation" else "S - H, without A"
    where = f"{found['regime']}: rank correlation of a response's effect with {what}"
    return f"{where}: {_interval(found['mean'], found['low'], found['high'], 1.0) or 'nothing to rank'}"


def _interval(mean: float | None, low: float | None, high: float | None, scale: float) -> str:
    if mean is None:
        return ""
    text = f"{mean * scale:+.3g}"
    return text if low is None or high is None else f"{text} ({low * scale:+.3g} to {high * scale:+.3g})"
