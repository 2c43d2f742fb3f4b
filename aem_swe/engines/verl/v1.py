"""AEM for verl's V1 trainer (verl 0.9): importing this module registers the trainer mode `aem_sync`.

    python -m verl.trainer.main_ppo trainer.v1.trainer_mode=aem_sync +aem.lambda=1.0 ...

verl imports it by itself where aem_swe is installed (entry point `verl.plugins`), or with
VERL_USE_EXTERNAL_MODULES=aem_swe.engines.verl.v1.

V1 keeps every tensor of a step in its TransferQueue, entropies included; the advantages are read back from there,
rescaled and written again.
"""

from typing import Any  # verl has no types

import transfer_queue
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.workers.utils.padding import response_to_nested

from aem_swe.engines.verl.ray_trainer import require_entropies
from aem_swe.engines.verl.rescale import rescale
from aem_swe.engines.verl.settings import read_settings

MODE = "aem_sync"


@register_trainer(MODE)
class AEMTrainerSync(PPOTrainerSync):  # type: ignore[misc]  # a class of verl's
    """PPOTrainerSync whose advantages are rescaled by AEM."""

    def __init__(self, config: Any) -> None:
        self._aem = read_settings(config)
        require_entropies(config, self._aem.enabled and self._aem.entropy_source == "policy")
        config.trainer.v1.trainer_mode = "sync"  # verl compares this text elsewhere (replay buffer, refill)
        super().__init__(config)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch = super()._compute_advantage(batch, metrics)
        if not self._aem.enabled:
            return batch
        source = "entropy" if self._aem.entropy_source == "policy" else "rollout_log_probs"
        data = transfer_queue.kv_batch_get(
            keys=batch.keys,
            partition_id=batch.partition_id,
            select_fields=["uid", source, "advantages", "response_mask"],
        )
        nested_mask = data["response_mask"]
        padded = DataProto(batch=data.to_padded_tensor()).batch
        entropy_BT = padded["entropy"] if source == "entropy" else -padded["rollout_log_probs"]
        prompts = padded["uid"].tolist()
        rescaled = rescale(padded["advantages"], entropy_BT.float(), padded["response_mask"], prompts, self._aem)
        metrics.update(rescaled.metrics)
        fields = TensorDict(
            {"advantages": response_to_nested(rescaled.advantages_BT, nested_mask)}, batch_size=len(batch)
        )
        return transfer_queue.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
