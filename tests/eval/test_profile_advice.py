"""Advice about a recipe: every rule speaks above its threshold and is silent at it, and names keys that are read."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any  # a value of a recipe

import pytest
from advice_cases import CASES, LOCAL, LOCAL_DOCKER, WALL, Case, advice_of, rules_of, tail, waits
from command_line import REPOSITORY
from profile_spans import episode, one_step, span, write_spans
from pydantic import ValidationError

from aem_swe.eval.profile.advice import RULES, advise
from aem_swe.eval.profile.growth import measure_growth
from aem_swe.eval.profile.profile import load_profile
from aem_swe.schema import Recipe

STEP_S = 1 / 64
"""How far above its threshold a rule has to speak: a power of two, so that all sums are exact."""


def name_of(case: Case) -> str:
    return f"{case.rule}, {case.config['engine']}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_rule_speaks_above_its_threshold_and_is_silent_at_it(tmp_path: Path, case: Case) -> None:
    seconds = case.threshold * WALL
    assert rules_of(tmp_path / "at", case.lines(seconds - STEP_S), case.config) == []
    (one,) = advice_of(tmp_path / "above", case.lines(seconds + STEP_S), case.config)
    assert one.rule == case.rule
    assert all(part in one.says for part in case.says) and not any(part in one.says for part in case.not_said)
    assert f"{case.threshold:.1%} of the wall time" in one.figure


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES} == set(RULES)


def only_with(kinds: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The keys of the section sandbox that the schema's field docs say to be of some kinds alone, with these kinds."""
    (section,) = [
        node
        for node in ast.parse((REPOSITORY / "aem_swe" / "schema.py").read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "SandboxSection"
    ]
    found = {}
    for field, doc in zip(section.body, section.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            of = next((of for start, of in kinds.items() if str(doc.value.value).startswith(start)), None)
            found |= {f"sandbox.{field.target.id}": of} if of else {}
    return found


ONLY_WITH = only_with({"docker: ": ("docker",), "rllm: ": ("rllm", "r2egym")})


def changed(config: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    *sections, name = key.split(".")
    inner = {**(config.get(sections[0], {}) if sections else config), name: value}
    return {**config, sections[0]: inner} if sections else inner


def others(value: object) -> Iterator[object]:
    """What a key might be changed to."""
    if isinstance(value, int | float):
        yield from (2 * value, value // 2, value + 1)
    yield from (8192, 60.0, "docker", "daytona", ["unix:///run/engine"])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_key_that_is_named_can_be_changed_and_is_read_by_the_engine_and_the_sandboxes(
    tmp_path: Path, case: Case
) -> None:
    (one,) = advice_of(tmp_path, case.lines(case.threshold * WALL + STEP_S), case.config)
    recipe = Recipe.model_validate(case.config)
    for key, wanted in re.findall(r"((?:[a-z_]+\.)+[a-z_]+|\brun_dir\b)(?:=(\w+))?", one.says):
        now: object = recipe
        for part in key.split("."):
            now = getattr(now, part)  # fails for a key that is not there
        values = [not now] if wanted in ("true", "false") else [wanted] if wanted else list(others(now))
        assert any(accepts(changed(case.config, key, value)) for value in values if wanted or value != now), key
        assert not (key.startswith("cluster.") and recipe.engine == "local")  # where it would be accepted and ignored
        assert recipe.sandbox.kind in ONLY_WITH.get(key, (recipe.sandbox.kind,))


def accepts(config: Mapping[str, Any]) -> bool:
    try:
        Recipe.model_validate(config)
    except ValidationError:
        return False
    return True


def test_a_key_that_the_engine_or_the_sandboxes_would_not_read_is_found_out() -> None:
    cluster: dict[str, Any] = {"engine": "rllm"}
    assert not any(accepts(changed(cluster, "sandbox.workers", value)) for value in (2, 8))
    assert ONLY_WITH["sandbox.warm"] == ONLY_WITH["sandbox.starts"] == ONLY_WITH["sandbox.cpus"] == ("docker",)
    assert ONLY_WITH["sandbox.backend"] == ("rllm", "r2egym") and "sandbox.workers" not in ONLY_WITH


def test_a_share_below_the_residual_says_nothing(tmp_path: Path) -> None:
    lines = [span("aem", 0.0, 1.0), span("agent", 1.0, 97.5)]
    assert rules_of(tmp_path / "below", one_step(1, 100.0, *lines), LOCAL) == []  # 1% of aem, 1.5% of nothing
    assert rules_of(tmp_path / "above", one_step(1, 99.0, *lines), LOCAL) == ["aem"]


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


def test_a_tools_time_limit_is_named_only_where_a_call_came_near_it(tmp_path: Path) -> None:
    limited = LOCAL | {"sandbox": {"kind": "local", "command_timeout_s": 10.0}}
    for name, seconds, named in (("far", 4.0, False), ("near", 8.0, True)):
        lines = one_step(1, 20.0, span("tool/bash", 0.0, seconds), span("agent", seconds, 20.0 - seconds))
        (one,) = advice_of(tmp_path / name, lines, limited)
        assert ("sandbox.command_timeout_s (now 10.0)" in one.says) is named


def test_the_largest_tool_alone_is_named(tmp_path: Path) -> None:
    lines = one_step(1, 100.0, span("tool/find", 0.0, 10.0), span("tool/bash", 10.0, 20.0), span("agent", 30.0, 70.0))
    (one,) = advice_of(tmp_path, lines, LOCAL)
    assert one.figure.startswith("tool/bash: 20.0%") and "tool/find" not in one.says


def test_decoding_is_told_with_its_growth(tmp_path: Path) -> None:
    lines = one_step(
        1, 100.0,
        span("policy/decode", 0.0, 40.0, rows=4), span("policy/decode", 40.0, 40.0, rows=8), span("agent", 80.0, 20.0),
        *episode("0/0", span("policy/decode", 0.0, 2.0, turn=0, tokens=4, latency=True)),
        *episode("0/1", span("policy/decode", 0.0, 8.0, turn=0, tokens=64, latency=True)),
    )  # fmt: skip
    found = {one.rule: one.figure for one in advice_of(tmp_path, lines, LOCAL)}
    assert "500 ms a token in turns of 4 to 7 tokens; 125 ms a token in turns of 64 to 127 tokens" in found["decode"]


def test_passes_of_many_and_of_few_rows_are_compared_by_tokens_a_second_without_the_evaluations(tmp_path: Path) -> None:
    passes = [
        span("policy/decode", 8.0 * n, 8.0, rows=16 if n % 2 else 8, tokens=800 if n % 2 else 80) for n in range(6)
    ]
    held_out = [span("policy/decode", 60.0 + n, 1.0, rows=16, tokens=9000, phase="evaluation") for n in range(4)]
    lines = one_step(1, 64.0, *passes, span("evaluation", 60.0, 4.0, phase="evaluation"), *held_out,
                     span("agent", 48.0, 12.0))  # fmt: skip
    (one,) = advice_of(tmp_path, lines, LOCAL)
    assert "100 tokens a second in passes of more than 8 rows, 10 in the others (step 1)" in one.figure


def test_the_first_prompts_are_no_reason_to_let_tools_say_less(tmp_path: Path) -> None:
    def lines(turn: int) -> Any:
        theirs = episode("0/0", span("policy/prefill", 0.0, 8.0, turn=turn, latency=True))
        return one_step(1, 20.0, span("policy/prefill", 0.0, 8.0, rows=1), *theirs, span("agent", 8.0, 12.0))

    assert rules_of(tmp_path / "first", lines(0), LOCAL) == []
    (one,) = advice_of(tmp_path / "second", lines(1), LOCAL)
    assert one.figure.startswith("policy/prefill after the first turn: 40.0% of the wall time, 8.00 s a step")


def test_the_tests_that_took_longest_are_told_by_their_task(tmp_path: Path) -> None:
    lines = episode("0/0", span("reward/tests", 0.0, 8.0), task="quick") + episode(
        "0/1", span("reward/tests", 0.0, 10.0), task="slow"
    )
    own = [span("wait", 0.0, 10.0, waits_for="0/1"), span("agent", 10.0, 10.0)]
    (one,) = advice_of(tmp_path, one_step(1, 20.0, *lines, *own), LOCAL_DOCKER)
    assert one.figure.endswith("the longest tests, of slow: 10.0 s (step 1)")


def test_images_that_are_set_up_in_the_first_step_are_no_matter(tmp_path: Path) -> None:
    first = one_step(1, 20.0, span("sandbox/image", 0.0, 15.0), span("agent", 15.0, 5.0))
    second = one_step(2, 20.0, span("agent", 0.0, 10.0), span("agent", 10.0, 10.0), start=20.0)
    assert rules_of(tmp_path / "one", first, LOCAL_DOCKER) == []
    assert rules_of(tmp_path / "two", first + second, LOCAL_DOCKER) == []


def test_no_limit_of_an_episode_is_named_for_a_slow_reward(tmp_path: Path) -> None:
    assert rules_of(tmp_path / "play", tail(400.0), LOCAL) == ["stragglers"]
    assert rules_of(tmp_path / "reward", tail(400.0, stage="reward/tests"), LOCAL) == []


def test_fewer_than_ten_episodes_have_no_tail(tmp_path: Path) -> None:
    assert rules_of(tmp_path / "nine", tail(400.0, episodes=9), LOCAL) == []
    assert rules_of(tmp_path / "ten", tail(400.0, episodes=10), LOCAL) == ["stragglers"]


def test_stragglers_are_told_with_what_the_slowest_of_so_many_takes(tmp_path: Path) -> None:
    (one,) = advice_of(tmp_path, tail(200.0), LOCAL)
    assert one.figure.endswith("an episode takes 520 s on average, the slowest of 10 takes 700 s")


def test_a_micro_batch_that_takes_all_rows_need_not_be_larger(tmp_path: Path) -> None:
    for stage in ("old_log_prob", "update/forward"):
        for size, rules in ((8, 1), (32, 0)):
            config = LOCAL | {
                "sampling": {"prompts": 4, "rollouts": 8}, "trainer": {"micro_batch": size, "minibatches": 1},
            }  # fmt: skip
            assert len(rules_of(tmp_path / f"{stage}{size}", waits(stage)(WALL / 2), config)) == rules
            config |= {"algorithm": {"layout": "turn"}}  # then there are more rows than episodes
            assert len(rules_of(tmp_path / f"{stage}{size}", waits(stage)(WALL / 2), config)) == 1


def test_the_residual_comes_first_and_then_the_largest_share(tmp_path: Path) -> None:
    lines = one_step(
        1, 100.0, span("record", 0.0, 6.0), span("checkpoint", 6.0, 30.0), span("evaluation", 36.0, 40.0),
        span("agent", 76.0, 20.0),
    )  # fmt: skip
    assert rules_of(tmp_path, lines, LOCAL) == ["residual", "evaluation", "checkpoint", "records"]


def test_nothing_stands_out_where_nothing_does(tmp_path: Path) -> None:
    lines = one_step(1, 100.0, span("agent", 0.0, 50.0), span("agent", 50.0, 50.0))
    assert advice_of(tmp_path, lines, LOCAL) == ()
    assert advice_of(tmp_path / "empty", one_step(1, 0.0), LOCAL) == ()


@pytest.mark.parametrize("config", ["", "[1, 2]", "{", "engine: 7\nsandbox: text", "engine: {a: b}", "\x00"])
def test_without_a_recipe_that_can_be_read_the_spans_tell_the_engine(tmp_path: Path, config: str) -> None:
    for stage, key in (("policy/decode", "trainer.micro_batch"), ("policy/request", "cluster.tokens_per_gpu")):
        lines = one_step(1, 10.0, span(stage, 0.0, 1.0), span("old_log_prob", 1.0, 9.0))
        folder = write_spans(tmp_path / key, lines)
        (folder / "config.yaml").write_text(config)
        profile = load_profile(folder)
        (one,) = advise(profile, measure_growth(profile))
        assert key in one.says and "(now" not in one.says


def test_what_a_recipe_or_a_tool_is_called_stays_one_printable_line(tmp_path: Path) -> None:
    attack = "x\x1b[31m\n\u202e" * 100
    config = LOCAL | {"sandbox": {"kind": "local", "command_timeout_s": attack}}
    (one,) = advice_of(tmp_path, waits(f"tool/{attack}")(WALL / 2), config)
    assert one.says.isprintable() and one.figure.isprintable() and len(one.says + one.figure) < 800
