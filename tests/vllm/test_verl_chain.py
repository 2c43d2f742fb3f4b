"""verl's command with AEM, whole: its vLLM server plays real demo episodes, an FSDP2 worker learns, weights go back.

Two steps, then a third in a new process that resumes. Every batch is checked against the embedded engine, which scores
it with the weights that the rollout must have had: the shipped policy, then the checkpoint of the step before.
"""

import math
from pathlib import Path
from typing import Any  # a batch is tensors and labels

import pytest
import torch
import verl_chain as chain
from closed_profile import require_closed

from aem_swe.engines.local.model import LocalModel, Scores, load_model, score

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]  # warnings of libraries that we do not choose
EXACT = 1e-4
Batch = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    chain.write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def metrics(folder: Path) -> dict[int, dict[str, Any]]:
    """Per step: the first two in one process, the third in another."""
    first, second = chain.train(folder, steps=2), chain.train(folder, steps=3)
    assert [row["step"] for row in first] == [1, 2]
    assert [row["step"] for row in second] == [3], "it resumed"
    return {int(str(row["step"])): row for row in first + second}


@pytest.fixture(scope="module")
def batches(folder: Path, metrics: dict[int, dict[str, Any]]) -> dict[int, Batch]:
    return {step: torch.load(folder / "batches" / f"step_{step}.pt", weights_only=True) for step in metrics}


@pytest.fixture(scope="module")
def policies(folder: Path, batches: dict[int, Batch], shipped: LocalModel) -> dict[int, LocalModel]:
    """What each step must have sampled from, and as number 4 what is left at the end."""
    saved = {step + 1: folder / "checkpoints" / f"global_step_{step}" / "actor" / "huggingface" for step in batches}
    return {1: shipped} | {step: load_model(str(path), device="cpu") for step, path in saved.items()}


@torch.no_grad()
def scores(model: LocalModel, batch: Batch) -> Scores:
    """The embedded engine's log-probs and entropies, in the shape of verl's responses."""
    rows, width = batch["responses"].shape
    ids, mask = batch["input_ids"], batch["response_mask"].bool()
    logprobs, entropy = torch.zeros(rows, width), torch.zeros(rows, width)
    for row in range(rows):
        start = int((batch["attention_mask"][row] == 0).int().cumprod(0).sum())  # verl pads prompts on the left
        sampled = torch.cat([torch.zeros(ids.shape[1] - width, dtype=torch.bool), mask[row]])[start:]
        scored = score(model, ids[row, start:][None], sampled[None], temperature=1.0)
        logprobs[row, mask[row]] = scored.logprobs_BT[0][sampled]
        entropy[row, mask[row]] = scored.entropy_BT[0][sampled]
    return Scores(logprobs, entropy)


def furthest(one: torch.Tensor, other: torch.Tensor, batch: Batch) -> float:
    return float((one - other)[batch["response_mask"].bool()].abs().max())


def runs(mask: torch.Tensor) -> list[tuple[int, int]]:
    """[start, end) of the turns of a row, by walking along it."""
    found: list[tuple[int, int]] = []
    for place, own in enumerate(mask.tolist()):
        if own and found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        elif own:
            found.append((place, place + 1))
    return found


def expected_alpha(entropy: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Equations 13 to 15 with lambda 1, by plain loops."""
    alpha = torch.ones_like(entropy, dtype=torch.float64)
    for group in sorted(set(batch["group"])):
        rows = [row for row, name in enumerate(batch["group"]) if name == group]
        turns = [(row, start, end) for row in rows for start, end in runs(batch["response_mask"][row])]
        means = [float(entropy[row, start:end].double().mean()) for row, start, end in turns]
        low, high = min(means), max(means)
        weights = [math.exp(-(mean - low) / (high - low)) for mean in means]
        for (row, start, end), weight in zip(turns, weights, strict=True):
            alpha[row, start:end] = weight / (sum(weights) / len(weights))
    return alpha


def test_rollout_actor_and_embedded_engine_agree_on_every_row_of_every_step(
    batches: dict[int, Batch], policies: dict[int, LocalModel]
) -> None:
    for step, batch in batches.items():
        assert batch["responses"].shape[0] == chain.PROBLEMS * chain.ROLLOUTS
        assert batch["response_mask"].any(1).all()
        ours = scores(policies[step], batch).logprobs_BT
        assert furthest(batch["rollout_log_probs"], batch["old_log_probs"], batch) < EXACT
        assert furthest(batch["rollout_log_probs"], ours, batch) < EXACT
        if step > 1 and batches[step - 1]["advantages"].any():  # else nothing but weight decay moved the weights
            before = scores(policies[step - 1], batch).logprobs_BT
            assert furthest(batch["rollout_log_probs"], before, batch) > 100 * EXACT, "weights that were not synced"


def test_rows_are_whole_episodes_of_the_demo(batches: dict[int, Batch], shipped: LocalModel) -> None:
    turns = [len(runs(mask)) for batch in batches.values() for mask in batch["response_mask"]]
    assert max(turns) > 2
    for batch in batches.values():
        for row, mask in enumerate(batch["response_mask"]):
            kept = batch["attention_mask"][row].bool()
            text = shipped.chat.tokenizer.decode(batch["input_ids"][row][kept].tolist(), skip_special_tokens=False)
            assert text.count("<|im_start|>assistant") == len(runs(mask))
    rewards = torch.cat([batch["token_level_scores"].sum(1) for batch in batches.values()])
    assert set(rewards.tolist()) == {0.0, 1.0}


def test_advantages_are_leave_one_out_times_alpha(batches: dict[int, Batch], policies: dict[int, LocalModel]) -> None:
    moved = 0.0
    for step, batch in batches.items():
        reward = batch["token_level_scores"].sum(1).double()
        base = torch.zeros_like(reward)
        for row, group in enumerate(batch["group"]):
            others = [reward[at] for at, name in enumerate(batch["group"]) if name == group and at != row]
            base[row] = reward[row] - sum(others) / len(others)
        alpha = expected_alpha(scores(policies[step], batch).entropy_BT, batch)
        wanted = base[:, None] * alpha
        assert furthest(batch["advantages"].double(), wanted, batch) < EXACT
        moved = max(moved, furthest(base[:, None] * torch.ones_like(alpha), wanted, batch))
    assert moved > 0.1


def test_aem_is_logged(metrics: dict[int, dict[str, Any]], batches: dict[int, Batch]) -> None:
    for step, batch in batches.items():
        assert metrics[step]["aem/responses"] == sum(len(runs(mask)) for mask in batch["response_mask"])
        assert metrics[step]["aem/groups"] == chain.PROBLEMS
        assert metrics[step]["aem/borders_from_mask"] == 0, "the agent loop says where turns end"


def test_the_time_of_every_step_adds_up_under_our_names(folder: Path, metrics: dict[int, dict[str, Any]]) -> None:
    profile = require_closed(folder / "profile", sorted(metrics))
    for step in profile.steps:
        assert set(step.path_s) == {
            "start_profile", "batch", "generate", "reward", "old_log_prob", "advantage", "aem", "update/actor",
            "checkpoint", "weight_sync", "stop_profile", "record",
        }  # fmt: skip
        logged = {name.removeprefix("timing_s/"): value for name, value in metrics[step.step].items()}
        ours = {"gen": "rollout", "old_log_prob": "old_log_prob"}
        for timer, stage in ours.items():
            assert step.phases_s[stage] == pytest.approx(logged[timer], abs=0.02), "the same time as in verl's log"
        assert step.wall_s > logged["step"], "with what verl does after its own step"


def test_every_step_changes_the_weights_and_resuming_goes_on_with_the_data(
    batches: dict[int, Batch], policies: dict[int, LocalModel]
) -> None:
    assert sorted(policies) == [1, 2, 3, 4]
    for step in batches:
        before, after = (policies[at].parameters[0].detach() for at in (step, step + 1))
        assert float((before - after).abs().max()) > 1e-5
    seen = [set(batch["problem"]) for batch in batches.values()]
    assert [sorted(problems) for problems in seen] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
