"""Arms of evaluations against each other: full enumeration, scipy, hand counts, and what may be claimed."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped, unused-ignore]  # scipy ships no types
from swebench_scene import make_arm, make_evaluation, numbered, of_instances

from aem_swe.errors import ConfigError
from aem_swe.eval.statistics import crossed_difference, paired_difference
from aem_swe.eval.swebench.arms import make_arms
from aem_swe.eval.swebench.contrast import Contrast, compare_arms, contrast
from aem_swe.eval.swebench.results import Evaluation, Instance


def against(reference: dict[str, str], arm: dict[str, str]) -> Contrast:
    found = contrast(make_arm(make_evaluation(reference, "a")), make_arm(make_evaluation(arm, "b")))
    assert found is not None
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("01"), st.sampled_from("01")), min_size=1, max_size=30))
def test_one_run_each_gets_mcnemars_exact_test(pairs: list[tuple[str, str]]) -> None:
    found = against(*(numbered(*side) for side in zip(*pairs, strict=True)))
    lost, gained = pairs.count(("1", "0")), pairs.count(("0", "1"))
    moved = lost + gained
    tail = sum(math.comb(moved, i) for i in range(min(lost, gained) + 1)) / 2**moved  # by the definition
    assert found.these_checkpoints.p_value == pytest.approx(min(1.0, 2 * tail))
    if moved:
        assert found.these_checkpoints.p_value == pytest.approx(stats.binomtest(gained, moved).pvalue)
    assert (len(found.lost), len(found.gained)) == (lost, gained)
    assert found.these_checkpoints.value == pytest.approx((gained - lost) / len(pairs))


def test_several_runs_get_the_permutation_of_the_sides_of_each_instance() -> None:
    rows = [("110", "11"), ("000", "01"), ("010", "11"), ("111", "11"), ("100", "00"), ("001", "11"), ("000", "10")]
    found = against(*(numbered(*side) for side in zip(*rows, strict=True)))
    changes = [arm.count("1") / len(arm) - before.count("1") / len(before) for before, arm in rows]
    means = [np.dot(signs, changes) for signs in itertools.product((-1, 1), repeat=len(rows))]
    share = np.mean([abs(mean) >= abs(sum(changes)) - 1e-12 for mean in means])
    assert found.these_checkpoints.p_value == pytest.approx(share)
    assert found.these_checkpoints.value == pytest.approx(np.mean(changes))
    assert "paired permutation test" in found.numbers and "McNemar" not in found.numbers


def test_two_runs_of_which_one_failed_everywhere_are_not_taken_for_one_run() -> None:
    found = against(numbered("1", "0", "1"), numbered("0x", "1x", "0x"))
    assert not found.exact


def test_a_method_is_judged_by_its_training_seeds() -> None:
    """With instances that are all equal, the claim about the method is the t test over the seeds."""
    resolved = {"a": (4, 6, 5), "b": (9, 8, 7)}

    def arm(name: str) -> list[Evaluation]:
        return [
            make_evaluation(numbered(*["1" * number + "0" * (10 - number)] * 6), f"{name}{seed}", training_seed=seed)
            for seed, number in enumerate(resolved[name])
        ]

    found = contrast(make_arm(*arm("a"), label="A"), make_arm(*arm("b"), label="B"))
    assert found is not None and found.method is not None
    reference = stats.ttest_ind(np.array(resolved["b"]) / 10, np.array(resolved["a"]) / 10)
    assert found.method.p_value == pytest.approx(reference.pvalue)
    assert (found.method.low, found.method.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.judged is found.method
    assert found.verdict == "B is ahead of A"
    assert found.claim == (
        "Units: training seeds (3 and 3) and 6 instances. This is about the methods, as far as so few seeds carry."
    )
    assert found.context is not None and found.context.startswith("About these 6 checkpoints alone")


def test_the_two_claims_are_those_of_the_statistics() -> None:
    random = np.random.default_rng(0)
    sides = []
    for name, chance in (("a", 0.3), ("b", 0.6)):
        tables = random.binomial(1, chance, (3, 12, 4))  # seed, instance, run
        sides.append(
            [
                make_evaluation(
                    numbered(*("".join(map(str, row)) for row in table)), f"{name}{seed}", training_seed=seed
                )
                for seed, table in enumerate(tables)
            ]
        )
    found = contrast(*(make_arm(*side) for side in sides))
    means = [np.array([np.nanmean(one.scores_RI(), axis=0) for one in side]) for side in sides]
    assert found is not None
    assert found.these_checkpoints == paired_difference(means[1], means[0])
    assert found.method == crossed_difference(means[1], means[0], same_runs=False)


@pytest.mark.parametrize("seeds", [(None, None), (1, 1), (1, None)])
def test_checkpoints_without_different_seeds_support_no_claim_about_a_method(seeds: tuple[int | None, ...]) -> None:
    pooled = [make_evaluation(numbered("10", "01", "11"), f"b{i}", training_seed=seed) for i, seed in enumerate(seeds)]
    reference = make_arm(make_evaluation(numbered("00", "01", "11"), "a"))
    found = compare_arms([reference, make_arm(*pooled, label="B")])
    assert found.contrasts[0].method is None
    assert "This is about these 3 checkpoints, not about the method." in found.contrasts[0].claim
    assert any(note.startswith("B: its checkpoints do not all have a different training seed") for note in found.notes)


def test_one_checkpoint_each_is_about_two_checkpoints() -> None:
    found = against(numbered("1", "0"), numbered("1", "1"))
    said = "Unit: 2 instances, with one run each. This is about these two checkpoints, not about the method."
    assert found.claim == said and found.method is None
    assert against(numbered("10", "00"), numbered("111", "101")).claim.startswith(
        "Unit: 2 instances, with 2 and 3 runs."
    )


def test_a_lone_seed_borrows_the_spread_of_the_other_arm_and_says_so() -> None:
    pooled = [make_evaluation(numbered("10", "01", "11"), f"a{seed}", training_seed=seed) for seed in (1, 2)]
    pooled[1] = make_evaluation(numbered("00", "01", "10"), "a2", training_seed=2)
    found = contrast(make_arm(*pooled, label="A"), make_arm(make_evaluation(numbered("11", "11", "10"), "b")))
    assert found is not None and found.method is not None
    assert "b has one training seed; its spread is taken to be that of A" in found.notes()


def test_flips_are_instances_that_one_side_resolves_mostly_with_the_counts_of_its_runs() -> None:
    found = against(
        numbered("111", "110", "100", "010", "000", "1x1"), numbered("0000", "1100", "1110", "0000", "1111", "xx1-")
    )
    assert [str(flip) for flip in found.lost] == [
        "django__django-0 (3/3 -> 0/4 runs)",
        "django__django-1 (2/3 -> 2/4 runs)",  # in half of the runs is not mostly
    ]
    assert [str(flip) for flip in found.gained] == [
        "django__django-4 (0/3 -> 4/4 runs)",
        "django__django-2 (1/3 -> 3/4 runs)",
    ]


def test_instances_without_a_graded_run_on_both_sides_are_left_out_and_counted() -> None:
    left = make_evaluation({"a-1": "1", "a-2": "x", "a-3": "0", "a-4": "1"}, "a")
    right = make_evaluation({"a-2": "1", "a-3": "1", "a-4": "x", "a-5": "1", "a-6": "0"}, "b")
    found = contrast(make_arm(left), make_arm(right))
    assert found is not None and [one.id for one in found.instances] == ["a-3"]
    assert (found.not_in_both, found.not_graded) == (3, 2)
    assert found.these_checkpoints.value == 1.0
    notes = compare_arms([make_arm(left), make_arm(right)]).notes
    assert "a and b: 3 instances left out, not in every evaluation" in notes
    assert "a and b: 2 instances left out, not graded for every checkpoint" in notes
    assert "a: 1 result lost to the infrastructure, in no mean" in notes


def test_evaluations_of_different_subsets_are_refused() -> None:
    for right in ({"b-1": "1"}, {}):
        with pytest.raises(ConfigError, match=r"^'a' and 'b' were evaluated on no common instance; give"):
            contrast(make_arm(make_evaluation({"a-1": "1"}, "a")), make_arm(make_evaluation(right, "b")))


def test_arms_of_which_nothing_common_was_graded_are_not_compared() -> None:
    arms = [make_arm(make_evaluation({"a-1": runs, "a-2": "x"}, name)) for name, runs in (("a", "x"), ("b", "1"))]
    found = compare_arms(arms)
    assert found.contrasts == () and found.title in found.summary_lines()


def test_an_incomplete_evaluation_is_noted() -> None:
    arms = [make_arm(make_evaluation(numbered("1", runs), name)) for name, runs in (("a", "-"), ("b", "0"))]
    assert "a is incomplete: 1 of 2 results are there" in compare_arms(arms).notes


@pytest.mark.parametrize(
    ("about", "what"),
    [
        ({"protocol_sha256": "1111"}, "protocol"),
        ({"dataset": {"sha256": "1111"}}, "data set"),
        ({"versions": {"swebench": "5.0.2"}}, "harness (swebench version)"),
    ],
)
def test_scores_that_cannot_be_compared_are_warned_of_first(about: dict[str, object], what: str) -> None:
    def lines(*abouts: dict[str, object]) -> list[str]:
        evaluations = [make_evaluation(numbered("1", "0"), f"e{i}", **one) for i, one in enumerate(abouts)]
        return compare_arms([make_arm(one) for one in evaluations]).summary_lines()

    text = str(about).replace("1111", "2222").replace("5.0.2", "4.1.0")
    other: dict[str, object] = eval(text)  # a literal of this file
    assert lines(about, other)[0].startswith(f"WARNING: the evaluations do not share their {what} (e0: ")
    assert lines(about, {})[0].startswith(f"WARNING: the {what} is not recorded for e1")
    assert not any(line.startswith("WARNING") for line in [*lines(about, about), *lines({}, {})])
    assert lines(about, {"dataset": "x", "versions": 3})[0].startswith("WARNING")


def test_many_arms_are_compared_with_the_first() -> None:
    arms = [make_arm(make_evaluation(numbered("1", "0", runs), name)) for name, runs in zip("abc", "011", strict=True)]
    found = compare_arms(arms)
    assert [(item.reference.label, item.arm.label) for item in found.contrasts] == [("a", "b"), ("a", "c")]
    assert any("2 comparisons were made" in note for note in found.notes)


def test_tables_by_repository_and_difficulty_by_hand() -> None:
    instances = [Instance(f"{name}-{i}", name, hard) for name in "pq" for i, hard in enumerate(("easy", "hard", ""))]
    sides = [{"p-0": "1", "p-1": "0", "p-2": "0", "q-0": "0", "q-1": "1", "q-2": "1"}]
    sides.append({"p-0": "1", "p-1": "1", "p-2": "1", "q-0": "0", "q-1": "0", "q-2": "1"})
    found = contrast(*(make_arm(of_instances(instances, side, name)) for side, name in zip(sides, "ab", strict=True)))
    assert found is not None
    rows = [(one.name, one.difference.tasks, one.reference, one.arm) for one in found.by_repository()]
    assert rows == [("p", 3, pytest.approx(1 / 3), 1.0), ("q", 3, pytest.approx(2 / 3), pytest.approx(1 / 3))]
    assert [(one.name, one.reference, one.arm) for one in found.by_difficulty()] == [
        ("easy", 0.5, 0.5),
        ("hard", 0.5, 0.5),
    ]
    assert found.by_repository()[0].difference.p_value == pytest.approx(0.5)  # two moved, both upwards


def test_interval_and_test_that_disagree_support_no_difference() -> None:
    found = against(numbered("1", "0"), numbered("1", "1"))
    edge = dataclasses.replace(found.these_checkpoints, low=0.001, high=0.02, p_value=0.06)
    at_the_edge = dataclasses.replace(found, these_checkpoints=edge)
    assert at_the_edge.verdict.startswith("No detectable difference")
    assert any("the interval and the test disagree" in note for note in at_the_edge.notes())
    clear = dataclasses.replace(found, these_checkpoints=dataclasses.replace(edge, p_value=0.01))
    assert clear.verdict == "The checkpoints of b evaluated here are ahead of those of a"


def test_what_could_have_been_detected_by_hand() -> None:
    found = against(numbered("0", "0", "0", "0"), numbered("1", "0", "1", "0"))
    # standard deviation of 1 0 1 0 is 0.577, standard error 0.289; t quantiles of 3 degrees: 3.182 and 0.978
    assert found.these_checkpoints.detectable == pytest.approx(0.288675 * (3.182446 + 0.978472), rel=1e-5)
    assert "A true difference of 120.1 points would have been detected" in found.resolution
    assert "Nothing varied" in against(numbered("1"), numbered("0")).resolution


def test_names_that_drive_a_terminal_are_shown_and_not_obeyed() -> None:
    hostile = "\x1b[2J\u202egnp\nroot"
    instances = [Instance(f"{hostile}-{i}", hostile, hostile) for i in range(3)]
    sides = [{one.id: runs for one in instances} for runs in ("11", "00")]
    evaluations = [of_instances(instances, side, hostile, arm=f"{hostile}{i}") for i, side in enumerate(sides)]
    lines = compare_arms(make_arms([[one] for one in evaluations])).summary_lines()
    text = "".join(lines)
    assert len(lines) > 8 and "\u241b[2J" in text
    assert not set(text) & {"\x1b", "\u202e", "\n"}
