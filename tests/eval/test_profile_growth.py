"""How stages grow, the paper's figure, and the difference of two runs: by hand and by enumeration."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_spans import one_step, run_lines, span, training_step, write_spans
from scipy import stats

from aem_swe.eval.profile.difference import compare_profiles, half_width
from aem_swe.eval.profile.figure4 import measure_figure4
from aem_swe.eval.profile.growth import expected_slowest, fit_line, measure_growth
from aem_swe.eval.profile.profile import load_profile


@settings(deadline=None)  # other tests use the machine too
@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=7), st.data())
def test_the_expected_slowest_is_the_mean_over_all_draws(values: list[float], data: st.DataObject) -> None:
    m = data.draw(st.integers(1, len(values)))
    draws = [max(draw) for draw in itertools.combinations(values, m)]
    assert expected_slowest(np.sort(values), m) == pytest.approx(sum(draws) / len(draws), abs=1e-9)


def test_the_slowest_of_a_thousand_is_found_without_large_numbers() -> None:
    assert expected_slowest(np.arange(1.0, 1001.0), 1000) == 1000.0
    # the maximum of m of 1..n without putting back is m (n + 1) / (m + 1) on average
    assert expected_slowest(np.arange(1.0, 1001.0), 8) == pytest.approx(8 * 1001 / 9)


def test_turns_tokens_and_episodes_of_a_step(tmp_path: Path) -> None:
    growth = measure_growth(load_profile(write_spans(tmp_path, training_step(1))))
    assert [(turn.turn, turn.count, turn.p50) for turn in growth.turns["policy/decode"]] == [(0, 4, 2.0), (1, 4, 1.0)]
    assert [(turn.turn, turn.count, turn.p50) for turn in growth.turns["tool"]] == [(0, 4, 2.5)]
    assert [(one.low, one.high, one.count, one.p50) for one in growth.tokens] == [
        (8, 15, 4, 1.0 / 8), (16, 31, 1, 2.0 / 16), (32, 63, 2, (2.0 / 32 + 2.0 / 48) / 2), (64, 127, 1, 2.0 / 64),
    ]  # fmt: skip
    # episodes took 7, 8, 9 and 10 s; the six pairs' maxima are 8, 9, 10, 9, 10, 10
    assert [(one.episodes, one.seconds) for one in growth.slowest] == [
        (1, 8.5), (2, pytest.approx(56 / 6)), (4, pytest.approx(10.0)),
    ]  # fmt: skip
    assert growth.lines == {}


def test_a_phase_that_takes_a_second_and_a_millisecond_a_token_is_found(tmp_path: Path) -> None:
    lines, start = [], 0.0
    for step, tokens in enumerate((1000, 3000, 2000), 1):
        decode = span("policy/decode", 0.0, 1.0, tokens=7 * step)  # sampled tokens are not what an update reads
        scored = span("old_log_prob", 1.0, 0.0, tokens=tokens)
        lines += one_step(step, 9.0, decode, scored, span("update", 1.0, 1.0 + tokens / 1000), start=start)
        start += 9.0
    growth = measure_growth(load_profile(write_spans(tmp_path, lines)))
    line = growth.lines["update"]
    assert (line.per_token_s, line.fixed_s, line.r2) == (pytest.approx(0.001), pytest.approx(1.0), pytest.approx(1.0))
    assert set(growth.lines) == {"update"} and (line.steps, line.tokens, line.trend) == (3, "scored", True)


def test_a_line_that_falls_or_that_explains_less_than_half_is_no_trend() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    for y, trend in (([4.0, 3.0, 2.0, 1.0], False), ([1.0, 9.0, 0.0, 8.0], False), ([1.0, 3.0, 2.0, 4.0], True)):
        line = fit_line(x, np.array(y), "sampled")
        assert line is not None and line.trend == trend


def test_an_update_whose_scoring_says_no_tokens_has_no_line(tmp_path: Path) -> None:
    assert "update" not in measure_growth(load_profile(write_spans(tmp_path, run_lines((0.0, 1.0, 2.0))))).lines


def test_no_line_goes_through_two_points_or_a_wall() -> None:
    assert fit_line(np.array([1.0, 2.0]), np.array([1.0, 2.0]), "sampled") is None
    assert fit_line(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0]), "sampled") is None


@settings(deadline=None)  # other tests use the machine too
@given(st.lists(st.tuples(st.integers(1, 50), st.floats(0.0, 10.0)), min_size=3, max_size=9))
def test_the_line_is_the_textbooks(points: list[tuple[int, float]]) -> None:
    x, y = (np.array(column, float) for column in zip(*points, strict=True))
    line = fit_line(x, y, "sampled")
    if np.ptp(x) == 0.0:
        assert line is None
        return
    assert line is not None
    slope, fixed = np.polyfit(x, y, 1)
    assert (line.per_token_s, line.fixed_s) == (pytest.approx(slope, abs=1e-6), pytest.approx(fixed, abs=1e-5))


def test_figure_4_takes_shares_of_its_four_rows(tmp_path: Path) -> None:
    figure = measure_figure4(load_profile(write_spans(tmp_path, run_lines((0.0, 2.0)))))
    assert figure.steps == 2
    assert [(row.stage, row.seconds) for row in figure.rows] == [
        ("rollout", 13.0), ("update", 3.5), ("old_log_prob", 2.0), ("aem", 0.5),
    ]  # fmt: skip
    assert [row.share for row in figure.rows] == pytest.approx([13 / 19, 3.5 / 19, 2 / 19, 0.5 / 19])
    assert [row.paper_share for row in figure.rows] == [0.459, 0.36, 0.168, 0.011]


def test_figure_4_says_nothing_of_a_run_without_its_stages(tmp_path: Path) -> None:
    figure = measure_figure4(load_profile(write_spans(tmp_path, one_step(1, 1.0))))
    assert {row.share for row in figure.rows} == {None}


def test_figure_4_takes_no_shares_of_three_rows(tmp_path: Path) -> None:
    lines = [line for line in training_step(1) if line["stage"] != "aem"]
    rows = measure_figure4(load_profile(write_spans(tmp_path, lines))).rows
    assert [(row.share, row.seconds) for row in rows] == [(None, 12.0), (None, 3.5), (None, 2.0), (None, 0.0)]


def test_two_runs_differ_by_the_tool_that_was_slower(tmp_path: Path) -> None:
    first = load_profile(write_spans(tmp_path / "a", run_lines((0.0, 2.0, 1.0))))
    second = load_profile(write_spans(tmp_path / "b", run_lines((4.0, 2.0, 6.0, 4.0))))
    rows = {row.stage: row for row in compare_profiles(first, second)}
    assert list(rows)[-3:] == ["not attributed", "wall less evaluation and checkpoint", "wall"]
    for row in (rows["tool/bash"], rows["wall"]):
        assert row.difference_s == pytest.approx(3.0)
        expected = stats.ttest_ind([4, 2, 6, 4], [0, 2, 1], equal_var=False).confidence_interval(0.95)
        assert (row.low, row.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (rows["batch"].difference_s, rows["batch"].low, rows["batch"].high) == (0.0, 0.0, 0.0)


def test_one_step_has_no_interval() -> None:
    assert half_width(np.array([1.0]), np.array([1.0, 2.0])) is None
