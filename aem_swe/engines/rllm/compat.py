"""rLLM's main branch is written for verl 0.8; two changes let it run on verl 0.9. Nothing happens on 0.8.

Importing this module applies them; it must happen in the driver and in the process of the task runner, before rLLM's
backend makes its workers. Both were found with rLLM 9beb6e0f and verl 0.9.1.
"""

import inspect
from typing import Any  # rLLM and verl have no types

import rllm.trainer.verl.utils as rllm_utils
import rllm.trainer.verl.verl_backend as rllm_backend


def _forget_router_replay() -> None:
    """verl 0.9 moved the key of router replay, which needs Megatron; rLLM would write to the old one and fail."""
    shared = rllm_utils._SHARED_KEYS
    shared[:] = [pair for pair in shared if pair[0] != "actor_rollout_ref.actor.router_replay.mode"]


def _rename_trainer() -> None:
    """verl 0.9 calls the worker group `actor_wg` where 0.8 called it `trainer`."""
    original = rllm_backend.CheckpointEngineManager

    def manager(*, trainer: Any = None, **named: Any) -> Any:
        return original(actor_wg=trainer, **named)

    rllm_backend.CheckpointEngineManager = manager


if "trainer" not in inspect.signature(rllm_backend.CheckpointEngineManager).parameters:
    _rename_trainer()
    _forget_router_replay()
