"""What every rule of `aem-swe verify dynamics` does to the entropy, rule by rule: the ablation of AEM's choices.

Batches are averaged within a policy, intervals are over policies. Nothing here is a verdict: the claims that are tested
stand in dynamics.py, and no correction covers the many rules of this table.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aem_swe.eval.dynamics import Claim, Regime, Row, minus_permuted, policy_values
from aem_swe.eval.statistics import Floats, t_interval

Json = dict[str, Any]  # JSON values


def rule_effects(rows: Sequence[Row]) -> list[Json]:
    """One entry per regime and rule; changes in nats per unit of learning rate.

    minus_permuted: the change minus that of the rule's own weights permuted, {n, mean, low, high}; None for base.
    standardised: the same in standard deviations over all permutations, batch by batch. It tells how well a rule's
    weights are aligned with what responses do, whatever their spread: a larger lambda alone does not raise it.
    gradient_norm, change_per_norm: over checked batches; the latter is the change in nats of a step of unit length.
    """
    regimes: tuple[Regime, ...] = ("early", "late")
    return [
        _effect(inside, regime, rule)
        for regime in regimes
        if (inside := [row for row in rows if row["regime"] == regime])
        for rule in inside[0]["change"]
    ]


def _effect(rows: Sequence[Row], regime: Regime, rule: str) -> Json:
    checks = [(row["check"]["lr"], row["check"]["rules"][rule]) for row in rows if "check" in row]
    moved = [(lr, check) for lr, check in checks if check["gradient_norm"]]
    controlled = rule in rows[0]["permuted"]
    return {
        "regime": regime,
        "rule": rule,
        "change": _mean([row["change"][rule] for row in rows]),
        "permuted": _mean([row["permuted"][rule] for row in rows]) if controlled else None,
        "minus_permuted": summary(values_of(rows, regime, minus_permuted(rule))) if controlled else None,
        "standardised": summary(values_of(with_spread(rows, rule), regime, standardised(rule))) if controlled else None,
        "weight_token_mean": _mean([row["weight_token_mean"][rule] for row in rows]),
        "gradient_norm": _mean([check["gradient_norm"] for _, check in moved]),
        "change_per_norm": _mean([check["exact"] / lr / check["gradient_norm"] for lr, check in moved]),
    }


def with_spread(rows: Sequence[Row], rule: str) -> list[Row]:
    """The batches in which permuting the rule's weights changes anything."""
    return [row for row in rows if row["permuted_deviation"][rule] > 0]


def standardised(rule: str) -> Callable[[Row], float]:
    """The contrast of a rule and its permuted control in standard deviations over all permutations."""
    return lambda row: minus_permuted(rule)(row) / float(row["permuted_deviation"][rule])


def values_of(rows: Sequence[Row], regime: Regime, contrast: Callable[[Row], float]) -> Floats:
    """The contrast per policy, averaged over its batches."""
    return policy_values(rows, Claim("", "", regime, 1, contrast))


def summary(values: Floats) -> Json | None:
    """n, mean and the 95% t interval over policies; None without any."""
    if not values.size:
        return None
    interval = t_interval(values)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {"n": int(values.size), "mean": float(values.mean()), "low": low, "high": high}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
