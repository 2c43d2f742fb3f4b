"""The pass and the update that AEM sits between on the cluster engine: verl's own FSDP2 worker under Ray, on one GPU.

One row of DeepSWE's length through a Qwen3 of random weights, with the settings of the recipes: old log-probs with
entropies, AEM on the whole batch of such rows, update. The worker's peak memory is set against what `aem-swe doctor`
estimates for it (engines/rllm/memory.py).
Not covered: vLLM beside it on the same GPU, several GPUs, offload.

Shapes: B row, T token.
"""

import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from gpu_meter import Figures
from gpu_scene import GAIN, Workload, network_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from aem_swe.algorithms import modulate, response_ids
from aem_swe.config import validate_recipe
from aem_swe.engines.paths import model_path
from aem_swe.engines.rllm.memory import RESERVE_GIB, estimate, shape_of
from aem_swe.schema import Recipe

ACTOR = "actor_rollout_ref.actor"


def measure_cluster(work: Workload, device: torch.device) -> Figures:
    """Seconds and GiB by name; memory is NaN on a CPU. Starts Ray where there is none, and ends it."""
    import ray
    import verl_scene
    import verl_steps

    with TemporaryDirectory() as name:
        model = _save_model(work, Path(name))
        config = verl_scene.verl_config(model, *_overrides(work, device))
        alone = not ray.is_initialized()  # other tests of this process may have it up
        if alone:
            ray.init(num_cpus=4, num_gpus=1, include_dashboard=False)
        try:
            workers = verl_scene.make_workers(config, ranks=1, use_gpu=device.type == "cuda", watched=False)
            workers.set_loss_fn(verl_steps.loss_of(config))
            trainer = verl_steps.ray_trainer(config, workers)
            trainer._compute_old_log_prob(_batch(work, tokens=work.long_tokens // 8))  # untimed: kernels and memory
            batch = _batch(work, tokens=work.long_tokens)
            begin = time.perf_counter()
            old, _ = trainer._compute_old_log_prob(batch)
            score_s = time.perf_counter() - begin
            entropy_BT = old.batch.pop("entropys")
            batch = batch.union(old)
            aem_s, advantages_BT = _aem(work, entropy_BT)
            batch.batch["advantages"] = batch.batch["returns"] = advantages_BT
            begin = time.perf_counter()
            trainer._update_actor(batch)
            update_s = time.perf_counter() - begin
            (peak_gib,) = workers.peak_gib()
        finally:
            if alone:
                ray.shutdown()
    about = estimate(_recipe(work), shape_of(network_config(work).to_dict()))
    return {
        "cluster/old_log_prob_s": score_s,
        "cluster/update_s": update_s,
        "cluster/aem_s": aem_s,
        "cluster/aem_share": aem_s / (work.long_rows * score_s),
        "cluster/peak_gib": peak_gib,
        "cluster/estimate_gib": about.training - RESERVE_GIB if device.type == "cuda" else math.nan,
    }


def _save_model(work: Workload, folder: Path) -> Path:
    torch.manual_seed(0)
    network: Any = AutoModelForCausalLM.from_config(network_config(work), dtype=torch.float32)
    torch.nn.init.constant_(network.base_model.norm.weight, GAIN)
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_path("builtin/demo-policy")).save_pretrained(folder)
    return folder


def _recipe(work: Workload) -> Recipe:
    return validate_recipe(
        {
            "engine": "rllm",
            "model": {"dtype": "bfloat16", "gradient_checkpointing": True},
            "agent": {"response_budget": work.long_tokens - _prompt(work.long_tokens)},
            "cluster": {"max_prompt_tokens": _prompt(work.long_tokens)},
        }
    )


def _overrides(work: Workload, device: torch.device) -> list[str]:
    precise = ["trainer.device=cpu"]
    fast = [
        "trainer.device=cuda",
        f"~{ACTOR}.fsdp_config.mixed_precision",
        "actor_rollout_ref.rollout.dtype=bfloat16",
    ]
    return [
        "actor_rollout_ref.model.enable_gradient_checkpointing=True",
        f"{ACTOR}.ppo_mini_batch_size=1",
        "actor_rollout_ref.rollout.n=1",
        f"{ACTOR}.use_dynamic_bsz=True",
        f"{ACTOR}.ppo_max_token_len_per_gpu={work.long_tokens}",
        "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True",
        f"actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu={work.long_tokens}",
        f"{ACTOR}.fsdp_config.entropy_from_logits_with_chunking=True",
        *(fast if device.type == "cuda" else precise),
    ]


def _prompt(tokens: int) -> int:
    return tokens // 9  # DeepSWE: 4,096 of 36,864


def _batch(work: Workload, *, tokens: int) -> Any:
    """One row without padding, all of whose response is sampled."""
    from verl import DataProto

    prompt = _prompt(tokens)
    generator = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(64, work.network["vocab_size"], (1, tokens), generator=generator)
    return DataProto.from_dict(
        tensors={
            "input_ids": ids_BT,
            "attention_mask": torch.ones_like(ids_BT),
            "position_ids": torch.arange(tokens)[None],
            "prompts": ids_BT[:, :prompt],
            "responses": ids_BT[:, prompt:],
            "response_mask": torch.ones_like(ids_BT[:, prompt:]),
        },
        non_tensors={"uid": np.array(["a"], dtype=object)},
        meta_info={"temperature": 1.0, "global_token_num": [tokens]},
    )


def _aem(work: Workload, entropy_BT: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Seconds of AEM on `long_rows` such rows, in the trainer's process as on a cluster, and the first row's result."""
    entropy_BT = entropy_BT.float().cpu().repeat(work.long_rows, 1)
    rows, tokens = entropy_BT.shape
    share = tokens // work.long_turns
    row_R = torch.arange(rows).repeat_interleave(work.long_turns)
    start_R = (torch.arange(work.long_turns) * share).repeat(rows)
    advantages_BT = torch.ones_like(entropy_BT)
    group_B = torch.arange(rows) // work.rollouts
    begin = time.perf_counter()
    ids_BT = response_ids(row_R, start_R, start_R + share, shape=(rows, tokens))
    scaled_BT = modulate(advantages_BT, entropy_BT, ids_BT, group_B, lam=1.0).advantages_BT
    return time.perf_counter() - begin, scaled_BT[:1].clone()
