"""Contrasts of whole training runs: pairing, t test, Holm, verdicts; the result file, its tables and its figure."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import REPOSITORY
from rich.console import Console
from scipy import stats
from training_scene import ABOUT, HELD_OUT, make_plan, result_of, write_all

from aem_swe.errors import ConfigError
from aem_swe.eval.pages import read_page, rich_table
from aem_swe.eval.statistics import t_interval
from aem_swe.eval.training import Judgement
from aem_swe.eval.training_figure import draw_training
from aem_swe.eval.training_plan import read_plan
from aem_swe.eval.training_result import Result, make_result, read_result, sort_into_arms, to_text
from aem_swe.eval.training_runs import find_runs
from aem_swe.eval.training_table import MARKS, make_tables, with_tables
from aem_swe.eval.training_values import RunValues


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("training")
    plan = make_plan(folder)
    write_all(plan, folder)
    return make_result(ABOUT, plan, sort_into_arms(plan, find_runs(plan, folder), folder), plan.family())


def without(result: Result, **seeds: set[int]) -> Result:
    """The same, without some seeds of some arms."""
    arms = {
        name: arm.model_copy(update={"runs": tuple(run for run in arm.runs if run.seed not in seeds.get(name, set()))})
        for name, arm in result.arms.items()
    }
    return make_result(ABOUT, result.plan, arms, result.family)


def changed(result: Result, name: str, values: dict[int, dict[str, Any]]) -> Result:
    """The same with other values for some seeds of one arm."""
    arm = result.arms[name]
    runs = tuple(run.model_copy(update=values.get(run.seed, {})) for run in arm.runs)
    return make_result(ABOUT, result.plan, {**result.arms, name: arm.model_copy(update={"runs": runs})}, result.family)


def found(result: Result, name: str, measure: str) -> Judgement:
    return next(one for one in result.judgements if (one.name, one.measure) == (name, measure))


def test_the_paired_t_test_by_hand(result: Result) -> None:
    one = found(result, "aem_plain", "held_out")
    # differences 0.11, 0.10, 0.11, 0.10, 0.11: mean 0.106, variance (3 x 0.004^2 + 2 x 0.006^2) / 4 = 3e-5
    error = math.sqrt(3e-5 / 5)
    assert list(one.differences.values()) == pytest.approx([0.11, 0.10, 0.11, 0.10, 0.11])
    assert one.mean == pytest.approx(0.106)
    assert one.interval is not None
    assert one.interval.low == pytest.approx(0.106 - 2.776445 * error, rel=1e-5)
    assert one.interval.high == pytest.approx(0.106 + 2.776445 * error, rel=1e-5)
    p = 2 * stats.t.sf(0.106 / error, 4)
    assert one.p_value == pytest.approx(p)
    assert one.p_holm == pytest.approx(2 * p)  # the smaller of two contrasts of held-out success
    assert one.detectable == pytest.approx((2.776445 + 0.940965) * error, rel=1e-5)  # t quantiles at 97.5% and 80%
    assert one.verdict == "higher"
    assert one.figure == (
        "held-out success +10.6 points (95% t interval +9.9 to +11.3, n = 5 seeds, paired t test,"
        " p = 3.4e-06 after Holm over 2 contrasts); one such test, uncorrected, would find 0.9 points with 80% power"
    )


def test_the_test_is_paired_an_unpaired_one_would_be_far_from_it(result: Result) -> None:
    one = found(result, "aem_plain", "held_out")
    unpaired = stats.ttest_ind(HELD_OUT["aem"], HELD_OUT["plain"]).pvalue
    assert one.p_value is not None and one.p_value < unpaired / 100


def test_no_difference_is_no_detectable_difference_and_one_in_the_other_direction_is_lower(result: Result) -> None:
    one = found(result, "filter_drop", "held_out")
    assert one.mean == pytest.approx(0.0) and one.verdict == "no detectable difference"
    assert found(result, "filter_drop", "truncation").mean == pytest.approx(0.3)
    worse = changed(result, "aem", {seed: {"held_out": 0.1 + seed / 1000} for seed in range(1, 6)})
    assert found(worse, "aem_plain", "held_out").verdict == "lower"


def test_equal_runs_are_no_difference_and_a_constant_one_is_not_tested(result: Result) -> None:
    same = found(result, "aem_plain", "reward")
    assert (same.mean, same.p_holm, same.verdict) == (0.0, None, "no detectable difference")
    values = {seed: {"entropy": 0.5 + 0.1} for seed in range(1, 6)}
    constant = found(changed(result, "aem", values), "aem_plain", "entropy")
    assert constant.mean == pytest.approx(0.1)
    assert (constant.p_value, constant.detectable) == (None, None)
    assert constant.verdict == "undecided (all seeds differ by the same, which no t test judges)"


def test_holm_counts_the_contrasts_of_the_same_measure_those_not_run_included(result: Result) -> None:
    one = found(result, "aem_plain", "held_out")
    alone = without(result, drop={1, 2, 3, 4, 5})
    assert found(alone, "filter_drop", "held_out").verdict == "not run"
    assert found(alone, "aem_plain", "held_out").p_holm == one.p_holm
    some = result.plan.restricted(["plain", "aem"], [])
    kept = make_result(ABOUT, some, {name: result.arms[name] for name in some.arms}, result.plan.family())
    assert len(kept.judgements) == 3
    assert found(kept, "aem_plain", "held_out").p_holm == one.p_holm


def test_holm_decides_where_a_single_test_would_have(result: Result) -> None:
    # t = 3 at 4 degrees of freedom: p = 0.040; twice that is no evidence
    by_hand = stats.t.sf(3.0, 4) * 2
    assert 0.025 < by_hand < 0.05
    step = math.sqrt(2.5 / 5)  # standard error of -2..2
    values = {seed: {"held_out": HELD_OUT["plain"][seed - 1] + 0.01 * (seed - 3 + 3 * step)} for seed in range(1, 6)}
    one = found(changed(result, "aem", values), "aem_plain", "held_out")
    assert (one.p_value, one.p_holm) == pytest.approx((by_hand, 2 * by_hand))
    assert one.verdict == "no detectable difference"


def test_only_common_seeds_are_paired_and_four_decide_nothing(result: Result) -> None:
    one = found(without(result, plain={2}), "aem_plain", "held_out")
    assert list(one.differences) == [1, 3, 4, 5]
    assert one.p_holm is not None and one.p_holm < 0.001
    assert one.verdict == "undecided (4 seeds, 5 needed)"
    assert "n = 4 seeds that both have, of 5 and 4" in one.figure
    single = found(without(result, plain={2, 3, 4, 5}), "aem_plain", "held_out")
    assert (single.interval, single.p_value, single.verdict) == (None, None, "undecided (1 seed, 5 needed)")
    assert single.figure == "held-out success +11.0 points (n = 1 seed that both have, of 5 and 1)"
    nothing = found(without(result, plain={1, 2, 3, 4, 5}), "aem_plain", "held_out")
    assert (nothing.verdict, nothing.figure, nothing.mean) == ("not run", "", None)


def test_a_run_that_did_not_record_a_measure_is_no_pair_in_it(result: Result) -> None:
    one = found(changed(result, "aem", {2: {"held_out": None}}), "aem_plain", "held_out")
    assert list(one.differences) == [1, 3, 4, 5]


def test_the_file_is_enough_to_judge_and_to_draw_again(result: Result, tmp_path: Path) -> None:
    text = to_text(result)
    (tmp_path / "t.json").write_text(text)
    again = read_result(tmp_path / "t.json")
    assert to_text(again) == text
    assert again.judgements == result.judgements
    for image in ("png", "svg"):
        assert draw_training(again, image) == draw_training(result, image)
    data = json.loads(text)
    assert data["arms"]["plain"]["held_out"]["mean"] == pytest.approx(0.34)
    assert data["arms"]["plain"]["held_out"]["n"] == 5
    assert data["contrasts"][0]["figure"] == found(result, "aem_plain", "held_out").figure
    assert data["step_seconds"] == 15 * 32.0
    assert len(max(text.splitlines(), key=len)) < 400  # series on one line each, short numbers
    assert f'"entropy": [{", ".join(["0.5"] * 16)}]' in text


def test_verdicts_in_a_file_are_worked_out_again_never_believed(result: Result, tmp_path: Path) -> None:
    data = json.loads(to_text(result))
    data["contrasts"][0]["verdict"], data["contrasts"][0]["p_holm"] = "lower", 1.0
    (tmp_path / "t.json").write_text(json.dumps(data))
    assert found(read_result(tmp_path / "t.json"), "aem_plain", "held_out").verdict == "higher"


def test_tables_name_every_arm_and_verdict(result: Result) -> None:
    some = without(result, drop={1, 2, 3, 4, 5}, plain={5})
    algorithms, contrasts, arms = make_tables(some)
    assert algorithms.rows == (
        ("plain", "33.0% (28.9 to 37.1)", "44.6% (40.6 to 48.6)", "+10.5 (+9.6 to +11.4)", "4", "9.1e-05",
         "undecided (4 seeds, 5 needed)"),
    )  # fmt: skip
    assert [row[0] for row in contrasts.rows] == ["aem_plain"] * 3 + ["filter_drop"] * 2
    assert arms.rows[2][:2] == ("drop", "not run")
    assert arms.rows[1][-1] == "0.750"
    assert make_tables(without(result, aem={1, 2, 3, 4, 5}))[0].rows[0][2:4] == ("not run", "")
    shown = io.StringIO()
    for table in (algorithms, contrasts, arms):
        Console(file=shown, width=200).print(rich_table(table), markup=False)
    assert shown.getvalue().count("not run") == 3


def test_the_interval_over_seeds_by_hand() -> None:
    interval = t_interval(np.array([1.0, 2.0, 3.0]))
    assert interval is not None
    half = 4.302653 / math.sqrt(3)
    assert (interval.low, interval.value, interval.high) == pytest.approx((2 - half, 2.0, 2 + half), rel=1e-6)
    assert t_interval(np.array([1.0])) is None


def drawn(result: Result) -> tuple[list[str], int]:
    """The texts of the figure, which matplotlib repeats in comments, and how many intervals are in it."""
    svg = draw_training(result, "svg").decode()
    return re.findall("<!-- (.*?) -->", svg), svg.count('id="LineCollection')


def test_the_figure_shows_what_was_run_with_its_intervals(result: Result) -> None:
    texts, intervals = drawn(result)
    assert intervals == 2 and "not run" not in texts  # of the pair, held-out success
    assert [text for text in texts if "seed" in text] == [
        "plain, 5 seeds", "drop, 5 seeds",  # whose truncation is judged
        "plain, 5 seeds", "aem, 5 seeds",  # whose entropy is
    ]  # fmt: skip
    texts, intervals = drawn(without(result, **{arm: {2, 3, 4, 5} for arm in result.arms}))
    assert intervals == 0 and texts.count("plain, 1 seed") == 2 and "without AEM" in texts
    texts, intervals = drawn(without(result, **{arm: {1, 2, 3, 4, 5} for arm in result.arms}))
    assert intervals == 0 and texts.count("not run") == 3 and not any("seed" in text for text in texts)


def test_the_masks_are_drawn_beside_the_first_algorithm_with_and_without_aem() -> None:
    plan = read_plan(None)
    arms = ("demo", "demo_aem", "demo_rise", "demo_fall", "demo_grpo", "demo_grpo_aem")
    texts, _ = drawn(result_of(plan, {arm: {1: {}} for arm in arms}))
    assert [text for text in texts if text.endswith(", 1 seed")] == [
        f"{arm}, 1 seed" for arm in ("demo", "demo_fall", "demo_aem", "demo_rise")
    ]


def test_a_page_keeps_all_but_what_is_between_its_marks(result: Result, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS.begin}\nold\n{MARKS.end}\nafter\n")
    made = with_tables(read_page(page, MARKS), result)
    assert made.startswith(f"before\n{MARKS.begin}\n") and made.endswith(f"{MARKS.end}\nafter\n") and "old" not in made
    assert found(result, "aem_plain", "held_out").verdict in made
    page.write_text(made)
    assert with_tables(read_page(page, MARKS), result) == made
    for bad in ("no marks", f"{MARKS.end}\n{MARKS.begin}\n", made + made):
        page.write_text(bad)
        with pytest.raises(ConfigError, match=r"--markdown .* lacks the lines"):
            read_page(page, MARKS)


def test_the_committed_page_is_what_the_committed_result_gives() -> None:
    path = REPOSITORY / "benchmarks" / "results" / "training.json"
    text = read_page(REPOSITORY / MARKS.document, MARKS)  # the marks are there in any case
    tables = "|---|" in text.partition(MARKS.begin)[2].partition(MARKS.end)[0]
    if not tables and not path.is_file():
        pytest.skip(f"{path.name} is not there yet; aem-swe verify training --json makes it")
    assert path.is_file(), f"{MARKS.document} has tables of a result that is not there"
    assert with_tables(text, read_result(path)) == text


def test_a_run_value_object_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError):
        RunValues.model_validate({"seed": 1})
