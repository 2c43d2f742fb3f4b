"""verl's own vLLM server without a GPU, and a look at what its trainer learns from; for tests only.

verl imports this in every process (VERL_USE_EXTERNAL_MODULES), the one that holds vLLM's model included. A change waits
until the module that it concerns is imported, because most processes need neither and vLLM takes seconds.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

Change = Callable[[Any], None]


def keep_weights(custom_ops: Any) -> None:
    """vLLM on the CPU packs weights for oneDNN and drops the originals: nothing is left that a weight sync could fill.
    Without oneDNN it takes torch's linear layers, on the weights themselves."""
    custom_ops._supports_onednn = False


def keep_batches(ray_trainer: Any) -> None:
    """Write every batch, as the actor is updated from it, to $CHAIN_BATCHES/step_N.pt."""
    update = ray_trainer.RayPPOTrainer._update_actor

    def watched(self: Any, batch: Any) -> Any:
        kept = {name: batch.batch[name].clone() for name in batch.batch.keys()}  # noqa: SIM118  # a TensorDict
        labels = {
            "group": list(batch.non_tensor_batch["uid"]),
            "problem": [int(row["index"]) for row in batch.non_tensor_batch["extra_info"]],
        }
        torch.save(kept | labels, Path(os.environ["CHAIN_BATCHES"]) / f"step_{self.global_steps}.pt")
        return update(self, batch)

    ray_trainer.RayPPOTrainer._update_actor = watched


CHANGES: dict[str, Change] = {
    "vllm._custom_ops": keep_weights,
    "verl.trainer.ppo.ray_trainer": keep_batches,
}


class AfterImport(importlib.abc.MetaPathFinder):
    """Makes the change right after a module's own code has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        change = CHANGES.pop(name, None)  # once: looking for the real one comes back here
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]  # of this one loader
        return spec


for imported in CHANGES.keys() & sys.modules.keys():  # vLLM's worker imports verl late, but before it loads weights
    CHANGES.pop(imported)(sys.modules[imported])
torch.cpu.set_rng_state = torch.set_rng_state  # type: ignore[attr-defined]  # verl resumes with the device's own
sys.meta_path.insert(0, AfterImport())
