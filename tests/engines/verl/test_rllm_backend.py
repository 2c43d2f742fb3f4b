"""rLLM's backend with AEM on two real verl workers: the same advantages, loss and gradient as the embedded engine's.

The trajectories of the conformance test, in synchronous and in fully asynchronous order. Needs rllm on the path.
"""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aem_swe.config import validate_recipe
from aem_swe.engines.rllm.versions import INSTALL, folder_of

pytestmark = [pytest.mark.rllm, pytest.mark.filterwarnings("default")]
if not (folder_of("rllm") and folder_of("verl")):
    pytest.skip(f"needs rllm: {INSTALL}", allow_module_level=True)
CASES = {
    "masked": {},
    "dropped": {"broken": (2, 7)},
    "dapo": {"broken": (4,), "advantage": "grpo", "aggregation": "token-mean"},
    "grpo": {"advantage": "grpo", "aggregation": "seq-mean-token-mean"},
    "gspo": {"advantage": "grpo", "aggregation": "seq-mean-token-mean", "loss": "gspo", "broken": (4,)},
    "turns": {"split": True, "advantage": "mean_baseline"},
    "all": {"group": "all"},
    "drop": {"filter": "drop"},
}


@pytest.fixture(scope="module")
def rllm_workers(cluster: None, model: Path) -> Any:
    """Two ranks with dynamic batches: rLLM's padding knows nothing of fixed micro-batches."""
    import verl_scene as scene

    config = scene.verl_config(
        model, "actor_rollout_ref.actor.use_dynamic_bsz=True",
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=40",
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
        "actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=40",
    )  # fmt: skip
    return scene.make_workers(config)


def recipe_of(model: Path, tmp_path: Path, case: dict[str, Any]) -> Any:
    import conformance_scene as scene

    algorithm = {key: case[key] for key in ("advantage", "aggregation", "loss") if key in case}
    return validate_recipe(
        {
            "engine": "rllm",
            "run_dir": str(tmp_path),
            "model": {"path": str(model)},
            "agent": {"response_budget": scene.BUDGET},
            "sampling": {"prompts": 2, "rollouts": scene.ROLLOUTS},
            "algorithm": {"clip_low": 0.2, "clip_high": 0.28, "filter": case.get("filter", "mask"), **algorithm},
            "aem": {"enabled": True, "group": case.get("group", "trained")},
            "optimizer": {"grad_clip": 1e9},
            "cluster": {"gpus_per_node": 2, "max_prompt_tokens": 24, "verl": {"trainer.device": "cpu"}},
        }
    )


def forgetful(trajectory: Any) -> Any:
    """The same with prompts that each begin a token later than the one before: none grows out of another."""
    turns = [replace(turn, prompt_ids=turn.prompt_ids[number:]) for number, turn in enumerate(trajectory.turns)]
    return replace(trajectory, turns=tuple(turns))


def steps_of(trajectory: Any) -> list[Any]:
    from rllm.engine.rollout import ModelOutput
    from rllm.types import Step

    return [
        Step(
            model_output=ModelOutput(
                prompt_ids=list(turn.prompt_ids),
                completion_ids=list(turn.response_ids),
                logprobs=[0.0] * len(turn.response_ids),
                weight_version=0,
            )
        )
        for turn in trajectory.turns
    ]


def episodes_of(played: list[Any], mode: str) -> list[Any]:
    from rllm.types import Episode, Trajectory

    from aem_swe.engines.rllm.backend import MASKED
    from aem_swe.engines.rllm.flow import REASONS

    return [
        Episode(
            id=f"task{one.group}:{one.rollout}",
            task={},
            termination_reason=REASONS[one.termination],
            trajectories=[
                Trajectory(
                    name="swe",
                    steps=steps_of(one),
                    reward=one.reward or 0.0,
                    metadata={MASKED: mode == "mask" and str(one.termination) in ("max_steps", "token_budget")},
                )
            ],
        )
        for one in played
    ]


def backend_of(config: Any, workers: Any, tokenizer: Any, advantage: str) -> Any:
    """AEMVerlBackend with workers that run already, and no rollout."""
    from rllm.trainer.algorithms.config import AlgorithmConfig
    from rllm.trainer.verl.verl_backend import CustomPPOLoss

    from aem_swe.engines.rllm.backend import AEMVerlBackend
    from aem_swe.engines.rllm.estimators import estimator_of

    backend = AEMVerlBackend(config, tokenizer, {}, None)
    backend.actor_rollout_wg = workers
    backend.rollout_engine = SimpleNamespace(tokenizer=tokenizer, processor=None)
    backend.algorithm_config = AlgorithmConfig.from_config(
        config.rllm.algorithm, stepwise_advantage_mode="broadcast", estimator_map=estimator_of(advantage)
    )
    workers.set_loss_fn(CustomPPOLoss(config.actor_rollout_ref.actor))
    workers.watch(freeze=True)
    return backend


def one_step(
    backend: Any, config: Any, episodes: list[Any], noise: dict[tuple[str, int], Any], asynchronous: bool
) -> Any:
    """What rLLM's trainer does between rollout and logging, in either order of its hooks."""
    from rllm.trainer.algorithms.advantage import collect_reward_and_advantage_from_trajectory_groups
    from rllm.trainer.algorithms.config import CompactFilteringConfig, RejectionSamplingConfig, TransformConfig
    from rllm.trainer.algorithms.rejection_sampling import apply_rejection_sampling_and_filtering
    from rllm.trainer.algorithms.transform import transform_episodes_to_trajectory_groups
    from rllm.trainer.unified_trainer import TrainerState

    state = TrainerState(global_step=1)
    transform = TransformConfig.from_config(config.rllm.get("transform", {}), broadcast=True)
    compact = CompactFilteringConfig.from_config(config.rllm.compact_filtering)
    groups, _ = transform_episodes_to_trajectory_groups(episodes, transform, compact)
    chosen = RejectionSamplingConfig.from_config(config.rllm.rejection_sample)
    groups, episodes, _ = apply_rejection_sampling_and_filtering(episodes, groups, chosen, state.rs_state)
    state.trajectory_groups = groups
    if asynchronous:
        collect_reward_and_advantage_from_trajectory_groups(groups, backend.algorithm_config)
    else:
        state.episodes = episodes

    async def run() -> None:
        state.backend_batch = backend.transform_to_backend_batch(state)
        await backend.process_backend_batch(state)
        batch = state.backend_batch
        seen: dict[str, int] = {}
        origin = sorted(
            range(len(batch.non_tensor_batch["aem_row"])), key=lambda i: batch.non_tensor_batch["aem_row"][i]
        )
        for place in origin:
            if batch.non_tensor_batch["is_pad_step"][place]:
                continue
            uid = str(batch.non_tensor_batch["step_ids"][place])
            number = seen[uid] = seen.get(uid, -1) + 1
            moved = noise.get((uid, number))
            if moved is not None:
                batch.batch["old_log_probs"][place, : len(moved)] += moved
        if not asynchronous:
            await backend.compute_advantages(state, backend.algorithm_config)
        await backend.update_policy(state)

    asyncio.run(run())
    return state


@pytest.mark.parametrize("order", ["sync", "async"])
@pytest.mark.parametrize("name", CASES)
def test_rllm_has_the_same_advantages_loss_and_gradient(
    rllm_workers: Any, model: Path, shipped: Any, tmp_path: Path, name: str, order: str
) -> None:
    import conformance_scene as scene
    import torch
    from transformers import AutoTokenizer, Qwen3ForCausalLM

    from aem_swe.engines.local.model import LocalModel
    from aem_swe.engines.rllm.settings import cluster_config

    case = CASES[name]
    recipe = recipe_of(model, tmp_path, case)
    played = scene.trajectories(broken=case.get("broken", ()))
    split = recipe
    if case.get("split"):
        played = [forgetful(one) for one in played]
        split = recipe.model_copy(update={"algorithm": recipe.algorithm.model_copy(update={"layout": "turn"})})
    network = Qwen3ForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()
    expected = scene.local_step(LocalModel(network, shipped.chat, torch.device("cpu")), played, split)
    config = cluster_config(recipe)
    backend = backend_of(config, rllm_workers, AutoTokenizer.from_pretrained(model), recipe.algorithm.advantage)
    episodes = episodes_of(played, recipe.algorithm.filter)
    uids = [episode.trajectories[0].uid for episode in episodes]
    noise = {(uids[row.trajectory], row.output): row.noise for row in expected.rows}
    state = one_step(backend, config, episodes, noise, order == "async")
    batch = state.backend_batch
    found: dict[tuple[str, int], Any] = {}
    for place in torch.as_tensor(batch.non_tensor_batch["aem_row"].astype(int)).argsort().tolist():
        if not batch.non_tensor_batch["is_pad_step"][place]:
            uid = str(batch.non_tensor_batch["step_ids"][place])
            found[uid, sum(1 for other, _ in found if other == uid)] = batch.batch["advantages"][place]
    for row in expected.rows:
        ours = found[uids[row.trajectory], row.output]
        assert (ours[: len(row.advantages)] - row.advantages).abs().max() < 1e-5
        assert not ours[len(row.advantages) :].any()
    assert state.metrics["actor/pg_loss"] == pytest.approx(expected.loss, abs=1e-5)
    assert state.metrics["aem/rows_by_mask"] == 0
    gradients = rllm_workers.read_gradients()[0]
    assert len(gradients) == 1
    assert max(float(gradient.abs().max()) for gradient in expected.gradient.values()) > 1e-3
    for weight, gradient in expected.gradient.items():
        assert (gradients[0][weight] - gradient).abs().max() < 1e-5


@pytest.mark.parametrize("order", ["sync", "async"])
def test_the_stages_of_the_backend_are_spans(rllm_workers: Any, model: Path, tmp_path: Path, order: str) -> None:
    import conformance_scene as scene
    from transformers import AutoTokenizer

    from aem_swe.engines.rllm.settings import cluster_config
    from aem_swe.profiling import recording, span

    config = cluster_config(recipe_of(model, tmp_path, {}))
    backend = backend_of(config, rllm_workers, AutoTokenizer.from_pretrained(model), "leave_one_out")
    with recording(tmp_path / "spans.jsonl"), span("step", step=1):
        state = one_step(backend, config, episodes_of(scene.trajectories(), "mask"), {}, order == "async")
    spans = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]
    names = {one["id"]: one["stage"] for one in spans}
    inside = [(one["stage"], names.get(one["parent"], "")) for one in spans]
    passes = [("batch", "step"), ("old_log_prob", "batch"), ("filter", "batch"), ("aem", "batch")]
    behind = [("aem", "batch"), ("batch", "step")] if order == "async" else [
        ("batch", "step"), ("advantage", "step"), ("aem", "step")
    ]  # fmt: skip
    assert inside == [*passes, *behind, ("update/actor", "update"), ("update", "step"), ("step", "")]
    seconds = {one["stage"]: one["seconds"] for one in spans}
    assert seconds["update/actor"] == pytest.approx(state.timing_dict["update_actor"], abs=0.01)


def test_surprisal_stands_in_where_there_is_no_pass(rllm_workers: Any, model: Path, tmp_path: Path) -> None:
    """bypass_mode, as a recipe says it: alpha from minus the rollout's log-probs, by plain loops."""
    import conformance_scene as scene
    from transformers import AutoTokenizer

    from aem_swe.engines.rllm.settings import cluster_config

    values = recipe_of(model, tmp_path, {}).model_dump(by_alias=True)
    values["aem"]["entropy_source"] = "surprisal"
    values["cluster"]["recompute_old_logprobs"] = False
    config = cluster_config(validate_recipe(values))
    backend = backend_of(config, rllm_workers, AutoTokenizer.from_pretrained(model), "leave_one_out")
    episodes = episodes_of(scene.trajectories(), "off")
    surprisal: dict[int, list[float]] = {}
    for number, episode in enumerate(episodes):
        for turn, step in enumerate(episode.trajectories[0].steps):
            step.model_output.logprobs = [-0.1 * (number + 1) - turn] * len(step.model_output.completion_ids)
            surprisal.setdefault(number // scene.ROLLOUTS, []).append(0.1 * (number + 1) + turn)
    state = one_step(backend, config, episodes, {}, asynchronous=False)
    found = sorted(backend.modulation.alpha_R.tolist())
    expected = []
    for values_of_group in surprisal.values():
        low, high = min(values_of_group), max(values_of_group)
        weights = [math.exp(-(value - low) / (high - low)) for value in values_of_group]
        expected += [weight * len(weights) / sum(weights) for weight in weights]
    assert found == pytest.approx(sorted(expected), abs=1e-5)
    assert max(found) - min(found) > 0.5 and state.metrics["aem/responses"] == len(expected)


def test_a_step_whose_episodes_are_all_masked_trains_nothing_and_goes_on(
    rllm_workers: Any, model: Path, tmp_path: Path
) -> None:
    import conformance_scene as scene
    from transformers import AutoTokenizer

    from aem_swe.engines.rllm.settings import cluster_config
    from aem_swe.types import Termination

    recipe = recipe_of(model, tmp_path, {})
    played = [replace(one, termination=Termination.MAX_STEPS, reward=0.0) for one in scene.trajectories()]
    config = cluster_config(recipe)
    backend = backend_of(config, rllm_workers, AutoTokenizer.from_pretrained(model), "leave_one_out")
    state = one_step(backend, config, episodes_of(played, "mask"), {}, asynchronous=False)
    assert state.metrics["actor/skipped_updates"] == 1
    assert rllm_workers.read_gradients()[0] == []
    assert not state.has_backend_batch, "rLLM's and verl's metrics of a batch have no answer to an empty one"


def test_the_block_in_the_document_trains_with_our_backend() -> None:
    """What rLLM would start: its own runner outside, ours inside."""
    from rllm.trainer.verl import verl_launcher
    from test_docs import snippet

    seen: list[object] = []

    class Trainer:
        def __init__(self, **named: object) -> None:
            assert named == {"config": "c", "backend": "verl", "agent_flow": "f"}

        def train(self) -> None:
            seen.append(verl_launcher.VerlTaskRunner)

    names: dict[str, Any] = {}
    exec(snippet("rLLM with the verl backend"), names)
    names["AgentTrainer"] = Trainer
    original = verl_launcher.VerlTaskRunner
    names["train"]("c", agent_flow="f")
    (used,) = seen
    assert used is not original and verl_launcher.VerlTaskRunner is original
    assert used.__ray_metadata__.class_name == "AEMTaskRunner"
    runner = used.__ray_metadata__.modified_class.__ray_actor_class__
    (changed,) = [cell.cell_contents for cell in runner.run.__closure__ if hasattr(cell.cell_contents, "__globals__")]
    assert changed.__globals__["VerlBackend"].__name__ == "AEMVerlBackend"
