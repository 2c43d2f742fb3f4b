"""rLLM's verl backend with AEM: the entropies of the old-log-prob pass reach the advantages.

rLLM throws the entropies away before it computes advantages, and re-orders, pads and drops rows in between. So every
row gets a number when the batch is made, the pass is listened to, and the entropies are put back in line by number.

    synchronous      transform -> process (old log-probs) -> compute_advantages, then AEM -> update
    fully async      transform (advantages included) -> process, then AEM -> update

What else differs from rLLM's own backend, for the rows of every trajectory:
- The filter `mask` (DeepSWE): the loss mask is zeroed after the old-log-prob pass, the reward stays in the baseline and
  in the denominator. rLLM's own filter drops such trajectories before the baseline.
- Trajectories that are in no group (infrastructure failures) get no loss and are not in the denominator.
- The attention mask comes from lengths, so that a sampled pad token stays in the actor's input.

Its stages are spans (profiling.py) where somebody records them, rLLM's own timers included (verl/timers.py).

Not covered: several policy roles with a loss each (rLLM's loss_fn_map) are passed on unchanged.
"""

from collections.abc import Sequence
from typing import Any  # rLLM and verl have no types

import numpy as np
import rllm.trainer.verl.verl_backend as rllm_backend
import torch
from rllm.trainer.verl.verl_backend import VerlBackend
from torch import Tensor
from verl.utils import tensordict_utils
from verl.workers.utils.padding import no_padding_2_padding

from aem_swe.algorithms.aem import Modulation, aem_metrics, modulate
from aem_swe.engines.rllm import compat  # noqa: F401  # it changes what rLLM will use
from aem_swe.engines.rllm.rows import Layout, attention_by_length, lay_out, plan_rows
from aem_swe.engines.rllm.staleness import staleness_metrics
from aem_swe.engines.verl.ray_trainer import require_pass
from aem_swe.engines.verl.settings import read_settings
from aem_swe.engines.verl.timers import timed
from aem_swe.errors import ConfigError, RunError
from aem_swe.profiling import span

rllm_backend.simple_timer = timed(rllm_backend.simple_timer)
_ROW = "aem_row"
MASKED = "aem_swe_masked"
"""Key in the metadata of rLLM's trajectories: True where the filter `mask` zeroes the loss."""


class _Tap:
    """Stands in for a worker group during the old-log-prob pass and keeps what it says about entropies."""

    def __init__(self, group: Any) -> None:
        self.group = group
        self.rows_B: Tensor | None = None
        self.entropy_BT: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.group, name)

    def compute_log_prob(self, data: Any) -> Any:
        output = self.group.compute_log_prob(data)
        entropy = tensordict_utils.get(output, "entropy", default=None)
        if entropy is not None and self.entropy_BT is None:  # a reference in the actor asks again, without entropies
            self.rows_B = torch.as_tensor(np.asarray(tensordict_utils.get(data, _ROW), dtype=np.int64))
            self.entropy_BT = no_padding_2_padding(entropy, data).float()
        return output


class AEMVerlBackend(VerlBackend):  # type: ignore[misc]  # a class of rLLM's
    """VerlBackend whose advantages are rescaled by AEM."""

    def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
        self._aem = read_settings(config)
        require_pass(config, self._aem.enabled and self._aem.entropy_source == "policy")
        if self._aem.profile is not None:
            raise ConfigError(
                "aem.profile is for verl's own trainers; rLLM's steps are recorded by trainer.profile=true"
            )
        super().__init__(config, *arguments, **named)
        self.layout: Layout | None = None
        self._versions: dict[tuple[str, int], int] = {}
        self._entropy_BT: Tensor | None = None
        self.ages: dict[int, int] = {}
        """Of the last step: response id -> weight versions between its sampling and the pass that scored it."""
        self.modulation: Modulation | None = None
        """Of the last step, for whoever wants to look; None before it, and where AEM is off."""

    def transform_to_backend_batch(self, trainer_state: Any, **named: Any) -> Any:
        with span("batch"):
            return self._transform(trainer_state, **named)

    def _transform(self, trainer_state: Any, **named: Any) -> Any:
        batch = super().transform_to_backend_batch(trainer_state, **named)
        tensors = batch.batch
        groups = trainer_state.trajectory_groups or []
        holders = trainer_state.episodes if trainer_state.episodes is not None else groups
        trajectories = [trajectory for holder in holders for trajectory in holder.trajectories]
        layout, plan_B = lay_out(
            [str(uid) for uid in batch.non_tensor_batch["step_ids"]],
            {trajectory.uid: plan_rows(trajectory.steps) for trajectory in trajectories},
            [[trajectory.uid for trajectory in group.trajectories] for group in groups],
            [trajectory.uid for trajectory in trajectories if (trajectory.metadata or {}).get(MASKED)],
            tensors["response_mask"],
        )
        _mend_attention(tensors, plan_B, trainer_state.metrics)
        batch.non_tensor_batch[_ROW] = np.arange(len(plan_B))
        self.layout, self._entropy_BT = layout, None
        self._versions = {
            (trajectory.uid, number): step.weight_version
            for trajectory in trajectories
            for number, step in enumerate(trajectory.steps)
            if step.weight_version is not None
        }
        trainer_state.metrics["aem/rows_by_mask"] = float(layout.rows_by_mask)
        return batch

    async def process_backend_batch(self, trainer_state: Any, **named: Any) -> None:
        with span("batch"):  # padding, balancing, conversions; the passes are spans inside
            await self._process(trainer_state, **named)

    async def _process(self, trainer_state: Any, **named: Any) -> None:
        tap = _Tap(self.actor_rollout_wg)
        self.actor_rollout_wg: Any = tap
        try:
            await super().process_backend_batch(trainer_state, **named)
        finally:
            self.actor_rollout_wg = tap.group
        batch = trainer_state.backend_batch
        with span("filter"):
            self._mask(batch)
            _count_survivors(batch, trainer_state.trajectory_groups or [])
        trainer_state.metrics |= _policy_metrics(batch.batch, tap.entropy_BT)
        if self._aem.enabled:
            with span("aem"):
                self._line_up(batch, tap)
            if "advantages" in batch.batch:  # fully async: they came with the batch
                self._apply_aem(trainer_state)

    def _line_up(self, batch: Any, tap: _Tap) -> None:
        """Put the entropies of the pass into the order of the batch."""
        rows_B = torch.as_tensor(batch.non_tensor_batch[_ROW].astype(np.int64))
        if self._aem.entropy_source == "surprisal":
            if "rollout_log_probs" not in batch.batch:
                raise RunError("aem.entropy_source=surprisal found no log-probs of the rollout in the batch")
            self._entropy_BT = -batch.batch["rollout_log_probs"].float()
        elif tap.entropy_BT is None or tap.rows_B is None:
            raise RunError("rLLM made no old-log-prob pass, and AEM has no entropies; use aem.entropy_source=surprisal")
        else:  # the last of the padded copies of a row is as good as the first: the same forward pass
            place = torch.empty(int(tap.rows_B.max()) + 1, dtype=torch.long)
            place[tap.rows_B] = torch.arange(len(tap.rows_B))
            self._entropy_BT = tap.entropy_BT[place[rows_B]]

    async def compute_advantages(self, trainer_state: Any, algorithm_config: Any, **named: Any) -> None:
        await super().compute_advantages(trainer_state, algorithm_config, **named)
        if self._aem.enabled:
            self._apply_aem(trainer_state)

    async def update_policy(self, trainer_state: Any, **named: Any) -> None:
        """Update, unless the filter has masked everything: verl's aggregation and metrics have no answer to that."""
        if not trainer_state.backend_batch.batch["response_mask"].any():
            trainer_state.metrics["actor/skipped_updates"] = 1.0
            trainer_state.backend_batch = None
            return
        await super().update_policy(trainer_state, **named)

    def _mask(self, batch: Any) -> None:
        """Zero the loss masks of what is not trained; after the pass, whose metrics want sampled tokens."""
        assert self.layout is not None
        rows_B = torch.as_tensor(batch.non_tensor_batch[_ROW].astype(np.int64))
        mask_BT = batch.batch["response_mask"]
        batch.batch["response_mask"] = mask_BT * self.layout.trained_B[rows_B, None].to(mask_BT)
        if "advantages" in batch.batch:
            batch.batch["advantages"] = batch.batch["advantages"] * batch.batch["response_mask"]

    def _apply_aem(self, trainer_state: Any) -> None:
        with span("aem"):
            self._modulate(trainer_state)

    def _modulate(self, trainer_state: Any) -> None:
        batch, layout = trainer_state.backend_batch, self.layout
        assert layout is not None and self._entropy_BT is not None
        rows_B = torch.as_tensor(batch.non_tensor_batch[_ROW].astype(np.int64))
        padding_B = torch.as_tensor(batch.non_tensor_batch["is_pad_step"].astype(bool))
        id_BT = layout.response_id_BT[rows_B].masked_fill(padding_B[:, None], -1)
        self.modulation = modulate(
            batch.batch["advantages"],
            self._entropy_BT.masked_fill(id_BT < 0, 0.0),
            id_BT,
            layout.group_B[rows_B],
            lam=self._aem.lam,
            trained_of_row_B=None if self._aem.group == "all" else layout.trained_B[rows_B],
        )
        batch.batch["advantages"] = self.modulation.advantages_BT  # a new tensor: `returns` is the old one
        trainer_state.metrics.update(aem_metrics(self.modulation))
        now = trainer_state.weight_version  # before the update, which may send new weights out
        self.ages = {
            number: max(0, now - self._versions[step])
            for number, step in layout.step_of_response.items()
            if step in self._versions
        }
        trainer_state.metrics.update(staleness_metrics(self.modulation, self.ages))


def _policy_metrics(tensors: Any, entropy_BT: Tensor | None) -> dict[str, float]:
    """What the embedded engine logs by these names: nats per trained token, and sampler against actor.

    rLLM's own `actor/entropy` is aggregated as the loss is, and so depends on the budget. Rows of `entropy_BT` may be
    in another order than those of `tensors` only where rLLM has dropped some; then rLLM's figure stays.
    """
    mask_BT = tensors["response_mask"].bool()
    metrics: dict[str, float] = {}
    if entropy_BT is not None and entropy_BT.shape == mask_BT.shape and mask_BT.any():
        metrics["actor/entropy"] = float(entropy_BT[mask_BT].double().mean())
    if "rollout_log_probs" in tensors and mask_BT.any():
        difference_BT = (tensors["old_log_probs"] - tensors["rollout_log_probs"]).abs()
        metrics["rollout/logprob_difference_max"] = float(difference_BT[mask_BT].max())
    return metrics


def _mend_attention(tensors: Any, plan_B: Sequence[Any], metrics: dict[str, Any]) -> None:
    mask_BL = attention_by_length(plan_B, tensors["attention_mask"], prompt_columns=tensors["prompts"].shape[1])
    metrics["rollout/rows_with_sampled_pad"] = float((mask_BL != tensors["attention_mask"]).any(dim=1).sum())
    tensors["attention_mask"] = mask_BL
    tensors["position_ids"] = (mask_BL.long().cumsum(dim=1) - 1) * mask_BL


def _count_survivors(batch: Any, groups: Sequence[Any]) -> None:
    """Let the loss count the trajectories that are in a group: rLLM counts those as well that it has dropped."""
    updates = batch.meta_info.get("rllm_actor_num_updates")
    if updates:
        survivors = sum(len(group.trajectories) for group in groups)
        batch.meta_info["rllm_actor_global_batch_size"] = max(1, round(survivors / updates))
