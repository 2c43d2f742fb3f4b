"""What `aem-swe verify dynamics` shows: the claims, the rules, and how far the linear estimate is from real steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types; stubs may be installed

from aem_swe.eval.dynamics import Row, Verdict
from aem_swe.eval.statistics import CONFIDENCE

_MICRO = 1e6
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
    """The mean entropy change of every rule and of its permuted control, by regime."""
    table = Table(box=box.SIMPLE_HEAD)
    names = (
        "regime",
        "rule",
        "change, 1e-6 nat per lr",
        "permuted",
        "weight per token",
        "gradient norm",
        "per unit of norm",
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("regime", "rule") else "right")
    for found in rule_means(rows):
        cells = (found["change"], found["permuted"], found["weight_token_mean"])
        change, permuted, weight = (
            "" if x is None else f"{x * scale:+.3g}" for x, scale in zip(cells, (_MICRO, _MICRO, 1), strict=True)
        )
        norms = ["" if found[key] is None else f"{found[key]:.3g}" for key in ("gradient_norm", "change_per_norm")]
        table.add_row(found["regime"], found["rule"], change, permuted, weight.lstrip("+"), *norms)
    return table


def rule_means(rows: Sequence[Row]) -> list[Json]:
    """Means over all batches of a regime; gradient norms over the checked batches. None where nothing was measured.

    change_per_norm is the change in nats of a step of unit length: <gradient, grad H> / norm, over checked batches.
    """
    found = []
    for regime in dict.fromkeys(str(row["regime"]) for row in rows):
        inside = [row for row in rows if row["regime"] == regime]
        for rule in inside[0]["change"]:
            checks = [row["check"]["rules"][rule] for row in inside if "check" in row]
            lengths = [check["gradient_norm"] for check in checks if check["gradient_norm"]]
            unit = [
                check["exact"] / row["check"]["lr"] / check["gradient_norm"]
                for row in inside
                if "check" in row and (check := row["check"]["rules"][rule])["gradient_norm"]
            ]
            found.append(
                {
                    "regime": regime,
                    "rule": rule,
                    "change": _mean([row["change"][rule] for row in inside]),
                    "permuted": _mean([row["permuted"].get(rule) for row in inside]),
                    "weight_token_mean": _mean([row["weight_token_mean"][rule] for row in inside]),
                    "gradient_norm": _mean(lengths),
                    "change_per_norm": _mean(unit),
                }
            )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


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
    for regime in dict.fromkeys(str(row["regime"]) for row in rows):
        for key in ("drift_correlation", "surprise_correlation"):
            policies: dict[str, list[float]] = {}
            for row in rows:
                if row["regime"] == regime and row[key] is not None:
                    policies.setdefault(str(row["policy"]), []).append(row[key])
            values = np.array([np.mean(group) for group in policies.values()])
            low = high = None
            if values.size > 1:
                half = stats.t.ppf((1 + CONFIDENCE) / 2, values.size - 1) * values.std(ddof=1) / values.size**0.5
                low, high = float(values.mean() - half), float(values.mean() + half)
            mean = float(values.mean()) if values.size else None
            found.append(
                {"regime": regime, "measure": key, "mean": mean, "low": low, "high": high, "policies": values.size}
            )
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
