"""Advice about a recipe: every rule speaks above its threshold and is silent at it, and names keys that exist."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # a JSON line holds anything

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types
from profile_spans import Line, episode, one_step, span, write_spans

from aem_swe.eval.profile import rollout_rules, training_rules
from aem_swe.eval.profile.advice import RULES, Advice, advise
from aem_swe.eval.profile.growth import measure_growth
from aem_swe.eval.profile.profile import load_profile
from aem_swe.schema import Recipe

WALL = 1024.0
STEP_S = 1 / 64
"""How far above its threshold a rule has to speak: a power of two, so that all sums are exact."""
LOCAL: dict[str, Any] = {"engine": "local", "sandbox": {"kind": "local", "workers": 4}}
LOCAL_DOCKER: dict[str, Any] = {"engine": "local", "sandbox": {"kind": "docker", "warm": 8, "starts": 4, "workers": 4}}
RLLM: dict[str, Any] = {"engine": "rllm", "sandbox": {"kind": "docker", "warm": 8}, "cluster": {"mode": "sync"}}
RLLM_OTHER: dict[str, Any] = {"engine": "rllm", "sandbox": {"kind": "rllm", "backend": "modal"}}
ASYNC: dict[str, Any] = {"engine": "rllm", "cluster": {"mode": "fully_async", "trigger_step": 2}}


def waits(stage: str, **keys: Any) -> Callable[[float], list[Line]]:
    """A step that waits `seconds` for one stage, and for the rest of its time for one that no rule is about."""
    return lambda seconds: one_step(1, WALL, span(stage, 0.0, seconds, **keys), span("agent", seconds, WALL - seconds))


def unexplained(seconds: float) -> list[Line]:
    return one_step(1, WALL, span("agent", seconds, WALL - seconds))


def tail(seconds: float) -> list[Line]:
    """Ten episodes, of which nine end together and the last one so much later."""
    lines = [line for n in range(9) for line in episode(f"0/{n}", span("agent", 0.0, 500.0))]
    lines += episode("0/9", span("agent", 0.0, 500.0 + seconds))
    rollout = [span("agent", 0.0, 400.0), span("agent", 400.0, WALL - 400.0), span("rollout", 0.0, 500.0 + seconds)]
    return one_step(1, WALL, *lines, *rollout)


@dataclass(frozen=True)
class Case:
    rule: str
    threshold: float
    lines: Callable[[float], list[Line]]
    config: dict[str, Any]
    says: tuple[str, ...]
    not_said: tuple[str, ...] = ()


ROLLOUT, TRAINING = rollout_rules, training_rules
CASES = [
    Case("residual", TRAINING.RESIDUAL_ABOVE, unexplained, LOCAL, ("Do not trust",)),
    *(
        Case("sandbox starts", ROLLOUT.STARTS_ABOVE, waits(stage), config, says)
        for stage, config, says in (
            ("sandbox/create", LOCAL, ("sandbox.workers (now 4)",)),
            ("sandbox/start", LOCAL_DOCKER, ("sandbox.warm (now 8)", "sandbox.starts (now 4)")),
            ("sandbox/prepare", RLLM, ("sandbox.warm (now 8)",)),
            ("sandbox/start", RLLM_OTHER, ("sandbox.backend (now modal)",)),
        )
    ),
    Case("worker threads", ROLLOUT.QUEUE_ABOVE, waits("sandbox/queue"), LOCAL, ("sandbox.workers (now 4)", "cores")),
    Case("worker threads", ROLLOUT.QUEUE_ABOVE, waits("sandbox/queue"), RLLM, ("sandbox.engines",), ("workers",)),
    Case("worker threads", ROLLOUT.QUEUE_ABOVE, waits("sandbox/queue"), RLLM_OTHER, ("sandbox.backend",)),
    Case("one tool", ROLLOUT.TOOL_ABOVE, waits("tool/bash"), LOCAL, ("tool/bash", "sandbox.command_timeout_s")),
    Case("one tool", ROLLOUT.TOOL_ABOVE, waits("tool/bash"), RLLM, ("sandbox.cpus",)),
    Case("rewards", ROLLOUT.REWARDS_ABOVE, waits("reward/tests"), LOCAL, ("sandbox.workers",)),
    Case("rewards", ROLLOUT.REWARDS_ABOVE, waits("reward/start"), LOCAL_DOCKER, ("sandbox.warm",)),
    Case("rewards", ROLLOUT.REWARDS_ABOVE, waits("reward/tests"), RLLM, ("sandbox.cpus", "sandbox.engines")),
    Case("rewards", ROLLOUT.REWARDS_ABOVE, waits("reward/tests"), RLLM_OTHER, ("sandbox.backend",)),
    Case("stragglers", ROLLOUT.TAIL_ABOVE, tail, LOCAL, ("agent.max_steps", "agent.response_budget"), ("cluster.",)),
    Case("stragglers", ROLLOUT.TAIL_ABOVE, tail, RLLM, ("cluster.mode=fully_async",)),
    Case("stragglers", ROLLOUT.TAIL_ABOVE, tail, ASYNC, ("agent.max_steps",), ("fully_async",)),
    Case("old log-probs", TRAINING.OLD_LOG_PROB_ABOVE, waits("old_log_prob"), LOCAL, ("trainer.micro_batch",)),
    Case("old log-probs", TRAINING.OLD_LOG_PROB_ABOVE, waits("ref_log_prob"), RLLM, ("cluster.tokens_per_gpu",)),
    Case("update", TRAINING.UPDATE_ABOVE, waits("update/backward"), LOCAL, ("trainer.micro_batch",), ("=false",)),
    Case(
        "update", TRAINING.UPDATE_ABOVE, waits("update/forward"), LOCAL | {"model": {"gradient_checkpointing": True}},
        ("model.gradient_checkpointing=false",),
    ),
    Case(
        "update", TRAINING.UPDATE_ABOVE, waits("update/forward"), {"engine": "rllm", "cluster": {"offload": True}},
        ("cluster.tokens_per_gpu", "cluster.offload=false"),
    ),
    Case("prefill", ROLLOUT.PREFILL_ABOVE, waits("policy/prefill"), LOCAL, ("sandbox.max_output",)),
    Case("decode", ROLLOUT.DECODE_ABOVE, waits("policy/decode"), LOCAL, ("sampling.rollouts", "sampling.cohorts")),
    Case(
        "decode", ROLLOUT.DECODE_ABOVE, waits("policy/decode"), LOCAL | {"sampling": {"cohorts": 1}},
        ("sampling.rollouts",), ("sampling.cohorts",),
    ),
    Case(
        "decode", ROLLOUT.DECODE_ABOVE, waits("policy/request"), RLLM,
        ("cluster.nodes", "cluster.tensor_parallel", "cluster.gpu_memory_utilization"), ("sampling.",),
    ),
    Case(
        "decode", ROLLOUT.DECODE_ABOVE, waits("policy/request"), {"engine": "rllm", "cluster": {"tensor_parallel": 1}},
        ("cluster.nodes",), ("cluster.tensor_parallel",),
    ),
    Case("checkpoint", TRAINING.CHECKPOINT_ABOVE, waits("checkpoint"), LOCAL, ("trainer.save_every",)),
    Case("evaluation", TRAINING.EVALUATION_ABOVE, waits("evaluation"), LOCAL, ("trainer.eval_every",)),
    Case("records", TRAINING.RECORD_ABOVE, waits("record"), LOCAL, ("run_dir",)),
    Case("weight sync", TRAINING.WEIGHT_SYNC_ABOVE, waits("weight_sync"), RLLM, ("cluster.mode=fully_async",)),
    Case("weight sync", TRAINING.WEIGHT_SYNC_ABOVE, waits("weight_sync"), ASYNC, ("cluster.trigger_step (now 2)",)),
    Case("aem", TRAINING.AEM_ABOVE, waits("aem"), LOCAL, ("unexpected", "aem.enabled=false")),
]  # fmt: skip


def advice_of(folder: Path, lines: list[Line], config: dict[str, Any] | None = None) -> tuple[Advice, ...]:
    write_spans(folder, lines)
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    profile = load_profile(folder)
    return advise(profile, measure_growth(profile))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}, {case.config['engine']}")
def test_a_rule_speaks_above_its_threshold_and_is_silent_at_it(tmp_path: Path, case: Case) -> None:
    seconds = case.threshold * WALL
    assert [one.rule for one in advice_of(tmp_path / "at", case.lines(seconds - STEP_S), case.config)] == []
    (one,) = advice_of(tmp_path / "above", case.lines(seconds + STEP_S), case.config)
    assert one.rule == case.rule
    assert all(part in one.says for part in case.says) and not any(part in one.says for part in case.not_said)
    assert f"{case.threshold:.1%} of the wall time" in one.figure


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == set(RULES)


def keys_in(text: str) -> set[str]:
    return set(re.findall(r"[a-z_]+(?:\.[a-z_]+)+|\brun_dir\b", text))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}, {case.config['engine']}")
def test_every_key_that_is_named_is_one_of_the_recipe_and_of_the_engine(tmp_path: Path, case: Case) -> None:
    (one,) = advice_of(tmp_path, case.lines(case.threshold * WALL + STEP_S), case.config)
    for key in keys_in(one.says):
        value: object = Recipe()
        for part in key.split("."):
            value = getattr(value, part)  # fails for a key that is not there
        not_here = {"sampling.cohorts", "sandbox.workers", "trainer.micro_batch", "trainer.threads", "model.device"}
        assert not key.startswith("cluster.") if case.config["engine"] == "local" else key not in not_here


def test_the_figure_is_the_stages_share_and_seconds(tmp_path: Path) -> None:
    lines = one_step(
        1, 100.0, span("sandbox/create", 0.0, 4.0), span("sandbox/start", 4.0, 16.0), span("agent", 20.0, 80.0)
    )
    (one,) = advice_of(tmp_path, lines, LOCAL)
    assert one.figure == "sandbox/start + sandbox/create: 20.0% of the wall time, 20.0 s a step"


def test_a_tool_is_told_with_its_slowest_calls(tmp_path: Path) -> None:
    calls = [span("tool/bash", float(n), 1.0 if n else 0.5) for n in range(20)]
    (one,) = advice_of(tmp_path, one_step(1, 100.0, *calls, span("agent", 20.0, 80.0), span("agent", 0.5, 0.5)), LOCAL)
    assert "tool/bash: 19.5% of the wall time, 19.5 s a step; of 20 calls" in one.figure
    assert one.figure.endswith("one in twenty took 1.00 s or more, the longest 1.00 s")


def test_the_largest_tool_alone_is_named(tmp_path: Path) -> None:
    lines = one_step(1, 100.0, span("tool/find", 0.0, 10.0), span("tool/bash", 10.0, 20.0), span("agent", 30.0, 70.0))
    (one,) = advice_of(tmp_path, lines, LOCAL)
    assert one.figure.startswith("tool/bash: 20.0%") and "tool/find" not in one.says


def test_decoding_is_told_with_its_rows_and_its_growth(tmp_path: Path) -> None:
    lines = one_step(
        1, 100.0,
        span("policy/decode", 0.0, 40.0, rows=4), span("policy/decode", 40.0, 40.0, rows=8), span("agent", 80.0, 20.0),
        *episode("0/0", span("policy/decode", 0.0, 2.0, turn=0, tokens=4, latency=True)),
        *episode("0/1", span("policy/decode", 0.0, 8.0, turn=0, tokens=64, latency=True)),
    )  # fmt: skip
    found = {one.rule: one.figure for one in advice_of(tmp_path, lines, LOCAL)}
    assert "6.0 rows together on average (step 1)" in found["decode"]
    assert "500 ms a token in turns of 4 to 7 tokens; 125 ms a token in turns of 64 to 127 tokens" in found["decode"]


def test_stragglers_are_told_with_what_the_slowest_of_so_many_takes(tmp_path: Path) -> None:
    (one,) = advice_of(tmp_path, tail(200.0), LOCAL)
    assert one.figure.endswith("an episode takes 520 s on average, the slowest of 10 takes 700 s")


def test_the_residual_comes_first_and_then_the_largest_share(tmp_path: Path) -> None:
    lines = one_step(
        1, 100.0, span("record", 0.0, 5.0), span("checkpoint", 5.0, 30.0), span("evaluation", 35.0, 40.0),
        span("agent", 75.0, 20.0),
    )  # fmt: skip
    assert [one.rule for one in advice_of(tmp_path, lines, LOCAL)] == [
        "residual",
        "evaluation",
        "checkpoint",
        "records",
    ]


def test_nothing_stands_out_where_nothing_does(tmp_path: Path) -> None:
    lines = one_step(1, 100.0, span("agent", 0.0, 50.0), span("agent", 50.0, 50.0))
    assert advice_of(tmp_path, lines, LOCAL) == ()
    assert advice_of(tmp_path / "empty", one_step(1, 0.0), LOCAL) == ()


@pytest.mark.parametrize("config", ["", "[1, 2]", "{", "engine: 7\nsandbox: text", "engine: {a: b}", "\x00"])
def test_without_a_recipe_that_can_be_read_the_spans_tell_the_engine(tmp_path: Path, config: str) -> None:
    for stage, key in (("policy/decode", "sampling.rollouts"), ("policy/request", "cluster.nodes")):
        folder = write_spans(tmp_path / key, one_step(1, 10.0, span(stage, 0.0, 9.0), span(stage, 9.0, 1.0)))
        (folder / "config.yaml").write_text(config)
        profile = load_profile(folder)
        (one,) = advise(profile, measure_growth(profile))
        assert key in one.says and "(now" not in one.says


def test_what_a_recipe_or_a_tool_is_called_stays_one_printable_line(tmp_path: Path) -> None:
    attack = "x\x1b[31m\n\u202e" * 100
    config = LOCAL | {"sandbox": {"kind": "local", "command_timeout_s": attack}}
    (one,) = advice_of(tmp_path, waits(f"tool/{attack}")(WALL / 2), config)
    assert one.says.isprintable() and one.figure.isprintable() and len(one.says + one.figure) < 800
