"""The profile of whole runs, against numbers that were worked out by hand from profile_spans.training_step."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_spans import Line, episode, one_step, run_lines, span, training_step, write_spans

from aem_swe.errors import ConfigError, RunError
from aem_swe.eval.profile.profile import Profile, load_profile


def profile_of(folder: Path, *lines: Line | str) -> Profile:
    return load_profile(write_spans(folder, lines))


def test_the_stages_of_a_step_and_the_residual_sum_to_its_wall_time(tmp_path: Path) -> None:
    (step,) = profile_of(tmp_path, *training_step(1)).steps
    assert step.path_s == {
        "sandbox/create": 1.0, "policy/decode": 3.0, "tool/bash": 4.0, "reward/tests": 2.0, "batch": 1.0,
        "old_log_prob": 2.0, "aem": 0.5, "update/forward": 1.0, "update/backward": 2.0, "weight_sync": 0.5,
    }  # fmt: skip
    # 10-12 of the rollout, 18.5-19 of the update, 19.5-20 at the end
    assert (step.wall_s, step.residual_s) == (20.0, 3.0)
    assert step.phases_s == {"rollout": 12.0, "old_log_prob": 2.0, "aem": 0.5, "update": 3.5}


def test_work_is_summed_over_threads_without_latencies_and_containers(tmp_path: Path) -> None:
    (step,) = profile_of(tmp_path, *training_step(1)).steps
    assert step.work_s == {
        "sandbox/create": 5.0,  # four and one done ahead
        "policy/decode": 2.0,  # the sampler's; the eight latencies are no work
        "tool/bash": 1.0 + 2.0 + 3.0 + 4.0, "reward/tests": 8.0, "batch": 1.0, "old_log_prob": 2.0, "aem": 0.5,
        "update/forward": 1.0, "update/backward": 2.0, "weight_sync": 0.5,
    }  # fmt: skip


def test_a_childs_time_is_its_parents_only_in_another_thread(tmp_path: Path) -> None:
    parent = span("agent", 0.0, 4.0, id="a")
    here = span("tool/bash", 0.0, 1.0, parent="a")
    there = span("tool/search", 1.0, 2.0, parent="a", thread="pool")
    latency = span("policy/decode", 3.0, 1.0, parent="a", latency=True)
    (step,) = profile_of(tmp_path, *one_step(1, 5.0, parent, here, there, latency)).steps
    assert step.work_s == {"agent": 3.0, "tool/bash": 1.0, "tool/search": 2.0}


def test_percentiles_are_of_self_times_of_what_was_waited_for(tmp_path: Path) -> None:
    spans = [
        span("agent", 0.0, 4.0, id="a"), span("tool/bash", 0.0, 1.0, parent="a"), span("agent", 4.0, 2.0, id="b"),
        span("tool/bash", 4.0, 1.5, parent="b", replay=True),
        span("sandbox/create", -9.0, 8.0, parent="b", background=True), span("sandbox/create", 6.0, 0.5),
    ]  # fmt: skip
    stages = profile_of(tmp_path, *one_step(1, 7.0, *spans)).stages
    found = {name: (one.count, one.p50, one.max, one.work_s, one.path_s) for name, one in stages.items()}
    assert found == {
        "agent": (2, 1.75, 3.0, 3.5, 3.5),  # 3 and 0.5: what was done ahead is none of b's time
        "tool/bash": (1, 1.0, 1.0, 2.5, 2.5),  # the replay took time, and is no use of the tool
        "sandbox/create": (1, 0.5, 0.5, 8.5, 0.5),
    }


def test_children_that_say_to_be_longer_than_their_parent_leave_it_nothing(tmp_path: Path) -> None:
    lines = [span("agent", 0.0, 1.0, id="a"), span("diff", 0.0, 3.0, parent="a")]
    (step,) = profile_of(tmp_path, *one_step(1, 5.0, *lines)).steps
    assert step.work_s == {"agent": 0.0, "diff": 3.0}


def test_percentiles_are_those_of_the_latencies_where_there_are_any(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, *run_lines((0.0, 2.0)))
    decode, bash = profile.stages["policy/decode"], profile.stages["tool/bash"]
    assert (decode.count, decode.p50, decode.max) == (16, 1.5, 2.0)
    times = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 6.0]
    assert (bash.count, bash.max) == (8, 6.0)
    assert [bash.p50, bash.p95, bash.p99] == pytest.approx(np.percentile(times, [50, 95, 99]).tolist())
    assert (bash.path_s, bash.share, bash.work_s) == (5.0, 10.0 / 42.0, 11.0)


def test_the_stages_of_a_run_come_in_a_steps_order_with_unknown_ones_after_their_family(tmp_path: Path) -> None:
    names = ["record", "zzz", "policy/verify", "update/forward", "tool/b", "tool/a", "policy/queue", "sandbox/queue",
             "reward/start", "reward/queue", "worker/queue", "agent/own", "agent", "generate", "drain", "update/actor",
             "collect", "reward/tests", "sandbox/prepare", "sandbox/open", "sandbox/image"]  # fmt: skip
    lines = one_step(1, 21.0, *(span(name, float(at), 1.0) for at, name in enumerate(names)))
    assert list(profile_of(tmp_path, *lines).stages) == [
        "worker/queue", "sandbox/open", "sandbox/image", "sandbox/queue", "sandbox/prepare", "policy/queue",
        "policy/verify", "generate", "agent", "agent/own", "tool/a", "tool/b", "reward/queue", "reward/start",
        "reward/tests", "collect", "update/forward", "update/actor", "drain", "record", "zzz",
    ]  # fmt: skip


def test_the_straggler_is_the_episode_that_ended_last(tmp_path: Path) -> None:
    late = profile_of(tmp_path, *training_step(1)).steps[0].straggler
    assert late is not None
    assert (late.episode, late.task, late.turn, late.stage, late.stage_s) == ("1/1", "demo-1", 0, "tool/bash", 4.0)
    assert (late.seconds, late.median_s) == (10.0, 8.5)  # of 7, 8, 9 and 10
    assert late.tail_s == 0.0  # 4 of 4 are 90% of 4


def test_the_tail_begins_when_nine_of_ten_episodes_have_ended(tmp_path: Path) -> None:
    ends = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 20.0]
    inside = [line for k, end in enumerate(ends) for line in episode(f"0/{k}", span("agent", 0.0, end))]
    lines = one_step(1, 21.0, *inside, span("rollout", 0.0, 20.5))
    late = profile_of(tmp_path, *lines).steps[0].straggler
    assert late is not None and (late.episode, late.tail_s, late.turn) == ("0/9", 11.0, None)


def test_the_tail_ends_where_the_last_reward_begins(tmp_path: Path) -> None:
    inside = [
        line for k in range(9) for line in episode(f"0/{k}", span("agent", 0.0, 4.0), span("reward/tests", 4.0, 9.0))
    ]
    reward = [span("reward/queue", 5.0, 1.0, latency=True), span("reward/tests", 6.0, 10.0)]
    inside += episode("0/9", span("agent", 0.0, 5.0), span("agent", 5.0, 11.0), *reward)  # the latter around the reward
    late = profile_of(tmp_path, *one_step(1, 21.0, *inside, span("rollout", 0.0, 16.0))).steps[0].straggler
    assert late is not None and (late.episode, late.seconds, late.tail_s) == ("0/9", 16.0, 1.0)


def test_tokens_turns_idle_and_gpu_time_of_a_step(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, *training_step(1))
    (step,) = profile.steps
    assert (step.tokens, step.episodes, step.turns) == (16 * 10 + 4 * 8, 4, 8)
    assert step.idle_s == 10.0  # the sampler ran for 2 of the rollout's 12
    assert (step.gpu_s, step.gpu_peak_mb) == (1.5, 100.0)
    assert profile.group_size == 2


def test_gpu_time_of_a_span_around_others_is_not_counted_twice(tmp_path: Path) -> None:
    lines = [
        span("update/forward", 0.0, 1.0, id="c", parent="b", gpu_s=0.5),
        span("agent", 0.0, 1.5, id="b", parent="a"),
        span("update", 0.0, 2.0, id="a", gpu_s=0.75),
        span("aem", 3.0, 0.5, gpu_s=10**400),
    ]
    assert profile_of(tmp_path, *one_step(1, 5.0, *lines)).steps[0].gpu_s == 0.5


def test_the_evaluation_is_one_stage_in_path_work_and_percentiles(tmp_path: Path) -> None:
    inside = episode("0/0", span("tool/bash", 1.0, 2.0), phase="evaluation")
    lines = one_step(1, 6.0, *inside, span("evaluation", 1.0, 4.0, phase="evaluation"))
    profile = profile_of(tmp_path, *lines)
    stage = profile.stages["evaluation"]
    assert list(profile.stages) == ["evaluation"]
    assert (stage.path_s, stage.work_s, stage.count, stage.max) == (4.0, 6.0, 1, 4.0)
    assert profile.steps[0].episodes == 0 and profile.steps[0].straggler is None


def test_the_evaluation_before_training_is_in_no_mean(tmp_path: Path) -> None:
    before = one_step(0, 7.0, span("evaluation", 0.0, 7.0), start=-10.0)
    profile = profile_of(tmp_path, *before, *training_step(1))
    assert (profile.before_s, [step.step for step in profile.steps], profile.wall_s) == (7.0, [1], 20.0)
    assert "evaluation" not in profile.stages
    assert profile.before is not None and not profile.before.spans
    assert [one.stage for one in load_profile(tmp_path, show=0).step(0).spans] == ["evaluation", "step"]


def test_a_killed_step_is_told_apart_and_in_no_mean(tmp_path: Path) -> None:
    killed = one_step(3, 9.0, span("batch", 0.0, 1.0), start=50.0, ended=False)
    profile = profile_of(tmp_path, *run_lines((0.0, 2.0)), *killed, '{"stage": "ba')
    assert [step.step for step in profile.steps] == [1, 2]
    assert profile.incomplete is not None and (profile.incomplete.step, profile.incomplete.wall_s) == (3, 1.0)
    assert (profile.incomplete_steps, profile.unreadable_lines) == ((3,), 1)
    assert profile.incomplete.segments[0].stage == "batch"


def failed(step: int, wall: float, *inside: Line, start: float) -> list[Line]:
    *lines, own = one_step(step, wall, *inside, start=start)
    return [*lines, own | {"failed": True}]


def test_a_failed_step_is_told_apart_and_in_no_mean(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, *run_lines((0.0, 2.0)), *failed(3, 9.0, span("batch", 0.0, 1.0), start=50.0))
    assert [step.step for step in profile.steps] == [1, 2]
    assert profile.incomplete is not None and (profile.incomplete.step, profile.incomplete.wall_s) == (3, 9.0)
    assert profile.incomplete.path_s == {"batch": 1.0}


def test_a_failed_step_that_was_taken_again_counts_once(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, *failed(1, 9.0, start=0.0), *training_step(1, start=100.0))
    assert [step.wall_s for step in profile.steps] == [20.0]
    assert (profile.incomplete, profile.incomplete_steps) == (None, ())


def test_a_run_that_was_killed_in_its_first_step_has_that_to_show(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, *one_step(1, 9.0, span("batch", 0.0, 1.0), ended=False))
    assert profile.incomplete == profile.steps[0]
    assert profile.stages["batch"].share == 1.0


def test_a_step_that_was_taken_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, *training_step(1), *training_step(1, start=100.0, slow=4.0))
    assert [step.wall_s for step in profile.steps] == [24.0]
    assert profile.stages["tool/bash"].count == 4


def test_the_slowest_the_median_and_a_wanted_step_keep_their_spans(tmp_path: Path) -> None:
    folder = write_spans(tmp_path, run_lines((0.0, 9.0, 3.0, 1.0, 2.0)))
    profile = load_profile(folder, show=4)
    assert (profile.slowest.step, profile.median.step) == (2, 5)
    assert [step.step for step in profile.steps if step.spans] == [2, 4, 5]
    for step in profile.steps:
        assert not step.spans or (len(step.spans), sum(one.seconds for one in step.segments)) == (
            step.span_count, pytest.approx(step.wall_s),
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"step 9 is not in .* choose one of 1 to 5"):
        load_profile(folder, show=9)


@pytest.mark.parametrize(
    ("lines", "message"),
    [([], "holds no span of a step"), (["{", "torn"], r"holds no span of a step \(2 unreadable lines\)"),
     ([json.dumps(span("startup", 0.0, 1.0))], "holds no span of a step")],
)  # fmt: skip
def test_a_file_without_a_step_is_said_in_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(RunError, match=message):
        profile_of(tmp_path, *lines)


def test_a_folder_without_spans_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"spans\.jsonl is missing"):
        load_profile(tmp_path)
    with pytest.raises(RunError, match="does not exist"):
        load_profile(tmp_path / "no")


def test_a_run_of_no_length_has_no_shares(tmp_path: Path) -> None:
    profile = profile_of(tmp_path, *one_step(1, 0.0))
    assert (profile.wall_s, profile.residual_share) == (0.0, 0.0)


@pytest.mark.parametrize("config", ["", "[1", "recipe: [1]", "- 1", "recipe: demo_aem"])
def test_the_spans_stand_for_themselves_where_the_config_is_lost(tmp_path: Path, config: str) -> None:
    folder = write_spans(tmp_path / "run", training_step(1))
    (folder / "config.yaml").write_text(config)
    assert load_profile(folder).recipe == ("demo_aem" if config.endswith("aem") else "")


@settings(deadline=None)  # other tests use the machine too
@given(st.permutations(training_step(1)[:-1]))
def test_the_order_of_lines_changes_nothing(tmp_path_factory: pytest.TempPathFactory, lines: list[Line]) -> None:
    straight, turned = (
        profile_of(tmp_path_factory.mktemp("run"), *some, training_step(1)[-1])
        for some in (training_step(1)[:-1], lines)
    )
    assert turned.steps[0].path_s == pytest.approx(straight.steps[0].path_s)
    assert turned.steps[0].work_s == pytest.approx(straight.steps[0].work_s)
    assert (turned.stages, turned.residual_s) == (straight.stages, straight.residual_s)
    assert turned.steps[0].straggler == straight.steps[0].straggler


def test_of_two_attempts_at_a_step_the_last_counts_and_the_spans_of_the_other_are_told(tmp_path: Path) -> None:
    first, second = one_step(1, 10.0, span("batch", 0.0, 4.0)), one_step(1, 10.0, span("aem", 0.0, 5.0), start=20.0)
    profile = load_profile(write_spans(tmp_path / "run", [*first, *second]))
    assert profile.steps[0].path_s == {"aem": 5.0} and profile.late_spans == len(first)
