"""The whole production chain: `aem-swe train` -> AgentTrainer -> Ray -> our backend -> FSDP2 worker -> verl's vLLM.

The shipped policy plays demo tasks in real sandboxes, through rLLM's gateway. One run loses its training worker after
two steps; a second one goes on from the last checkpoint. Needs rllm on the path, and vLLM's CPU build.
"""

import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import rllm_chain as chain
from closed_profile import require_closed

from aem_swe.engines.local.model import LocalModel, load_model
from aem_swe.engines.rllm.versions import INSTALL, folder_of

pytestmark = [
    pytest.mark.rllm,
    pytest.mark.skipif(not folder_of("rllm"), reason=f"needs rllm: {INSTALL}"),
    pytest.mark.skipif(not folder_of("vllm"), reason="needs vLLM: make test-rllm installs its CPU build"),
]
EXACT = 1e-4
EPISODES = 8


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """The run's folder, its exit code and its output, after its worker was killed."""
    run = tmp_path_factory.mktemp("rllm") / "run"
    kill = chain.kill_worker_after(run, 2)
    return run, *chain.train(run, "trainer.steps=50", "trainer.eval_every=0", "trainer.save_every=1", meddle=kill)


@pytest.fixture(scope="module")
def resumed(broken: tuple[Path, int, str]) -> tuple[Path, int]:
    """The same folder after another step or two, and the step that it went on from."""
    run, _, _ = broken
    last = int((run / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    words = (f"trainer.steps={last + 1}", "trainer.eval_every=0", "trainer.save_every=1", "--resume")
    shutil.copy(run / "spans.jsonl", run / "spans_before.jsonl")
    code, output = chain.train(run, *words)
    assert code == 0, output[-6000:]
    assert f"continuing after step {last}" in output
    return run, last


def test_a_worker_that_dies_fails_the_run_with_one_line_that_names_it(broken: tuple[Path, int, str]) -> None:
    _, code, output = broken
    assert code == 1, output[-6000:]
    (line,) = [line for line in output.splitlines() if line.startswith("aem-swe: ")]
    assert re.search(r"WorkerDict.*use --resume", line), line


def test_a_run_goes_on_from_its_last_checkpoint(resumed: tuple[Path, int]) -> None:
    run, last = resumed
    assert [row["step"] for row in chain.rows(run)] == list(range(1, last + 2))


def test_sampler_and_actor_agree_and_every_episode_has_one_reason(resumed: tuple[Path, int]) -> None:
    run, _ = resumed
    for row in chain.rows(run):
        assert 0 < row["rollout/logprob_difference_max"] < EXACT
        assert row["rollout/trajectories"] == EPISODES
        reasons = ("kept", "infrastructure_error", "max_steps", "token_budget", "timeout", "small_group")
        assert sum(row[f"filter/{name}"] for name in reasons) == EPISODES
        assert row["actor/global_batch_rollouts"] == EPISODES - row["filter/infrastructure_error"]
        assert row["aem/rows_by_mask"] == 0 and row["rollout/rows_with_sampled_pad"] == 0
        assert row["staleness/max"] == 0
        assert row["batch/steps_per_traj/max"] == 1, "every prompt begins with all ids before it: one row an episode"


def test_alpha_has_mean_one_over_the_trained_responses_of_a_prompt(resumed: tuple[Path, int]) -> None:
    run, last = resumed
    spread = 0.0
    for step in range(1, last + 2):
        groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for line in chain.rows(run, f"trajectories/step_{step:06d}.jsonl"):
            assert all(turn["tokens"] > 0 and turn["entropy"] is not None for turn in line["turns"])
            groups[line["group"]] += line["turns"] if line["verdict"] == "kept" else []
        for turns in filter(None, groups.values()):
            alphas = [turn["alpha"] for turn in turns]
            assert sum(alphas) / len(alphas) == pytest.approx(1.0, abs=1e-6)
            pairs = sorted((turn["entropy"], turn["alpha"]) for turn in turns)
            assert [alpha for _, alpha in pairs] == sorted(alphas, reverse=True), "the higher the entropy, the lower"
            spread = max(spread, max(alphas) - min(alphas))
    assert spread > 0.1


PLAYED = {
    "agent", "agent/queue", "agent/prepare", "agent/traces", "agent/hand_over", "collect", "policy/request", "diff",
    "sandbox/queue", "sandbox/create", "sandbox/start", "sandbox/prepare", "sandbox/close",
    "reward/start", "reward/tests", "tool/execute_bash", "tool/file_editor", "tool/search",
}  # fmt: skip
LEARNED = {"filter", "batch", "old_log_prob", "advantage", "aem", "update/actor", "weight_sync", "checkpoint", "record"}


def test_the_time_of_every_step_adds_up_under_our_names(resumed: tuple[Path, int]) -> None:
    run, last = resumed
    profile = require_closed(run, list(range(1, last + 2)))
    for step in profile.steps:
        assert LEARNED < set(step.path_s) <= LEARNED | PLAYED
        assert {"policy/request", "agent"} <= set(step.path_s)
        assert step.episodes == EPISODES and step.straggler is not None
        row = chain.rows(run)[step.step - 1]
        assert step.tokens == row["response/tokens"]
        assert step.phases_s["old_log_prob"] == pytest.approx(row["timing_s/old_log_probs"], abs=0.02)
        assert step.phases_s["update"] == pytest.approx(row["timing_s/update_actor"], abs=0.02)
        assert step.wall_s > row["timing_s/step"]
    assert profile.group_size == 4


def test_a_run_whose_worker_died_left_the_spans_of_all_its_steps(resumed: tuple[Path, int]) -> None:
    run, last = resumed
    before = [row for row in chain.rows(run, "spans_before.jsonl") if row["stage"] == "step"]
    assert [row["step"] for row in before][:last] == list(range(1, last + 1))
    assert not any(row.get("failed") for row in before[:last])


def test_its_checkpoint_is_a_model_of_the_embedded_engine(resumed: tuple[Path, int], shipped: LocalModel) -> None:
    run, last = resumed
    folder = run / "checkpoints" / f"global_step_{last + 1}" / "actor" / "huggingface"
    trained = load_model(str(folder), device="cpu")
    moved = [
        float((one - other).detach().abs().max())
        for one, other in zip(shipped.parameters, trained.parameters, strict=True)
    ]
    assert max(moved) > 1e-5
    assert trained.chat.end_id == shipped.chat.end_id
