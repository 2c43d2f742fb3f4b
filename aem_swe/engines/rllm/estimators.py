"""Our advantages under names that rLLM knows: importing this module registers them with rLLM.

rLLM's own `rloo` is leave-one-out as we have it; its `grpo` divides by the standard deviation of the population (n),
verl's and ours by that of the sample (n-1). With these names every engine has the same advantages.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any  # rLLM's configuration has no type

import numpy as np
import torch
from rllm.trainer.algorithms.advantage import register_rllm_adv_estimator

from aem_swe.algorithms import ADVANTAGES

ROLE = "swe"
"""The name of our trajectories, which is what rLLM chooses an estimator by."""
PUNISHMENT = "aem_swe_overlong"
"""Key in the metadata of rLLM's trajectories: DAPO's soft overlong punishment, to be added to the reward."""
NEEDS_CONTRAST = "aem_swe_needs_contrast"
"""The same: True where a group without contrast is to be dropped, whatever its punishments are."""
Arrays = Sequence[np.ndarray[Any, Any]]


def estimator_of(advantage: str) -> dict[str, str]:
    """What AgentTrainer takes as `traj_group_adv_estimator_map` for `algorithm.advantage`."""
    return {ROLE: f"aem_swe_{advantage}"}


def _estimate(
    advantage: Callable[..., torch.Tensor],
    rewards: Arrays,
    algorithm_config: Any,
    traj_groups: Sequence[Any] = (),
    **_: Any,
) -> tuple[Arrays, Arrays]:
    """rewards: per group, those of its trajectories. Returns the same shape, twice: advantages and returns."""
    if traj_groups:
        rewards = [_punished(values, group) for values, group in zip(rewards, traj_groups, strict=True)]
    group_B = torch.tensor([number for number, group in enumerate(rewards) for _ in group])
    values = torch.as_tensor(np.concatenate([np.asarray(group, dtype=np.float64) for group in rewards]))
    parts = torch.split(advantage(values, group_B), [len(group) for group in rewards])
    arrays = [part.numpy() for part in parts]
    return arrays, arrays


def _punished(values: np.ndarray[Any, Any], group: Any) -> np.ndarray[Any, Any]:
    """The rewards of a group with their punishments; as they are where rLLM is to drop it, which it does by advantages.

    rLLM's own figures of the reward stay those of the graders, as on the embedded engine.
    """
    noted = [trajectory.metadata or {} for trajectory in group.trajectories]
    if any(one.get(NEEDS_CONTRAST) for one in noted) and len(set(values.tolist())) == 1:
        return values
    punished: np.ndarray[Any, Any] = values + np.array([float(one.get(PUNISHMENT, 0.0)) for one in noted])
    return punished


for _name, _advantage in ADVANTAGES.items():
    register_rllm_adv_estimator(f"aem_swe_{_name}")(partial(_estimate, _advantage))
