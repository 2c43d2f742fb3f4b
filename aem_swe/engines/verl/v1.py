"""AEM for verl's V1 trainer (verl 0.9): importing this module registers the trainer mode `aem_sync`.

    python -m verl.trainer.main_ppo trainer.v1.trainer_mode=aem_sync +aem.lambda=1.0 ...

verl imports it by itself where aem_swe is installed (entry point `verl.plugins`), or with
VERL_USE_EXTERNAL_MODULES=aem_swe.engines.verl.v1.

V1 keeps every tensor of a step in its TransferQueue, entropies included; the advantages are read back from there,
rescaled and written again.

A session (one rollout) may have several outputs there, for example one per turn. Every output is a row with the
session's reward, and its responses are members of G like any others. But only `grpo` compares sessions: verl hands all
rows to its other estimators, so leave-one-out (`rloo`) and its relatives count every output as a rollout of its own,
and a session with more outputs pulls the baseline towards its reward. That is refused, with the remedy: `grpo` without
its division by the standard deviation is r - mean, leave-one-out times (n - 1) / n.
"""

from collections.abc import Sequence
from typing import Any, Final  # Any: verl has no types

import transfer_queue
from tensordict import TensorDict
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.workers.utils.padding import response_to_nested

from aem_swe.engines.verl.borders import FIELD, find_borders
from aem_swe.engines.verl.ray_trainer import require_entropies
from aem_swe.engines.verl.rescale import rescale
from aem_swe.engines.verl.settings import read_settings, require_trained_group
from aem_swe.engines.verl.timers import recorded, require_recordable
from aem_swe.errors import ConfigError
from aem_swe.profiling import span

MODE: Final = "aem_sync"
COMPARES_ROWS: Final = frozenset(
    {
        "gdpo", "gpg", "grpo_passk", "grpo_vectorized", "opo", "optimal_token_baseline", "reinforce_plus_plus_baseline",
        "rloo", "rloo_vectorized", "tir_optimal_token_baseline",
    }
)  # fmt: skip
"""verl's estimators whose baseline is a mean over the rows of a prompt."""


@register_trainer(MODE)
class AEMTrainerSync(PPOTrainerSync):  # type: ignore[misc]  # a class of verl's
    """PPOTrainerSync whose advantages are rescaled by AEM."""

    def __init__(self, config: Any) -> None:
        self._aem = read_settings(config)
        require_trained_group(self._aem)
        require_entropies(config, self._aem.enabled and self._aem.entropy_source == "policy")
        self._began = require_recordable(PPOTrainerSync, self._aem.profile)
        config.trainer.v1.trainer_mode = "sync"  # verl compares this text elsewhere (replay buffer, refill)
        super().__init__(config)

    def fit(self, *arguments: Any, **named: Any) -> None:
        with recorded(self, self._aem.profile, self._began):
            super().fit(*arguments, **named)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if not self._aem.enabled:
            return super()._compute_advantage(batch, metrics)
        real = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        require_one_output(real, self.config.algorithm.adv_estimator)
        entropy = "entropy" if self._aem.entropy_source == "policy" else "rollout_log_probs"
        # before the advantages, because verl's rejection of rollouts takes tokens out of the mask there
        with span("aem"):
            before = self._fetch(batch, ["response_mask", entropy, "uid", "extra_fields"])
        batch = super()._compute_advantage(batch, metrics)
        with span("aem"):
            return self._rescale(batch, before, entropy, metrics)

    def _rescale(self, batch: Any, before: Any, entropy: str, metrics: dict[str, Any]) -> Any:
        after = self._fetch(batch, ["response_mask", "advantages"])
        nested_mask = after["response_mask"]
        before, after = before.to_padded_tensor(), after.to_padded_tensor()
        extra_B = before.pop("extra_fields").tolist() if "extra_fields" in before else [None] * len(batch)
        lengths_B = [(extra or {}).get(FIELD) for extra in extra_B]
        ids_BT, exact = find_borders(before["response_mask"], lengths_B)
        entropy_BT = before[entropy].float() * (1 if entropy == "entropy" else -1)
        rescaled = rescale(
            after["advantages"], entropy_BT, after["response_mask"], before.pop("uid").tolist(), self._aem,
            response_id_BT=ids_BT, exact=exact,
        )  # fmt: skip
        metrics.update(rescaled.metrics)
        fields = TensorDict(
            {"advantages": response_to_nested(rescaled.advantages_BT, nested_mask)}, batch_size=len(batch)
        )
        return transfer_queue.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    @staticmethod
    def _fetch(batch: Any, fields: list[str]) -> Any:
        return transfer_queue.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)


def require_one_output(keys: Sequence[str], estimator: str) -> None:
    """Raise ConfigError where a session has several outputs and the estimator would count each of them.

    keys: verl's `{uid}_{session}_{output}`, one per row.
    """
    sessions = {key.rsplit("_", 1)[0] for key in keys}
    if len(sessions) < len(keys) and str(getattr(estimator, "value", estimator)) in COMPARES_ROWS:
        raise ConfigError(
            f"algorithm.adv_estimator={estimator} would compare {len(keys)} outputs of {len(sessions)} rollouts as if"
            " each was a rollout; use algorithm.adv_estimator=grpo algorithm.norm_adv_by_std_in_grpo=false"
        )
