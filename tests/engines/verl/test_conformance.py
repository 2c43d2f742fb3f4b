"""Every engine makes the same of the same trajectories: advantages, loss and gradient, to 1e-5.

The embedded engine, verl's RayPPOTrainer and verl's V1 trainer (0.9), with masked rows, dropped trajectories, touching
responses, two ranks, several micro-batches, and one growing row per trajectory or one row per turn. The old log-probs
are moved by the same noise everywhere, so ratios are not 1 and some are clipped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from verl_installed import VERL

from aem_swe.agents.chat import ChatFormat

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("default")]  # verl's and Ray's own warnings
if not VERL:
    pytest.skip("needs verl and Ray: make test-verl installs them", allow_module_level=True)
HAS_V1 = VERL >= "0.9"
ACTOR = "actor_rollout_ref.actor"
DUAL_CLIP_OFF = f"{ACTOR}.clip_ratio_c=1e9"


@dataclass(frozen=True)
class Case:
    """What differs between runs, in the words of a recipe and in verl's."""

    layout: str = "trajectory"
    advantage: str = "leave_one_out"
    loss: str = "ppo"
    aggregation: str = "seq-sum-over-budget"
    broken: tuple[int, ...] = ()

    @property
    def verl(self) -> list[str]:
        estimator = {"leave_one_out": "rloo", "mean_baseline": "grpo", "grpo": "grpo"}[self.advantage]
        mode = self.aggregation.replace("seq-sum-over-budget", "seq-mean-token-sum-norm")
        return [
            f"algorithm.adv_estimator={estimator}",
            f"algorithm.norm_adv_by_std_in_grpo={str(self.advantage == 'grpo').lower()}",
            f"{ACTOR}.policy_loss.loss_mode={'gspo' if self.loss == 'gspo' else 'vanilla'}",
            f"{ACTOR}.loss_agg_mode={mode}", f"{ACTOR}.clip_ratio_low=0.2", f"{ACTOR}.clip_ratio_high=0.28",
            DUAL_CLIP_OFF,
        ]  # fmt: skip


CASES = {
    "deepswe": Case(),
    "dropped": Case(broken=(2, 7)),
    "dapo": Case(advantage="grpo", aggregation="token-mean", broken=(4,)),
    "turns": Case(layout="turn", advantage="mean_baseline"),
    "grpo": Case(advantage="grpo", aggregation="seq-mean-token-mean"),
    "gspo, its own mean": Case(loss="gspo", advantage="grpo", aggregation="seq-mean-token-mean"),
    **({"gspo": Case(loss="gspo")} if VERL >= "0.9" else {}),  # 0.8 aggregates it in its own way, whatever is asked
    "turns, dropped": Case(layout="turn", advantage="mean_baseline", broken=(3,)),
}
ENGINES = ["ray", *(["v1"] if HAS_V1 else [])]


def local(model: Path, chat: ChatFormat, case: Case) -> Any:
    import conformance_scene as scene
    import torch
    from transformers import Qwen3ForCausalLM

    from aem_swe.engines.local.model import LocalModel
    from aem_swe.schema import Recipe

    network = Qwen3ForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()
    recipe = Recipe.model_validate(
        {
            "algorithm": {
                "advantage": case.advantage, "loss": case.loss, "aggregation": case.aggregation, "layout": case.layout,
                "clip_low": 0.2, "clip_high": 0.28,
            },
            "aem": {"enabled": True}, "agent": {"response_budget": scene.BUDGET}, "trainer": {"micro_batch": 3},
            "optimizer": {"grad_clip": 1e9},
        }
    )  # fmt: skip
    played = scene.trajectories(broken=case.broken)
    return scene.local_step(LocalModel(network, chat, torch.device("cpu")), played, recipe)


def run_ray(config: Any, workers: Any, rows: list[Any], multiple: int, case: Case) -> Any:
    """RayPPOTrainer. It knows no trajectory of several rows: there an estimator of one's own brings the advantages."""
    import conformance_scene as scene
    import verl_steps as steps
    from verl.trainer.ppo.ray_trainer import compute_advantage
    from verl.utils.metric import reduce_metrics

    steps.use_loss(workers, config)
    trainer = steps.ray_trainer(config, workers)
    batch = steps.old_pass(trainer, scene.padded(rows, multiple))
    batch.batch["old_log_probs"] += batch.batch.pop("noise")
    base = batch.batch.pop("base")
    batch = compute_advantage(
        batch, adv_estimator=config.algorithm.adv_estimator, num_repeat=4, config=config.algorithm,
        norm_adv_by_std_in_grpo=config.algorithm.norm_adv_by_std_in_grpo,
    )  # fmt: skip
    if case.layout == "turn":
        batch.batch["advantages"] = base
    metrics = reduce_metrics(trainer._update_actor(batch).meta_info["metrics"])
    numbers = batch.non_tensor_batch["row"].tolist()
    advantages = dict(zip(numbers, batch.batch["advantages"], strict=True))
    return steps.Step(advantages, {}, metrics, workers.read_gradients()[0])


def run_v1(config: Any, workers: Any, rows: list[Any]) -> Any:
    import conformance_scene as scene
    import verl_steps as steps

    return steps.v1_step(config, workers, steps.put(*scene.queued(rows)), noisy=True)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_every_engine_has_the_same_advantages_loss_and_gradient(
    workers: Any, model: Path, shipped: Any, name: str, engine: str, request: pytest.FixtureRequest
) -> None:
    import verl_scene

    from aem_swe.engines.verl.denominators import loss_scale_factor

    case = CASES[name]
    expected = local(model, shipped.chat, case)
    prompts = -(-len(expected.rows) // 4)  # of four rows each: one update for all of them
    prompts += prompts % 2  # whole micro-batches of two rows on each of two ranks
    factor = loss_scale_factor(37, trajectories=expected.counted, rows=4 * prompts)
    config = verl_scene.verl_config(
        model, "trainer.v1.trainer_mode=aem_sync" if engine == "v1" else "+aem.enabled=true", *case.verl,
        f"{ACTOR}.ppo_mini_batch_size={prompts}", f"{ACTOR}.loss_scale_factor={factor}",
    )  # fmt: skip
    if engine == "v1":
        request.getfixturevalue("queue")
        step = run_v1(config, workers, expected.rows)
    else:
        step = run_ray(config, workers, expected.rows, 4 * prompts, case)
    for number, row in enumerate(expected.rows):
        ours = row.advantages
        assert (step.advantages[number][: len(ours)] - ours).abs().max() < 1e-5
    assert len(step.gradients) == 1
    assert step.metrics["actor/pg_loss"] == pytest.approx(expected.loss, abs=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in expected.gradient.values())
    assert largest > 1e-3
    for weight, gradient in expected.gradient.items():
        assert (step.gradients[0][weight] - gradient).abs().max() < 1e-5
