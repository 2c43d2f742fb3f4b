"""verl's actor worker with windows for tests: its gradients, its processes, and a way to die."""

import os
import signal
from typing import Any

import torch
from verl.single_controller.base.decorator import Dispatch, register
from verl.workers.engine_workers import ActorRolloutRefWorker


class WatchedWorker(ActorRolloutRefWorker):
    """Keeps the whole gradient of every update, before clipping. `freeze` says whether the optimiser then steps."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def watch(self, freeze: bool) -> None:
        engine: Any = self.actor.engine
        real = type(engine).optimizer_step
        self.gradients: list[dict[str, torch.Tensor]] = []

        def optimizer_step() -> float:
            self.gradients.append({name: p.grad.full_tensor().clone() for name, p in engine.module.named_parameters()})
            return 0.0 if freeze else float(real(engine))

        engine.optimizer_step = optimizer_step

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def read_gradients(self) -> list[dict[str, torch.Tensor]]:
        return self.gradients

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def die_in_update(self, rank: int) -> None:
        """Let that rank's process be killed in its next update, after the backward pass."""
        if torch.distributed.get_rank() == rank:
            self.actor.engine.optimizer_step = lambda: os.kill(os.getpid(), signal.SIGKILL)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def process_id(self) -> int:
        return os.getpid()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def peak_gib(self) -> float:
        """Of memory since the process began; NaN on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")
