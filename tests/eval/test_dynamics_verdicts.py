"""Verdicts on the claims about entropy: units, tests, Holm, and what may be called decided."""

import io
import math
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from aem_swe.eval.dynamics import CLAIMS, Verdict, judge_claims, slope_over_lambda
from aem_swe.eval.dynamics_figure import contrasts, draw_dynamics
from aem_swe.eval.dynamics_rules import rule_effects
from aem_swe.eval.dynamics_table import claims_table, drift_correlations, estimator_errors, rules_table
from aem_swe.eval.statistics import holm

Row = dict[str, Any]  # JSON values
STEADY = (0.9, 1.1, 1.0, 0.95, 1.05, 1.02)


def row(policy: int, regime: str, aem: float, *, batch: int = 0, mask: float = 0.0, positive: int | None = None) -> Row:
    """A batch in which AEM at lambda 1 is `aem` above its control, and the masks are `mask` off base."""
    modulated = {"aem_1": aem, "aem_2": 2 * aem, "inverted": -aem}
    if positive is None:
        positive = 2 if regime == "early" else 8
    return {
        "policy": f"seed_{policy}", "regime": regime, "batch": batch, "positive": positive, "negative": 10 - positive,
        "change": {"base": 5.0, **{name: 7.0 + value for name, value in modulated.items()}, "rise": 5.0 + mask,
                   "fall": 5.0 - mask},
        "permuted": dict.fromkeys(modulated, 7.0) | {"rise": 5.0, "fall": 5.0},
        "permuted_deviation": dict.fromkeys((*modulated, "rise", "fall"), 0.5),
        "weight_token_mean": dict.fromkeys(("base", *modulated, "rise", "fall"), 1.0),
        "drift_correlation": 0.5 + 0.1 * policy, "surprise_correlation": None,
    }  # fmt: skip


def rows_of(early: Sequence[float], late: Sequence[float], mask: float = 1.0) -> list[Row]:
    return [row(i, "early", value, mask=mask * value) for i, value in enumerate(early)] + [
        row(i, "late", value) for i, value in enumerate(late)
    ]


def judged(rows: list[Row], *, confirmatory: bool = True) -> dict[str, Verdict]:
    return {verdict.claim.name: verdict for verdict in judge_claims(rows, confirmatory=confirmatory)}


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.04 -> never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def test_a_claim_without_a_p_value_still_counts_in_the_family() -> None:
    assert holm([0.01, None, None]) == [pytest.approx(0.03), None, None]


def test_everything_in_the_direction_of_the_paper_is_confirmed() -> None:
    found = judged(rows_of(STEADY, [-x for x in STEADY]))
    assert {verdict.status for verdict in found.values()} == {"confirmed"}
    one = found["early"]
    expected = stats.ttest_1samp(STEADY, 0.0, alternative="greater").pvalue
    assert one.p_value == pytest.approx(expected)
    assert one.p_holm == pytest.approx(5 * expected)  # all five have the same p-value
    half = stats.t.ppf(0.975, 5) * stats.sem(STEADY)
    assert (one.low, one.mean, one.high) == pytest.approx((1.00333 - half, 1.00333, 1.00333 + half), rel=1e-4)
    assert (one.policies, one.batches) == (6, 6)


def test_everything_in_the_other_direction_is_contradicted() -> None:
    found = judged(rows_of([-x for x in STEADY], STEADY))
    assert {verdict.status for verdict in found.values()} == {"contradicted"}
    assert found["early"].high is not None and found["early"].high < 0
    assert found["late"].low is not None and found["late"].low > 0


def test_four_policies_decide_nothing_however_alike_they_are() -> None:
    found = judged(rows_of(STEADY[:4], [-x for x in STEADY[:4]]))
    assert {verdict.status for verdict in found.values()} == {"undecided"}
    assert found["masks"].reason == "4 policies, 5 needed"
    p_value = found["masks"].p_value
    assert p_value is not None and p_value < 0.001


def test_batches_are_no_units() -> None:
    many = [row(0, "early", value, batch=i) for i, value in enumerate(STEADY * 10)]
    one = judged(many)["early"]
    assert (one.status, one.reason, one.policies, one.batches) == ("undecided", "1 policy, 5 needed", 1, 60)
    assert one.low is None and one.p_value is None
    assert one.mean == pytest.approx(sum(STEADY) / 6)


def test_a_policy_with_more_batches_weighs_no_more() -> None:
    rows = [row(0, "early", 4.0, batch=i) for i in range(9)] + [row(1, "early", 0.0)]
    assert judged(rows)["early"].mean == pytest.approx(2.0)


def test_what_scatters_around_zero_is_undecided() -> None:
    noise = (1.0, -1.1, 0.4, -0.3, 0.9, -1.0)
    found = judged(rows_of(noise, noise))
    assert {verdict.status for verdict in found.values()} == {"undecided"}
    assert found["early"].reason == "the interval allows both"


def test_holm_decides_where_a_single_test_would_have_confirmed() -> None:
    weak = (0.1, 2.0, 0.3, 1.7, 0.4, 1.0)  # alone p = 0.015
    found = judged(rows_of(weak, [0.1, -0.1, 0.2, -0.2, 0.3, -0.3], mask=0.0))
    one = found["early"]
    assert one.p_value is not None and one.p_holm is not None
    assert one.p_value < 0.05 < one.p_holm and one.status == "undecided"


def test_exploration_decides_nothing() -> None:
    one = judged(rows_of(STEADY, STEADY), confirmatory=False)["early"]
    assert (one.status, one.reason) == ("undecided", "exploratory; would be confirmed")


def test_a_late_policy_that_mostly_fails_says_nothing_about_late() -> None:
    rows = [row(i, "late", -value, positive=3) for i, value in enumerate(STEADY)]
    one = judged(rows)["late"]
    assert (one.status, one.reason) == ("undecided", "regime not reached: 30% of the responses have A > 0")


def test_the_slope_over_lambda_by_hand() -> None:
    # points (0, 0), (1, 3), (2, 6), permuted 7: a line of slope 3
    assert slope_over_lambda(row(0, "early", 3.0)) == pytest.approx(3.0)


def test_the_batches_needed_follow_from_the_spread_between_batches() -> None:
    one = judged([row(0, "early", value, batch=i) for i, value in enumerate((0.0, 2.0))])["early"]
    quantiles = stats.norm.ppf(1 - 0.05 / 6) + stats.norm.ppf(0.8)
    assert one.batch_deviation == pytest.approx(2**0.5)
    assert one.batches_needed == math.ceil((quantiles * 2**0.5) ** 2)


def test_the_tables_and_the_figure_show_every_claim_and_rule() -> None:
    rows = rows_of(STEADY, [-x for x in STEADY])
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(claims_table(judge_claims(rows, confirmatory=True)))
    console.print(rules_table(rows))
    text = console.export_text()
    assert all(claim.text in text for claim in CLAIMS) and text.count("confirmed") == 5
    pairs = [(rule, kind) for rule, kind, _ in contrasts(rows, "early")]
    controlled = [(rule, "minus permuted") for rule in ("aem_1", "aem_2", "inverted", "rise", "fall")]
    assert pairs == [*controlled, ("rise", "minus base"), ("fall", "minus base")]
    assert {rule: values.mean() for rule, kind, values in contrasts(rows, "late") if kind == "minus permuted"} == {
        "aem_1": pytest.approx(-sum(STEADY) / 6), "aem_2": pytest.approx(-sum(STEADY) / 3),
        "inverted": pytest.approx(sum(STEADY) / 6), "rise": 0.0, "fall": 0.0,
    }  # fmt: skip
    assert draw_dynamics(rows, "png").startswith(b"\x89PNG")
    assert draw_dynamics(rows, "svg") == draw_dynamics(rows, "svg")


def test_drift_correlations_are_averaged_over_policies_with_an_interval() -> None:
    found = {(one["regime"], one["measure"]): one for one in drift_correlations(rows_of(STEADY, []))}
    one = found["early", "drift_correlation"]
    assert one["mean"] == pytest.approx(0.75) and one["low"] < 0.75 < one["high"]
    assert found["early", "surprise_correlation"]["mean"] is None


def test_estimator_errors_by_hand() -> None:
    first = row(0, "early", 1.0)
    rules = {
        "base": {"linear": 9.0, "exact": 10.0, "measured": -10.0, "measured_half": -6.0, "gradient_norm": 2.0},
        "rise": {"linear": 1.0, "exact": 1.0, "measured": 1.0, "measured_half": 0.5, "gradient_norm": 0.0},
    }
    first["check"] = {
        "lr": 0.5,
        "rules": rules | dict.fromkeys(("aem_1", "aem_2", "inverted", "fall"), rules["rise"]),
    }
    errors = estimator_errors([first])
    assert errors == {"real_step": 1.9, "half_step": 0.2, "backpropagation": 0.1, "steps": 6}
    assert estimator_errors([row(0, "early", 1.0)]) is None
    means = {one["rule"]: one for one in rule_effects([first])}
    assert means["base"]["change_per_norm"] == 10.0 / 0.5 / 2.0
    assert means["rise"]["change_per_norm"] is None


def test_effects_of_a_rule_by_hand() -> None:
    flat = row(1, "early", 9.0, batch=1)
    flat["permuted_deviation"] = dict.fromkeys(flat["permuted_deviation"], 0.0)
    rows = [row(0, "early", 1.0), row(1, "early", 2.0), flat, row(0, "late", -3.0)]
    found = {(one["regime"], one["rule"]): one for one in rule_effects(rows)}
    one = found["early", "aem_1"]
    # policies: 1 and (2 + 9) / 2; the flat batch has no spread to be measured in
    assert (one["minus_permuted"]["n"], one["minus_permuted"]["mean"]) == (2, pytest.approx(3.25))
    assert one["standardised"]["mean"] == pytest.approx((1 / 0.5 + 2 / 0.5) / 2)
    half = stats.t.ppf(0.975, 1) * 4.5 / 2  # half the difference of two values times t
    assert one["minus_permuted"]["low"] == pytest.approx(3.25 - half)
    assert found["early", "base"]["minus_permuted"] is None and found["early", "base"]["change"] == 5.0
    assert found["late", "aem_1"]["minus_permuted"] == {"n": 1, "mean": -3.0, "low": None, "high": None}


def test_the_figure_of_a_verdict_states_n_interval_and_test() -> None:
    found = judged(rows_of(STEADY, []))["early"].as_json()
    assert found["verdict"] == "confirmed" and found["n"] == 6 and found["id"] == "early"
    assert found["figure"].startswith("+1 nat per unit of learning rate (95% t interval +0.93 to +1.1), n = 6 policies")
    assert "one-sided t test over policies, Holm" in found["figure"]
    assert judged([])["late"].as_json()["figure"] == "n = 0 policies (0 in the claimed direction), 0 batches"
    mixed = judged(rows_of([1.0, -1.0, 2.0, 0.0, 3.0], []))
    assert "n = 5 policies (3 in the claimed direction), 5 batches" in mixed["early"].figure
    assert mixed["inverted"].agreeing == 3
