"""AEM's choices and the filter's semantics: rows, numbers by hand, tables and the figure."""

import math
import re
from pathlib import Path

import pytest
from ablations_scene import CONTRASTS, FILTERS, batch, dynamics_of, three_policies, training_of
from training_scene import make_plan, result_of

from aem_swe.eval.ablations import Choice, Json, choices
from aem_swe.eval.ablations_figure import draw_ablations
from aem_swe.eval.ablations_table import make_tables, notes
from aem_swe.eval.training_result import Result

QUANTILE = 4.302653
"""Of Student's t with 2 degrees of freedom, at 97.5%."""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return training_of(tmp_path_factory.mktemp("training"))


def row_of(dynamics: Json, rule: str | None) -> Choice:
    return next(one for one in choices(dynamics) if one.rule == rule)


def test_every_choice_is_a_row_from_lambda_0_on_and_the_masks_are_none() -> None:
    assert [(one.kind, one.setting, one.rule) for one in choices(three_policies())] == [
        ("lambda", "0 (the base algorithm)", None),
        ("lambda", "0.5", "aem_0.5"),
        ("lambda", "1 (AEM)", "aem_1"),
        ("lambda", "2", "aem_2"),
        ("proxy", "sampled surprisal", "surprisal"),
        ("G", "whole batch", "batch"),
        ("length", "sum over tokens", "sum"),
        ("level", "token", "token"),
        ("sign", "inverted, exp(+h)", "inverted"),
    ]


def test_an_effect_by_hand() -> None:
    # 1, 2, 3: mean 2, deviation 1, half an interval of t / sqrt(3)
    aem = row_of(three_policies(), "aem_1").effects["early"]
    assert aem.minus_permuted is not None and aem.standardised is not None
    low, high = 2 - QUANTILE / math.sqrt(3), 2 + QUANTILE / math.sqrt(3)
    found = aem.minus_permuted
    assert (found.n, found.mean, found.low, found.high) == pytest.approx((3, 2e-6, low * 1e-6, high * 1e-6))
    in_sd = aem.standardised  # a deviation of 0.5: everything twice
    assert (in_sd.n, in_sd.mean, in_sd.low, in_sd.high) == pytest.approx((3, 4, 2 * low, 2 * high))


def test_a_variant_is_compared_with_aem_policy_by_policy() -> None:
    # surprisal - AEM in sd: 1, 1, 4: mean 2, variance 3, half an interval of t sqrt(3 / 3)
    paired = row_of(three_policies(), "surprisal").effects["early"].minus_aem
    assert paired is not None
    assert (paired.n, paired.mean, paired.low, paired.high) == pytest.approx((3, 2, 2 - QUANTILE, 2 + QUANTILE))


def test_batches_of_a_policy_are_averaged_first() -> None:
    rows = [batch(0, "early", 0, sum=1.0), batch(0, "early", 1, sum=3.0), batch(1, "early", sum=8.0)]
    found = row_of(dynamics_of(rows), "sum").effects["early"]
    assert found.minus_permuted is not None and found.minus_aem is not None
    assert (found.minus_permuted.n, found.minus_permuted.mean) == pytest.approx((2, 5e-6))  # of 2 and 8, not of 1, 3, 8
    assert found.minus_aem.mean == pytest.approx(8.0)  # (2 - 1) / 0.5 and (8 - 1) / 0.5


def test_aem_and_token_are_not_compared_with_aem() -> None:
    effects = {one.rule: one.effects["early"] for one in choices(three_policies()) if one.rule}
    assert {rule for rule, effect in effects.items() if effect.minus_aem is None} == {"aem_1", "token"}


def test_a_policy_without_spread_has_no_alignment_and_the_table_says_of_how_many_it_is() -> None:
    rows = [batch(i, "early", deviation=0.0 if i == 2 else 0.5) for i in range(3)]
    table = make_tables(dynamics_of(rows), None)[0]
    assert table.rows[1] == (
        "lambda", "0.5", "+1 (+1 to +1)", "+2.00 (+2.00 to +2.00), n = 2", "+0.00 (+0.00 to +0.00), n = 2", "3",
    )  # fmt: skip


def test_lambda_0_is_exactly_0_and_one_policy_has_no_interval() -> None:
    (table,) = make_tables(dynamics_of([batch(0, "early", aem_1=-3.0)]), None)
    assert table.title.startswith("Early:")
    assert table.rows[0] == ("lambda", "0 (the base algorithm)", "0, exactly", "", "", "")
    assert table.rows[2] == ("lambda", "1 (AEM)", "-3", "-6.00", "", "1")
    assert table.rows[7] == ("level", "token", "+1", "+2.00", "", "1")


def test_what_was_not_measured_is_said() -> None:
    rows = [batch(0, "early"), batch(0, "late")]
    for name in ("change", "permuted", "permuted_deviation", "weight_token_mean"):
        rows[0][name].pop("sum")
        rows[1][name].pop("sum")
    early, late = make_tables(dynamics_of(rows), None)
    assert early.rows[6] == late.rows[6] == ("length", "sum over tokens", "not measured", "", "", "")


def test_a_regime_that_was_not_reached_is_said() -> None:
    said = " ".join(notes(dynamics_of([batch(0, "early"), batch(0, "late")]), None))
    assert "Early: 20% of the responses have A > 0; in the paper fewer than half, and AEM raises the entropy. L" in said
    assert "Late: 20%" in said and said.count("This regime was not reached.") == 1


def test_the_filter_by_hand(training: Result) -> None:
    *_, arms, contrasts = make_tables(None, training)
    # rewards 0.1, 0.2, 0.3 and truncation 0.9, 0.8, 0.7: deviation 0.1, half an interval 0.1 t / sqrt(3) = 0.248
    assert arms.rows == (
        ("off", "off", "3", "0.0% (0.0 to 0.0)", "0%", "0.200 (-0.048 to 0.448)", "25.0% → 50.0% (50.0 to 50.0)"),
        ("mask", "masked", "3", "25.0% (25.0 to 25.0)", "25%", "0.250 (0.250 to 0.250)",
         "25.0% → 25.0% (25.0 to 25.0)"),
        ("drop", "dropped", "3", "80.0% (55.2 to 104.8)", "90%", "0.250 (0.250 to 0.250)",
         "25.0% → 0.0% (0.0 to 0.0)"),
    )  # fmt: skip
    assert [row[:3] for row in contrasts.rows] == [
        ("filter_mask", "masked - off", "held-out, points"),
        ("filter_mask", "masked - off", "truncated, points"),
        ("filter_drop", "dropped - off", "held-out, points"),
        ("filter_drop", "dropped - off", "truncated, points"),
    ]
    assert contrasts.rows[3][3:5] == ("+80.0 (+55.2 to +104.8)", "3")
    assert contrasts.rows[3][6] == "undecided (3 seeds, 5 needed)"
    assert {len(row) for row in contrasts.rows} == {len(contrasts.header)}


def test_lambda_in_whole_runs_by_hand(training: Result) -> None:
    """In order of lambda, 0 for an arm without AEM; a run of the middle one is missing, so nothing is compared."""
    arms, contrasts, *_ = make_tables(None, training)
    reward = "0.250 (0.250 to 0.250)"
    held_out = "25.0% → 50.0% (50.0 to 50.0)"
    assert arms.rows == (
        ("0", "off", "3", "0.500 (0.500 to 0.500)", "0.200 (-0.048 to 0.448)", held_out),
        ("1", "aem", "not run", "", "", ""),
        ("2", "strong", "3", "0.200 (-0.048 to 0.448)", reward, held_out),
    )
    assert [row[:3] for row in contrasts.rows] == [
        ("aem_plain", "aem - off", "held-out, points"),
        ("lambda_0", "off - aem", "entropy, nat"),
        ("lambda_2", "strong - aem", "held-out, points"),
        ("lambda_2", "strong - aem", "entropy, nat"),
    ]
    assert {row[6] for row in contrasts.rows} == {"not run"}


def test_without_a_contrast_of_lambda_there_is_no_table_of_it(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, arms=FILTERS, contrasts={"filter_drop": CONTRASTS["filter_drop"]})
    titles = [table.title for table in make_tables(None, result_of(plan, {}))]
    assert [title.partition(":")[0] for title in titles] == ["The filter", "The filter"]


def test_whole_runs_of_aem_are_quoted_with_their_verdict_and_a_missing_arm_is_said(
    training: Result, tmp_path: Path
) -> None:
    assert notes(None, training)[-1].endswith("held-out success (docs/training.md): plain: not run.")
    assert make_tables(None, training_of(tmp_path, seeds=()))[2].rows[2][:3] == ("drop", "dropped", "not run")


def drawn(dynamics: Json | None, training: Result | None) -> tuple[list[str], int]:
    """The texts of the figure, which matplotlib repeats in comments, and how many intervals are in it."""
    svg = draw_ablations(dynamics, training, "svg").decode()
    return re.findall("<!-- (.*?) -->", svg), svg.count('id="LineCollection')


def test_the_figure_shows_each_half_and_each_interval_that_is_there(training: Result) -> None:
    texts, intervals = drawn(three_policies(), training)
    assert intervals == 8  # of the rules in the early panel
    assert "early: alignment, 3 policies" in texts and "proxy: sampled surprisal" in texts
    assert [text for text in texts if text.endswith("3 seeds")] == [
        "off, 3 seeds",
        "strong, 3 seeds",
        *("off, 3 seeds", "masked, 3 seeds", "dropped, 3 seeds") * 2,
    ]
    assert texts.count("not run") == 1  # late
    texts, intervals = drawn(dynamics_of([batch(0, "early", aem_1=2.0)]), training)
    assert "early: alignment, 1 policy" in texts and intervals == 0
    texts, intervals = drawn(three_policies(), None)
    assert texts.count("not run") == 4 and intervals == 8 and not any("seeds" in text for text in texts)
    texts, intervals = drawn(None, training)
    assert texts.count("not run") == 2 and intervals == 0 and "masked, 3 seeds" in texts
    assert drawn(None, None)[0].count("not run") == 5


def test_the_same_results_give_the_same_bytes(training: Result) -> None:
    whole = draw_ablations(three_policies(), training, "svg")
    assert whole == draw_ablations(three_policies(), training, "svg")
    assert draw_ablations(three_policies(), training, "png").startswith(b"\x89PNG")
