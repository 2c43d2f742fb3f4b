"""A step for every rule of advice, which waits as long as is asked for what the rule is about, and what is said."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # a JSON line, or a recipe, holds anything

import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types
from profile_spans import Line, episode, one_step, span, write_spans

from aem_swe.eval.profile import generation_rules, rollout_rules, sandbox_rules, training_rules
from aem_swe.eval.profile.advice import Advice, advise
from aem_swe.eval.profile.growth import measure_growth
from aem_swe.eval.profile.profile import load_profile

WALL = 1024.0
"""Seconds of a step: a power of two, so that all sums are exact."""
Recipes = dict[str, Any]
DEMO_DATA = {"source": "rows.jsonl"}
LOCAL: Recipes = {
    "engine": "local",
    "sandbox": {"kind": "local", "workers": 4},
    "trainer": {"steps": 40, "eval_every": 1},
}
LOCAL_DOCKER: Recipes = {
    "engine": "local", "data": DEMO_DATA,
    "sandbox": {"kind": "docker", "warm": 8, "starts": 4, "workers": 4, "cpus": 0.0},
    "sampling": {"prompts": 4, "rollouts": 8},
}  # fmt: skip
WARM: Recipes = LOCAL_DOCKER | {"sandbox": {"kind": "docker", "warm": 64}}
RLLM: Recipes = {
    "engine": "rllm", "data": DEMO_DATA, "sandbox": {"kind": "docker", "warm": 8, "cpus": 2.0},
    "cluster": {"mode": "sync", "gpus_per_node": 8},
}  # fmt: skip
RLLM_OTHER: Recipes = {"engine": "rllm", "data": DEMO_DATA, "sandbox": {"kind": "rllm", "backend": "modal"}}
ASYNC: Recipes = RLLM | {"cluster": {"mode": "fully_async", "trigger_step": 2, "gpus_per_node": 8}}
ONE_GPU: Recipes = RLLM | {"cluster": {"mode": "sync", "gpus_per_node": 1, "nodes": 1}}


def waits(stage: str, **keys: Any) -> Callable[[float], list[Line]]:
    """A step that waits `seconds` for one stage, and for the rest of its time for one that no rule is about."""
    return lambda seconds: one_step(1, WALL, span(stage, 0.0, seconds, **keys), span("agent", seconds, WALL - seconds))


def waited(stage: str, **keys: Any) -> Callable[[float], list[Line]]:
    """The same, of an episode that the step waits for: so it is with queues, which take nobody's time but its own."""

    def lines(seconds: float) -> list[Line]:
        theirs = episode("0/0", span(stage, 0.0, seconds, latency=True, **keys))
        own = [span("wait", 0.0, seconds, waits_for="0/0"), span("agent", seconds, WALL - seconds)]
        return one_step(1, WALL, *theirs, *own)

    return lines


def unexplained(seconds: float) -> list[Line]:
    return one_step(1, WALL, span("agent", seconds, WALL - seconds))


def later_image(seconds: float) -> list[Line]:
    """A first step that only sets up images, and a second one that still waits `seconds` for some."""
    first = one_step(1, WALL, span("sandbox/image", 0.0, WALL / 2), span("sandbox/image", WALL / 2, WALL / 2))
    inside = [span("sandbox/image", 0.0, seconds), span("agent", seconds, WALL - seconds)]
    return first + one_step(2, WALL, *inside, start=WALL)


def tail(seconds: float, episodes: int = 10, stage: str = "agent") -> list[Line]:
    """Episodes of which all but one end together and the last one so much later, for `stage`."""
    lines = [line for n in range(episodes - 1) for line in episode(f"0/{n}", span("agent", 0.0, 500.0))]
    lines += episode(f"0/{episodes - 1}", span("agent", 0.0, 500.0), span(stage, 500.0, seconds))
    rollout = [span("agent", 0.0, 400.0), span("agent", 400.0, WALL - 400.0), span("rollout", 0.0, 500.0 + seconds)]
    return one_step(1, WALL, *lines, *rollout)


def prefills(turn: int) -> Callable[[float], list[Line]]:
    """A pass of the sampler, in which two episodes wait for their prompts of one turn to be read."""

    def lines(seconds: float) -> list[Line]:
        theirs = [span("policy/prefill", 0.0, seconds, turn=turn, latency=True)]
        return waits("policy/prefill", rows=2)(seconds)[:-1] + one_step(
            1, WALL, *episode("0/0", *theirs), *episode("0/1", *theirs)
        )

    return lines


def passes(many: float, few: float) -> Callable[[float], list[Line]]:
    """Six passes of the sampler, three of 16 rows and three of 4, with so many tokens a second."""

    def lines(seconds: float) -> list[Line]:
        each = seconds / 8  # of which the wide ones take twice as long, lest halves be off by an ulp
        at: float = 0.0
        found: list[Line] = []
        for rows, rate, lasts in ((16, many, 2), (4, few, 1), (16, many, 1), (4, few, 2), (16, many, 1), (4, few, 1)):
            found.append(span("policy/decode", at, lasts * each, rows=rows, tokens=rate * lasts * each))
            at += lasts * each
        return one_step(1, WALL, *found, span("agent", seconds, WALL - seconds))

    return lines


def requests(busy: float, quiet: float) -> Callable[[float], list[Line]]:
    """A step that waits for servers: four requests at once, then four one by one, with so many seconds a token."""

    def lines(seconds: float) -> list[Line]:
        at_once = [span("policy/request", 0.0, 100.0, tokens=100.0 / busy, thread=f"t{n}") for n in range(4)]
        alone = [span("policy/request", 200.0 + 20.0 * n, 10.0, tokens=10.0 / quiet, thread="t4") for n in range(4)]
        return waits("policy/request")(seconds)[:-1] + one_step(1, WALL, *at_once, *alone)

    return lines


@dataclass(frozen=True)
class Case:
    rule: str
    threshold: float
    lines: Callable[[float], list[Line]]
    config: Mapping[str, Any]
    says: tuple[str, ...]
    not_said: tuple[str, ...] = ()


S, R, G, T = sandbox_rules, rollout_rules, generation_rules, training_rules
CORES = ("cores are free", "more threads than cores")
CASES = [
    Case("residual", T.RESIDUAL_ABOVE, unexplained, LOCAL, ("Do not trust",)),
    Case("worker threads", S.QUEUE_ABOVE, waited("worker/queue"), LOCAL, ("sandbox.workers (now 4)", *CORES)),
    Case("worker threads", S.QUEUE_ABOVE, waited("worker/queue"), LOCAL_DOCKER, ("sandbox.workers (now 4)", *CORES)),
    Case(
        "start slots", S.QUEUE_ABOVE, waits("sandbox/queue"), LOCAL_DOCKER,
        ("sandbox.starts (now 4)",), ("workers", "warm"),
    ),
    Case(
        "start slots", S.QUEUE_ABOVE, waits("sandbox/queue"), RLLM,
        ("sandbox.starts", "sandbox.engines"), ("workers",),
    ),
    Case("sandbox starts", S.STARTS_ABOVE, waits("sandbox/create"), LOCAL, ("sandbox.workers (now 4)", *CORES)),
    Case(
        "sandbox starts", S.STARTS_ABOVE, waits("sandbox/start"), LOCAL_DOCKER,
        ("sandbox.warm (now 8)",), ("workers",),
    ),
    Case("sandbox starts", S.STARTS_ABOVE, waits("sandbox/start"), WARM, ("sandbox.engines",), ("sandbox.warm",)),
    Case("sandbox starts", S.STARTS_ABOVE, waits("sandbox/create"), RLLM, ("sandbox.warm (now 8)",)),
    Case("sandbox starts", S.STARTS_ABOVE, waits("sandbox/start"), RLLM_OTHER, ("sandbox.backend (now modal)",)),
    Case("images", S.IMAGES_ABOVE, later_image, LOCAL_DOCKER, ("aem-swe sandbox pull",)),
    Case("opening", S.OPENING_ABOVE, waits("sandbox/open", failed=True), LOCAL_DOCKER, ("retries", "failed")),
    Case("one tool", R.TOOL_ABOVE, waits("tool/bash"), LOCAL, ("tool/bash", "sandbox.command_timeout_s"), ("cpus",)),
    Case("one tool", R.TOOL_ABOVE, waits("tool/bash"), LOCAL_DOCKER, ("sandbox.engines",), ("cpus",)),  # 0 is all
    Case("one tool", R.TOOL_ABOVE, waits("tool/bash"), RLLM, ("sandbox.cpus (now 2.0)",)),
    Case("rewards", R.REWARDS_ABOVE, waited("reward/queue"), LOCAL, ("sandbox.workers (now 4)", *CORES), ("tests",)),
    Case("rewards", R.REWARDS_ABOVE, waits("reward/tests"), LOCAL, ("faster tests", "last episode"), ("sandbox.",)),
    Case("rewards", R.REWARDS_ABOVE, waits("reward/start"), LOCAL_DOCKER, ("sandbox.warm",)),
    Case("rewards", R.REWARDS_ABOVE, waits("reward/tests"), RLLM, ("sandbox.cpus", "sandbox.engines"), ("workers",)),
    Case("rewards", R.REWARDS_ABOVE, waits("reward/tests"), RLLM_OTHER, ("sandbox.backend",)),
    Case("stragglers", R.TAIL_ABOVE, tail, LOCAL, ("agent.max_steps", "agent.response_budget"), ("cluster.",)),
    Case("stragglers", R.TAIL_ABOVE, tail, RLLM, ("cluster.mode=fully_async",)),
    Case("stragglers", R.TAIL_ABOVE, tail, ASYNC, ("agent.max_steps",), ("fully_async",)),
    Case("stragglers", R.TAIL_ABOVE, tail, ONE_GPU, ("agent.max_steps",), ("fully_async",)),
    Case("prefill", G.PREFILL_ABOVE, prefills(1), LOCAL, ("sandbox.max_output", "agent.response_budget")),
    Case("decode", G.DECODE_ABOVE, passes(600, 200), LOCAL, ("fewer sampling.cohorts", "compare"), ("rollouts",)),
    Case("decode", G.DECODE_ABOVE, passes(200, 200), LOCAL, ("where its time should go",), ("sampling.",)),
    Case("decode", G.DECODE_ABOVE, waits("policy/decode"), LOCAL, ("where its time should go",), ("sampling.",)),
    Case(
        "decode", G.DECODE_ABOVE, passes(600, 200), LOCAL | {"sampling": {"cohorts": 1}},
        ("where its time should go",), ("sampling.",),
    ),
    Case(
        "decode", G.DECODE_ABOVE, requests(0.4, 0.1), RLLM | {"cluster": {"gpus_per_node": 8, "tensor_parallel": 2}},
        ("cluster.nodes", "cluster.gpus_per_node (now 8)", "less cluster.tensor_parallel (now 2)"), ("sampling.",),
    ),
    Case(
        "decode", G.DECODE_ABOVE, requests(0.1, 0.1),
        RLLM | {"cluster": {"nodes": 1, "gpus_per_node": 8, "tensor_parallel": 1}},
        ("more cluster.tensor_parallel (now 1)",), ("cluster.nodes",),
    ),
    Case("decode", G.DECODE_ABOVE, requests(0.1, 0.1), ONE_GPU, ("where its time should go",), ("cluster.",)),
    Case("decode", G.DECODE_ABOVE, waits("policy/request"), RLLM, ("where its time should go",), ("cluster.",)),
    Case("old log-probs", T.OLD_LOG_PROB_ABOVE, waits("old_log_prob"), LOCAL, ("trainer.micro_batch",)),
    Case("old log-probs", T.OLD_LOG_PROB_ABOVE, waits("ref_log_prob"), RLLM, ("cluster.tokens_per_gpu",)),
    Case("update", T.UPDATE_ABOVE, waits("update/backward"), LOCAL, ("trainer.micro_batch",), ("=false",)),
    Case(
        "update", T.UPDATE_ABOVE, waits("update/forward"), LOCAL | {"model": {"gradient_checkpointing": True}},
        ("model.gradient_checkpointing=false",),
    ),
    Case(
        "update", T.UPDATE_ABOVE, waits("update/forward"), RLLM | {"cluster": {"offload": True}},
        ("cluster.tokens_per_gpu", "cluster.offload=false"),
    ),
    Case("checkpoint", T.CHECKPOINT_ABOVE, waits("checkpoint"), LOCAL, ("raise trainer.save_every",)),
    Case(
        "evaluation", T.EVALUATION_ABOVE, waits("evaluation"), LOCAL,
        ("raise trainer.eval_every (now 1)", "lower trainer.eval_tasks"),
    ),
    Case("records", T.RECORD_ABOVE, waits("record"), LOCAL, ("computing metrics", "run_dir"), ("disk", "cluster.")),
    Case("records", T.RECORD_ABOVE, waits("record"), RLLM, ("cluster.logger",)),
    Case("weight sync", T.WEIGHT_SYNC_ABOVE, waits("weight_sync"), RLLM, ("cluster.mode=fully_async",)),
    Case("weight sync", T.WEIGHT_SYNC_ABOVE, waits("weight_sync"), ASYNC, ("cluster.trigger_step (now 2)",)),
    Case("aem", T.AEM_ABOVE, waits("aem"), LOCAL, ("unexpected", "aem.enabled=false")),
]  # fmt: skip


def advice_of(folder: Path, lines: list[Line], config: Mapping[str, Any] | None = None) -> tuple[Advice, ...]:
    write_spans(folder, lines)
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))
    profile = load_profile(folder)
    return advise(profile, measure_growth(profile))


def rules_of(folder: Path, lines: list[Line], config: Mapping[str, Any] | None = None) -> list[str]:
    return [one.rule for one in advice_of(folder, lines, config)]
