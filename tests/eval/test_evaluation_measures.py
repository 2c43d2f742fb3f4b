"""The measures of one evaluation against enumeration, hand computation, scipy and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types
from swebench_scene import make_evaluation, numbered, of_instances

from aem_swe.eval import statistics
from aem_swe.eval.statistics import Floats, mean_interval
from aem_swe.eval.swebench.differences import instance_difference
from aem_swe.eval.swebench.measures import group_text, pass_at_k, summarise, summary_text
from aem_swe.eval.swebench.results import Instance, Status


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_pass_at_k_is_the_share_of_all_subsets_that_hold_a_success(runs: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(runs)))
    subsets = list(itertools.combinations(runs, k))
    share = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k([sum(runs)], [len(runs)], k).tolist() == [pytest.approx(share)]


def test_pass_at_k_by_hand() -> None:
    # 2 of 5 resolved: 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10
    assert pass_at_k([2, 0, 3], [5, 5, 3], 2).tolist() == [pytest.approx(0.7), 0.0, 1.0]


def test_fewer_runs_than_k_say_nothing_about_pass_at_k() -> None:
    with pytest.raises(AssertionError, match="fewer than k"):
        pass_at_k([1, 1], [3, 1], 2)
    found = summarise(make_evaluation(numbered("100", "1xx", "010")))
    assert [(one.k, one.instances) for one in found.pass_at_k] == [(1, 3), (2, 2), (3, 2)]
    assert found.pass_at_k[1].interval.value == pytest.approx(1 - 1 / 3)  # of each, one pair of three has no success


def test_infrastructure_and_missing_results_are_in_no_mean() -> None:
    found = summarise(make_evaluation(numbered("1x", "0-", "xx", "11", "eE")))
    assert found.pass_at_1 is not None and found.pass_at_1.value == pytest.approx((1 + 0 + 1 + 0) / 4)
    assert found.rates_R == (pytest.approx(2 / 4), pytest.approx(1 / 2))  # of 1 0 1 e, and of 1 E
    assert (found.instances, found.graded, found.unfinished) == (5, 4, 1)
    wanted = {Status.RESOLVED: 3, Status.UNRESOLVED: 1, Status.EMPTY: 1, Status.ERROR: 1, Status.INFRASTRUCTURE: 3}
    assert found.statuses == wanted


def test_every_instance_counts_the_same_however_many_runs_were_graded() -> None:
    found = summarise(make_evaluation(numbered("1xx", "000")))
    assert found.pass_at_1 is not None and found.pass_at_1.value == pytest.approx(0.5)


def test_the_mean_and_the_spread_of_the_runs_by_hand() -> None:
    found = summarise(make_evaluation(numbered("11", "10", "10", "00")))
    assert found.rates_R == (0.75, 0.25) and found.mean_rate == 0.5
    assert found.spread == pytest.approx(0.5 / 2**0.5)
    assert found.task_variance == pytest.approx((0 + 0.5 + 0.5 + 0) / 4)  # of 1 and 0: 0.5, with n - 1
    single = summarise(make_evaluation(numbered("1", "0")))
    assert (single.spread, single.task_variance) == (None, None)


def test_the_interval_is_scipys_bootstrap_over_instances() -> None:
    random = np.random.default_rng(0)
    tables = random.binomial(1, random.beta(1, 1, 200)[:, None], (200, 4))
    found = summarise(make_evaluation(numbered(*("".join(map(str, row)) for row in tables))))
    reference = stats.bootstrap(
        (tables.mean(axis=1),), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert found.pass_at_1 is not None
    assert (found.pass_at_1.low, found.pass_at_1.high) == pytest.approx((reference.low, reference.high), abs=0.004)


def test_the_interval_takes_the_runs_of_an_instance_for_one_unit() -> None:
    once = summarise(make_evaluation(numbered(*"10110010" * 4))).pass_at_1
    copied = summarise(make_evaluation(numbered(*[run * 9 for run in "10110010" * 4]))).pass_at_1
    assert once == copied  # nine copies of the same answers hold no more information than one


def test_groups_by_repository_and_difficulty() -> None:
    easy, hard = "<15 min fix", "1-4 hours"
    instances = [Instance("a-1", "a/a", easy), Instance("b-1", "b/b", hard), Instance("a-2", "a/a", hard)]
    found = summarise(of_instances(instances, {"a-1": "11", "b-1": "01", "a-2": "xx"}))
    assert [(one.name, one.instances, one.interval.value) for one in found.repositories] == [
        ("a/a", 1, 1.0),
        ("b/b", 1, 0.5),
    ]
    assert [(one.name, one.interval.value) for one in found.difficulties] == [(hard, 0.5), (easy, 1.0)]
    assert group_text(found.difficulties[1]).startswith("<15 min fix (1): 100.0% (95% interval ")


def test_an_evaluation_without_any_graded_result_is_no_error() -> None:
    for evaluation in (make_evaluation({}), make_evaluation(numbered("xx", "--"))):
        found = summarise(evaluation)
        assert (found.pass_at_1, found.pass_at_k, found.repositories, found.mean_rate) == (None, (), (), None)
        assert summary_text(found).startswith("nothing is graded")


def test_an_id_that_occurs_twice_is_one_instance() -> None:
    one, other = Instance("a-1", "a/a", ""), Instance("b-1", "b/b", "")
    runs_of = {"a-1": "1", "b-1": "0"}
    twice, once = of_instances([one, one, other], runs_of), of_instances([one, other], runs_of)
    assert summarise(twice) == summarise(once)


def test_a_result_of_a_run_that_is_not_part_of_the_evaluation_counts_nowhere() -> None:
    evaluation = make_evaluation(numbered("01", "0-"), runs=1)
    found = summarise(evaluation)
    assert (found.rates_R, found.unfinished, found.statuses[Status.RESOLVED]) == ((0.0,), 0, 0)


def test_the_summary_in_words() -> None:
    said = summary_text(summarise(make_evaluation(numbered("11", "1x", "0-", "00"))))
    assert said.startswith("pass@1 50.0% (95% interval ")
    assert "; runs 50.0%, 50.0% (mean 50.0%, sd 0.0 points); pass@2 50.0% " in said
    assert ", of 2 instances; per-task variance 0.000; " in said
    assert said.endswith("3 resolved, 3 unresolved, 1 infrastructure, 1 not finished")


INSTANCES, SIMULATIONS = 500, 1000
TRUE_RATE, TRUE_DIFFERENCE = 0.4, 0.15 * (0.5 - 0.4)


def two_systems(random: np.random.Generator, runs: int) -> tuple[Floats, Floats]:
    """Per-instance means of two systems on instances drawn anew: both solve most of them equally often, and 15% of
    them the second solves as if they were others."""
    first_I = random.beta(0.8, 1.2, INSTANCES)  # mean 0.4
    other_I = np.where(random.random(INSTANCES) < 0.15, random.random(INSTANCES), first_I)
    return random.binomial(runs, first_I) / runs, random.binomial(runs, other_I) / runs


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 3, 16])
def test_intervals_of_pass_at_1_and_of_the_difference_cover_95_percent(
    runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 999)  # the full number only moves the ends less between seeds
    random = np.random.default_rng(runs)
    rates, differences = 0, 0
    for _ in range(SIMULATIONS):
        first_I, other_I = two_systems(random, runs)
        rate = mean_interval(first_I)
        rates += rate.low <= TRUE_RATE <= rate.high
        found = instance_difference(other_I[None], first_I[None], exact=runs == 1)
        differences += found.low <= TRUE_DIFFERENCE <= found.high
    assert 0.93 <= rates / SIMULATIONS <= 0.97, rates
    assert 0.93 <= differences / SIMULATIONS <= 0.97, differences
