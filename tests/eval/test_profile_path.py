"""The critical path of small steps, each computed by hand."""

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_spans import Line, episode, one_step, span, write_spans

from aem_swe.eval.profile.path import critical_path
from aem_swe.eval.profile.spans import Counts, StepSpans, read_steps


def only_step(folder: Path, lines: list[Line]) -> StepSpans:
    (step,) = read_steps(write_spans(folder, lines) / "spans.jsonl", Counts())
    return step


def path_of(folder: Path, lines: list[Line]) -> list[tuple[str, float, float]]:
    return [(one.stage, one.start, one.seconds) for one in critical_path(only_step(folder, lines))]


def test_a_step_without_spans_is_all_residual(tmp_path: Path) -> None:
    assert path_of(tmp_path, one_step(1, 8.0)) == [("", 0.0, 8.0)]


def test_the_innermost_span_counts_and_gaps_are_residual(tmp_path: Path) -> None:
    lines = one_step(1, 10.0, span("tool/bash", 2.0, 1.0), span("agent", 1.0, 4.0), span("batch", 6.0, 2.0))
    assert path_of(tmp_path, lines) == [
        ("", 0.0, 1.0), ("agent", 1.0, 1.0), ("tool/bash", 2.0, 1.0), ("agent", 3.0, 2.0), ("", 5.0, 1.0),
        ("batch", 6.0, 2.0), ("", 8.0, 2.0),
    ]  # fmt: skip


def test_containers_explain_nothing(tmp_path: Path) -> None:
    inside = [span("update/forward", 5.0, 1.0), span("update", 4.0, 4.0), span("rollout", 0.0, 4.0)]
    lines = one_step(1, 8.0, *inside, span("wait", 1.0, 2.0))
    assert path_of(tmp_path, lines) == [("", 0.0, 5.0), ("update/forward", 5.0, 1.0), ("", 6.0, 2.0)]


def test_a_wait_for_an_episode_goes_through_that_episodes_lane(tmp_path: Path) -> None:
    late = episode(
        "0/1",
        span("policy/decode", 1.0, 2.0, latency=True, turn=0),
        span("tool/bash", 3.0, 2.0),
        span("diff", 6.0, 1.0),
    )
    early = episode("0/0", span("tool/search", 0.0, 8.0))
    lines = one_step(1, 8.0, *late, *early, span("wait", 0.0, 6.5, waits_for="0/1", phase="rollout"))
    assert path_of(tmp_path, lines) == [
        ("", 0.0, 1.0), ("policy/decode", 1.0, 2.0), ("tool/bash", 3.0, 2.0), ("", 5.0, 1.0), ("diff", 6.0, 0.5),
        ("", 6.5, 1.5),
    ]  # fmt: skip


def test_a_wait_for_an_episode_that_left_no_span_is_residual(tmp_path: Path) -> None:
    lines = one_step(1, 2.0, span("wait", 0.0, 2.0, waits_for="9/9"))
    assert path_of(tmp_path, lines) == [("", 0.0, 2.0)]


def test_two_episodes_that_wait_for_each_other_do_not_go_round_in_circles(tmp_path: Path) -> None:
    waits = episode("0/0", span("wait", 0.0, 2.0, waits_for="0/1")) + episode(
        "0/1", span("wait", 0.0, 2.0, waits_for="0/0")
    )
    assert path_of(tmp_path, one_step(1, 2.0, *waits, span("wait", 0.0, 2.0, waits_for="0/0"))) == [("", 0.0, 2.0)]


def test_latencies_and_work_done_ahead_are_not_the_steps_own(tmp_path: Path) -> None:
    main = [span("policy/decode", 0.0, 1.0, latency=True), span("sandbox/create", 1.0, 1.0, background=True)]
    assert path_of(tmp_path, one_step(1, 3.0, *main, span("batch", 2.0, 1.0))) == [("", 0.0, 2.0), ("batch", 2.0, 1.0)]


def test_work_done_ahead_is_not_what_its_episode_waited_for(tmp_path: Path) -> None:
    ahead = episode("0/0", span("sandbox/create", 0.0, 2.0, background=True), span("agent", 1.0, 1.0))
    lines = one_step(1, 2.0, *ahead, span("wait", 0.0, 2.0, waits_for="0/0"))
    assert path_of(tmp_path, lines) == [("", 0.0, 1.0), ("agent", 1.0, 1.0)]


def test_an_evaluation_is_one_stage_whatever_goes_on_inside(tmp_path: Path) -> None:
    inside = [
        *episode("0/0", span("tool/bash", 2.0, 1.0), phase="evaluation"),
        span("wait", 1.5, 2.0, waits_for="0/0", phase="evaluation"),
        span("agent", 3.5, 0.25),  # does not say its phase
        span("rollout", 1.0, 3.0, phase="evaluation"),
        span("evaluation", 1.0, 4.0),
    ]
    assert path_of(tmp_path, one_step(1, 6.0, *inside)) == [("", 0.0, 1.0), ("evaluation", 1.0, 4.0), ("", 5.0, 1.0)]


def test_other_processes_and_threads_are_not_the_steps_lane(tmp_path: Path) -> None:
    other = [span("batch", 0.0, 1.0, process="2"), span("batch", 1.0, 1.0, thread="sandbox_0")]
    assert path_of(tmp_path, one_step(1, 2.0, *other)) == [("", 0.0, 2.0)]


def test_of_two_spans_that_begin_together_the_shorter_is_inside(tmp_path: Path) -> None:
    lines = one_step(1, 3.0, span("agent", 0.0, 1.0), span("batch", 0.0, 2.0))
    assert path_of(tmp_path, lines) == [("agent", 0.0, 1.0), ("batch", 1.0, 1.0), ("", 2.0, 1.0)]


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_equal_spans_the_child_is_inside(tmp_path: Path, turned: bool) -> None:
    pair = [span("policy/queue", 0.0, 1.0, id="b", parent="a"), span("zzz", 0.0, 1.0, id="a")]
    assert path_of(tmp_path, one_step(1, 1.0, *(pair[::-1] if turned else pair))) == [("policy/queue", 0.0, 1.0)]


def test_what_sticks_out_of_the_step_is_cut_off(tmp_path: Path) -> None:
    long = episode("0/0", span("agent", -5.0, 5.5), span("diff", 1.0, 9.0))
    lines = one_step(1, 2.0, *long, span("wait", 0.0, 1.5, waits_for="0/0"), span("record", 1.5, 4.0), start=10.0)
    assert path_of(tmp_path, lines) == [("agent", 0.0, 0.5), ("", 0.5, 0.5), ("diff", 1.0, 0.5), ("record", 1.5, 0.5)]


def test_a_span_that_outlives_the_one_it_began_in_counts_to_its_own_end(tmp_path: Path) -> None:
    lines = one_step(1, 4.0, span("agent", 0.0, 2.0), span("diff", 1.0, 2.0))
    assert path_of(tmp_path, lines) == [("agent", 0.0, 1.0), ("diff", 1.0, 2.0), ("", 3.0, 1.0)]


def test_equal_neighbours_become_one_segment_with_the_longest_span(tmp_path: Path) -> None:
    lines = one_step(1, 3.0, span("tool/bash", 0.0, 1.0, turn=0), span("tool/bash", 1.0, 2.0, turn=1))
    (segment,) = critical_path(only_step(tmp_path, lines))
    assert (segment.stage, segment.seconds) == ("tool/bash", 3.0)
    assert segment.span is not None and segment.span.turn == 1


TIMES = st.floats(0.0, 12.0)
STAGES = st.sampled_from(["rollout", "wait", "agent", "tool/bash", "policy/decode", "evaluation", "update", "batch"])


@st.composite
def any_span(draw: st.DrawFn) -> Line:
    keys: Line = {"thread": draw(st.sampled_from(["MainThread", "sandbox_0"])), "turn": draw(st.integers(0, 2))}
    if draw(st.booleans()):
        keys |= {
            "episode": draw(st.sampled_from(["0/0", "0/1"])),
            "phase": draw(st.sampled_from(["rollout", "evaluation"])),
        }
    for flag in ("latency", "background"):
        if draw(st.integers(0, 4)) == 0:
            keys[flag] = True
    stage = draw(STAGES)
    if stage == "wait":
        keys["waits_for"] = draw(st.sampled_from(["0/0", "0/1", "2/2"]))
    return span(stage, draw(TIMES), draw(TIMES), **keys)


@settings(deadline=None)  # other tests use the machine too
@given(st.lists(any_span(), max_size=12), st.floats(0.001, 10.0), st.randoms(use_true_random=False))
def test_segments_tile_any_step_and_the_order_of_lines_says_nothing(
    tmp_path_factory: pytest.TempPathFactory, inside: list[Line], wall: float, chance: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("run")
    segments = critical_path(only_step(folder, one_step(1, wall, *inside)))
    assert sum(one.seconds for one in segments) == pytest.approx(wall, abs=1e-9)
    reached = 0.0
    for one in segments:
        assert one.seconds > 0.0
        assert one.start == pytest.approx(reached, abs=1e-9)
        reached = one.start + one.seconds
    assert all(one.stage != other.stage for one, other in itertools.pairwise(segments))
    chance.shuffle(inside)
    again = critical_path(only_step(folder, one_step(1, wall, *inside)))
    assert [(one.stage, one.start, one.seconds) for one in again] == [
        (one.stage, one.start, one.seconds) for one in segments
    ]


@settings(deadline=None)  # other tests use the machine too
@given(st.lists(any_span(), max_size=8), st.floats(0.5, 10.0), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_each_moment_belongs_to_the_span_that_began_last(
    tmp_path_factory: pytest.TempPathFactory, inside: list[Line], wall: float, shares: list[float]
) -> None:
    """Against a loop over moments that shares nothing with the sweep; evaluations and waits have tests of their own."""
    plain = [line for line in inside if line["stage"] not in ("wait", "evaluation") and "phase" not in line]
    step = only_step(tmp_path_factory.mktemp("run"), one_step(1, wall, *plain))
    segments = critical_path(step)
    lane = [one for one in step.spans if one.thread == "MainThread" and not (one.latency or one.background)]
    edges = [edge - step.start for one in lane for edge in (one.start, one.stop)]
    for moment in (share * wall for share in shares):
        if moment >= wall or any(abs(moment - edge) < 1e-5 for edge in edges):
            continue
        open_now = [one for one in lane if one.start - step.start <= moment < one.stop - step.start]
        innermost = max(open_now, key=lambda one: (one.start, -one.seconds))
        if sum((one.start, one.seconds) == (innermost.start, innermost.seconds) for one in open_now) > 1:
            continue
        expected = "" if innermost.stage in ("step", "rollout", "update") else innermost.stage
        assert next(one.stage for one in segments if one.start <= moment < one.start + one.seconds) == expected


def test_twenty_thousand_spans_that_began_at_once_lie_in_each_other_as_their_parents_say(tmp_path: Path) -> None:
    """Told apart by their depth alone; walking up from each of them would take hours."""
    count = 20_000
    chain = [
        span("batch" if number == count - 1 else "other", 1.0, 2.0, id=f"s{number:05}", parent=f"s{number - 1:05}")
        for number in range(count)
    ]
    random.Random(1).shuffle(chain)
    (step,) = read_steps(write_spans(tmp_path / "run", one_step(1, 4.0, *chain)) / "spans.jsonl", Counts())
    assert [(one.stage, one.start, one.seconds) for one in critical_path(step)] == [
        ("", 0.0, 1.0), ("batch", 1.0, 2.0), ("", 3.0, 1.0),
    ]  # fmt: skip


def test_parents_in_a_circle_end_somewhere(tmp_path: Path) -> None:
    circle = [span("batch", 1.0, 2.0, id=f"s{number}", parent=f"s{(number + 1) % 3}") for number in range(3)]
    (step,) = read_steps(write_spans(tmp_path / "run", one_step(1, 4.0, *circle)) / "spans.jsonl", Counts())
    assert [(one.stage, one.seconds) for one in critical_path(step)] == [("", 1.0), ("batch", 2.0), ("", 1.0)]
