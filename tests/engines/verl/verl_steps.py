"""What verl's two trainers do between rollout and logging, with their own methods: no data, logging or rollout."""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from tensordict import TensorDict
from verl_scene import PROMPT, make_batch


@dataclass
class Step:
    """One step of a trainer."""

    advantages: dict[int, torch.Tensor]
    """By row of the scene; the response tokens that verl keeps of it."""
    base: dict[int, torch.Tensor]
    """The same before AEM; RayPPOTrainer only."""
    metrics: dict[str, float]
    """As verl logs them."""
    gradients: list[dict[str, torch.Tensor]]
    """One per update, by weight."""


def loss_of(config: Any) -> Any:
    """The loss that a configuration says, as new workers would have it."""
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    return partial(ppo_loss, config=omega_conf_to_dataclass(config.actor_rollout_ref.actor))


def use_loss(workers: Any, config: Any) -> None:
    """Let running workers minimise what a configuration says."""
    workers.set_loss_fn(loss_of(config))
    workers.watch(freeze=True)


def ray_trainer(config: Any, workers: Any, *, aem: bool = True) -> Any:
    """RayPPOTrainer without its data loaders and its rollout."""
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    from aem_swe.engines.verl.ray_trainer import with_aem
    from aem_swe.engines.verl.settings import read_settings

    trainer = object.__new__(with_aem(RayPPOTrainer) if aem else RayPPOTrainer)
    trainer.config, trainer.actor_rollout_wg, trainer._aem = config, workers, read_settings(config)
    return trainer


def old_pass(trainer: Any, batch: Any) -> Any:
    """Balance the batch over the ranks and recompute its log-probs, as fit() does."""
    trainer._balance_batch(batch, metrics={})
    old, _ = trainer._compute_old_log_prob(batch)
    old.batch.pop("entropys")
    return batch.union(old)


def ray_step(config: Any, workers: Any, *, aem: bool = True, batch: Any = None) -> Step:
    """The step of RayPPOTrainer.fit()."""
    from verl.trainer.ppo.ray_trainer import compute_advantage
    from verl.utils.metric import reduce_metrics

    use_loss(workers, config)
    trainer = ray_trainer(config, workers, aem=aem)
    batch = old_pass(trainer, make_batch() if batch is None else batch)
    algorithm = config.algorithm
    batch = compute_advantage(
        batch, adv_estimator=algorithm.adv_estimator, num_repeat=4, config=algorithm,
        norm_adv_by_std_in_grpo=algorithm.norm_adv_by_std_in_grpo,
    )  # fmt: skip
    rows = batch.non_tensor_batch["row"].tolist()
    base = dict(zip(rows, batch.batch["advantages"].clone(), strict=True))
    output = trainer._update_actor(batch)
    advantages = dict(zip(rows, batch.batch["advantages"], strict=True))
    assert torch.equal(batch.batch["returns"], torch.stack([base[row] for row in rows]))
    return Step(advantages, base, reduce_metrics(output.meta_info["metrics"]), workers.read_gradients()[0])


def put(keys: list[str], rows: list[dict[str, Any]]) -> Any:
    """Put rows into the TransferQueue as verl's agent loops do; returns their meta data.

    keys: `{uid}_{session}_{output}`. A row has prompts, responses, response_mask, rm_scores, uid and row at least.
    """
    import transfer_queue
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    tags, fields = [], []
    for row in rows:
        ids = torch.cat([row["prompts"], row["responses"]])
        lengths = {"prompt_len": len(row["prompts"]), "response_len": len(row["responses"]), "seq_len": len(ids)}
        tags.append(lengths | {"min_global_steps": 1, "max_global_steps": 1})
        made = {"input_ids": ids, "position_ids": torch.arange(len(ids)), "loss_mask": row["response_mask"]}
        made["rollout_log_probs"] = torch.linspace(-4, -2, len(row["responses"]))  # another engine's, far off
        fields.append(row | made | {"num_turns": 2, "multi_modal_inputs": {}})
    together = list_of_dict_to_tensordict(fields)
    return transfer_queue.kv_batch_put(keys=keys, partition_id="train", fields=together, tags=tags)


def scene_rows(rows: list[int]) -> tuple[list[str], list[dict[str, Any]]]:
    """Keys and fields of the scene's batch, without its padding."""
    batch = make_batch()
    keys, fields = [], []
    for row in rows:
        tensors, others = batch.batch[row], batch.non_tensor_batch
        kept = tensors["attention_mask"].bool()
        prompt, width = tensors["prompts"][kept[:PROMPT]], int(kept[PROMPT:].sum())
        mask = tensors["response_mask"][:width]
        keys.append(f"{others['uid'][row]}_{row}_0")
        fields.append(
            {
                "prompts": prompt,
                "responses": tensors["responses"][:width],
                "response_mask": mask,
                "rm_scores": tensors["token_level_rewards"][:width],
                "uid": others["uid"][row],
                "row": row,
                "extra_fields": {"turn_lengths": others["turn_lengths"][row]},
            }
        )
    return keys, fields


def add_noise(keys: list[str]) -> None:
    """Move the old log-probs by the field `noise`, so the update sees ratios."""
    import transfer_queue

    data = transfer_queue.kv_batch_get(keys=keys, partition_id="train", select_fields=["old_log_probs", "noise"])
    pairs = zip(data["old_log_probs"], data["noise"], strict=True)
    moved = torch.nested.as_nested_tensor([old + noise for old, noise in pairs], layout=torch.jagged)
    fields = TensorDict({"old_log_probs": moved}, batch_size=len(keys))
    transfer_queue.kv_batch_put(keys=keys, partition_id="train", fields=fields)


def v1_step(config: Any, workers: Any, batch: Any, *, noisy: bool = False) -> Step:
    """The step of a V1 trainer, `_step_once` from the balancing on; `batch` is in the TransferQueue already."""
    import transfer_queue
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.utils import MetricsAggregator

    use_loss(workers, config)
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config)
    trainer.actor_rollout_wg, trainer.global_steps = workers, 1
    trainer.tokenizer = SimpleNamespace(eos_token_id=2)
    metrics: dict[str, Any] = {}
    batch = trainer._balance_batch(batch, metrics)
    try:
        batch = trainer._compute_old_log_prob(batch, metrics)
        if noisy:
            add_noise([key for key in batch.keys if not key.startswith("pad")])
        batch = trainer._compute_advantage(batch, metrics)
        batch = trainer._update_actor(batch, metrics)
        data = transfer_queue.kv_batch_get(batch.keys, "train", select_fields=["row", "advantages"])
    finally:
        transfer_queue.kv_clear(keys=batch.keys, partition_id="train")
    rows = zip(batch.keys, data.pop("row").tolist(), data["advantages"], strict=True)
    advantages = {int(row): values for key, row, values in rows if not key.startswith("pad")}
    logged = MetricsAggregator()
    logged.add_step_metrics(metrics)
    return Step(advantages, {}, logged.get_aggregated_metrics(), workers.read_gradients()[0])
