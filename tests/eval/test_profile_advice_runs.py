"""Advice for runs as they were recorded: a demo of six steps, and one in containers on two cores."""

from pathlib import Path

import pytest
from advice_cases import LOCAL, LOCAL_DOCKER, advice_of, rules_of
from profile_spans import Line, episode, one_step, span

DEMO = LOCAL | {"trainer": {"steps": 6, "eval_every": 40, "eval_tasks": 256, "eval_rollouts": 1, "save_every": 10}}
"""demo_aem, cut short."""


def demo(*, evaluated: tuple[int, ...] = (6,), steps: int = 6, stage: str = "evaluation") -> list[Line]:
    """Steps of 8.7 s, and some of them 54.5 s longer."""
    lines, start = [], 0.0
    for step in range(1, steps + 1):
        own = [span("policy/decode", 0.0, 4.0), span("agent", 4.0, 3.0), span("update/backward", 7.0, 1.7)]
        extra = 54.5 if step in evaluated else 0.001 if stage == "checkpoint" else 0.0
        own += [span(stage, 8.7, extra)] * (extra > 0.0)
        lines += one_step(step, 8.7 + extra, *own, start=start)
        start += 8.7 + extra
    return lines


def test_a_run_that_evaluates_only_in_its_last_step_is_not_told_to_evaluate_less_often(tmp_path: Path) -> None:
    (one,) = advice_of(tmp_path, demo(), DEMO)
    assert one.says == "The last step evaluates in any case, which takes long: lower trainer.eval_tasks (now 256)."


def test_a_run_that_evaluates_before_its_last_step_is(tmp_path: Path) -> None:
    config = DEMO | {"trainer": {"steps": 6, "eval_every": 3, "eval_tasks": 256, "eval_rollouts": 2}}
    (one,) = advice_of(tmp_path, demo(evaluated=(3, 6)), config)
    assert "raise trainer.eval_every (now 3)" in one.says
    assert "lower trainer.eval_tasks (now 256) or trainer.eval_rollouts (now 2)" in one.says


def test_a_run_that_was_killed_in_its_midst_has_steps_left_that_would_not_evaluate(tmp_path: Path) -> None:
    config = DEMO | {"trainer": {"steps": 40, "eval_every": 6}}
    (one,) = advice_of(tmp_path, demo(), config)
    assert "raise trainer.eval_every (now 6)" in one.says


def test_without_a_recipe_the_steps_that_evaluated_tell(tmp_path: Path) -> None:
    assert "eval_every" not in advice_of(tmp_path / "last", demo())[0].says
    assert "raise trainer.eval_every" in advice_of(tmp_path / "more", demo(evaluated=(2, 4, 6)))[0].says


def test_nothing_is_left_to_lower_of_an_evaluation_of_one_episode(tmp_path: Path) -> None:
    config = DEMO | {"trainer": {"steps": 6, "eval_every": 40, "eval_tasks": 1, "eval_rollouts": 1}}
    assert rules_of(tmp_path, demo(), config) == []


@pytest.mark.parametrize(("every", "saved", "rules"), [(10, (6,), []), (0, (6,), []), (2, (2, 4, 6), ["checkpoint"])])
def test_the_checkpoint_of_the_last_step_cannot_be_saved_less_often(
    tmp_path: Path, every: int, saved: tuple[int, ...], rules: list[str]
) -> None:
    config = DEMO | {"trainer": {"steps": 6, "save_every": every}}
    assert rules_of(tmp_path, demo(evaluated=saved, stage="checkpoint"), config) == rules


def containers(*, queue: float, tests: float) -> list[Line]:
    """A step of 36.7 s on two cores, with 15.5 s of its end for the reward of the last of ten episodes."""
    lines, play = [], 36.7 - 1.0 - queue - tests
    for n in range(10):
        lines += episode(
            f"0/{n}",
            span("agent", play, 0.01 + tests + queue, id=f"judge{n}"),  # taking the patch, and around the reward
            span("reward/queue", play, queue, latency=True),
            span("reward/tests", play + queue, tests * (0.1 if n < 9 else 1.0), parent=f"judge{n}"),
            task=f"demo-{n}",
        )
    own = [span("policy/decode", 0.0, play, rows=16), span("wait", play, queue + tests, waits_for="0/9")]
    return one_step(1, 36.7, *lines, *own, span("rollout", 0.0, play + queue + tests), span("agent", 35.7, 1.0))


def test_rewards_that_wait_for_threads_are_told_so_and_that_threads_are_no_cores(tmp_path: Path) -> None:
    found = {one.rule: one.says for one in advice_of(tmp_path, containers(queue=11.1, tests=2.8), LOCAL_DOCKER)}
    assert "raise sandbox.workers (now 4), if cores are free" in found["rewards"] and "stragglers" not in found


def test_rewards_that_wait_for_tests_alone_are_not_told_to_use_more_threads(tmp_path: Path) -> None:
    found = {one.rule: one for one in advice_of(tmp_path, containers(queue=0.0, tests=13.9), LOCAL_DOCKER)}
    assert "sandbox.workers" not in found["rewards"].says and "fewer or faster tests" in found["rewards"].says
    assert "of demo-9: 13.9 s" in found["rewards"].figure and "stragglers" not in found
