"""A recipe in the words of rLLM and verl: the same run, said as overrides of rLLM's configuration `unified`.

`overrides_of` is plain Python. `cluster_config` composes them with the installed rLLM and verl.

What both have a key for is said in rLLM's words here and doubled in twins.py. Their own defaults are left to them, but
for those that DeepSWE depends on.
"""

from pathlib import Path
from typing import Any, Final  # Any: values of a configuration

from aem_swe.engines.paths import model_path
from aem_swe.engines.rllm.twins import doubled, hydra_value, require_first
from aem_swe.engines.rllm.versions import folder_of, require_installed
from aem_swe.errors import ConfigError
from aem_swe.schema import Recipe

_ACTOR, _ROLLOUT, _TRAINER = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "trainer"
_NO_DUAL_CLIP: Final = 1_000_000.0
"""verl always takes the smaller of two losses where A < 0 and the ratio is above this; DeepSWE did not."""
Settings = dict[str, Any]


def overrides_of(recipe: Recipe) -> list[str]:
    """Hydra overrides of rLLM's configuration `unified`; `+` marks keys that it does not have, `~` takes one away.

    The recipe's own cluster.rllm and cluster.verl come last, so they win. Raises ConfigError for a key of verl that
    rLLM would overwrite.
    """
    settings: Settings = {}
    for part in (_algorithm, _batches, _model, _rollout, _trainer, _ours):
        settings |= part(recipe)
    require_first(recipe.cluster.verl)
    settings |= {below_rllm(key): value for key, value in recipe.cluster.rllm.items()}
    settings = doubled(settings) | recipe.cluster.verl
    return [key if key.startswith("~") else f"{key}={hydra_value(value)}" for key, value in settings.items()]


def cluster_config(recipe: Recipe) -> Any:
    """Compose rLLM's configuration for this recipe with the installed rLLM and verl: an OmegaConf DictConfig.

    Raises ConfigError where they are missing (with the install command), and for a key that they do not know.
    """
    require_installed()
    import hydra
    from hydra.errors import HydraException

    # a folder, where rLLM itself names the package: a package Hydra imports, and verl takes half a minute
    search = f"hydra.searchpath=[file://{folder_of('verl')}/trainer/config]"
    with hydra.initialize_config_dir(config_dir=f"{folder_of('rllm')}/trainer/config", version_base=None):
        try:
            return hydra.compose("unified", overrides=[search, *overrides_of(recipe)])
        except HydraException as error:
            causes = [str(error), str(error.__cause__ or "")]
            said = " ".join(" ".join(causes).split())
            raise ConfigError(
                f"the installed rLLM and verl do not take this recipe: {said}; mend cluster.verl or cluster.rllm, or"
                f" compare versions with: aem-swe doctor {recipe.recipe}"
            ) from error


def below_rllm(key: str) -> str:
    """The whole key of one of cluster.rllm."""
    sign = key[: len(key) - len(key.lstrip("+~"))]
    return f"{sign}rllm.{key.removeprefix(sign)}"


def _algorithm(recipe: Recipe) -> Settings:
    a, o, bypass = recipe.algorithm, recipe.optimizer, not recipe.cluster.recompute_old_logprobs
    return {
        "rllm.algorithm.adv_estimator": f"aem_swe_{a.advantage}",  # ours, see estimators.py
        "rllm.algorithm.loss_fn": {"ppo": "vanilla", "gspo": "gspo"}[a.loss],
        "rllm.algorithm.eps_clip": a.clip_low,
        "rllm.algorithm.eps_clip_high": a.clip_high,
        f"{_ACTOR}.clip_ratio_c": _NO_DUAL_CLIP,
        **_normalisation(recipe),
        "rllm.algorithm.kl_beta": a.kl_coefficient,
        f"{_ACTOR}.use_kl_loss": a.kl_coefficient > 0,
        **({f"{_ACTOR}.kl_loss_type": "low_var_kl"} if a.kl_coefficient > 0 else {}),  # k3
        f"{_ACTOR}.entropy_coeff": 0,
        "rllm.algorithm.rollout_correction.bypass_mode": bypass,
        "rllm.algorithm.lr_schedule": "constant",
        "rllm.algorithm.warmup_steps": o.warmup_steps,
        f"{_ACTOR}.optim.lr": o.lr,
        f"{_ACTOR}.optim.weight_decay": o.weight_decay,
        f"{_ACTOR}.optim.betas": [o.beta1, o.beta2],
        f"{_ACTOR}.optim.clip_grad": o.grad_clip,  # actor.grad_clip is a key that nothing reads
        **_filter(recipe),
    }


def _normalisation(recipe: Recipe) -> Settings:
    """How the token losses become one number: verl's modes of these names, or (DeepSWE) sum / budget, mean of rollouts.

    To verl a sequence is a row. So it is to us here: without `strip_thinking` a trajectory is one row.
    """
    if recipe.algorithm.aggregation != "seq-sum-over-budget":
        return {"rllm.algorithm.loss_agg_mode": recipe.algorithm.aggregation}
    return {
        "rllm.algorithm.loss_agg_mode": "seq-mean-token-sum-norm",
        f"{_ACTOR}.loss_scale_factor": recipe.agent.response_budget,
    }


def _filter(recipe: Recipe) -> Settings:
    """rLLM's filter takes trajectories out of the baseline: of `mask` and `off` only those that failed.

    The masking itself is our backend's.
    """
    drop = recipe.algorithm.filter == "drop"
    dropped = {
        "error": True,
        "max_turns_exceeded": drop,
        "max_response_length_exceeded": drop,
        "max_prompt_length_exceeded": drop,
        "timeout": drop,
        "env_done": False,
        "unknown": False,
    }
    return {
        "rllm.compact_filtering.enable": True,
        **{f"rllm.compact_filtering.mask_{reason}": value for reason, value in dropped.items()},
        "rllm.rejection_sample.min_trajs_per_group": 2,
        "rllm.rejection_sample.filter_uniform_groups": recipe.sampling.drop_uniform_groups,
    }


def _batches(recipe: Recipe) -> Settings:
    """Whole prompts per batch and per optimiser step; tokens per forward pass."""
    c, s = recipe.cluster, recipe.sampling
    per_update = s.prompts // recipe.trainer.minibatches
    streaming = c.mode == "fully_async"
    row = c.max_prompt_tokens + recipe.agent.response_budget
    per_gpu = c.tokens_per_gpu or -(-row // c.sequence_parallel)
    settings: Settings = {
        "rllm.data.train_batch_size": 1 if streaming else s.prompts,
        "rllm.data.max_prompt_length": c.max_prompt_tokens,
        "rllm.data.max_response_length": recipe.agent.response_budget,
        "rllm.data.seed": recipe.seed if recipe.data.seed is None else recipe.data.seed,
        f"{_ACTOR}.ppo_mini_batch_size": per_update,
        f"{_ACTOR}.use_dynamic_bsz": True,  # fixed micro-batches need row counts that rLLM's padding does not give
        f"{_ACTOR}.ppo_max_token_len_per_gpu": per_gpu,
        f"{_ROLLOUT}.log_prob_use_dynamic_bsz": True,
        f"{_ROLLOUT}.log_prob_max_token_len_per_gpu": per_gpu,
        "rllm.async_training.enable": streaming,
        "actor_rollout_ref.hybrid_engine": not streaming,  # as rLLM sets it itself when a run starts
        f"{_ROLLOUT}.checkpoint_engine.backend": "nccl" if streaming else "naive",
    }
    if streaming:
        settings |= {
            "rllm.async_training.mini_batch_size": per_update,
            "rllm.async_training.staleness_threshold": c.staleness_threshold,
            "rllm.async_training.trigger_parameter_sync_step": c.trigger_step,
            "rollout.nnodes": 1 if c.nodes == 1 else c.generating // c.gpus_per_node,
            "rollout.n_gpus_per_node": c.generating if c.nodes == 1 else c.gpus_per_node,
        }
    return settings


def _model(recipe: Recipe) -> Settings:
    c, m = recipe.cluster, recipe.model
    settings: Settings = {
        "actor_rollout_ref.model.path": model_path(m.path),
        "actor_rollout_ref.model.enable_gradient_checkpointing": m.gradient_checkpointing,
        f"{_ACTOR}.strategy": "fsdp2",
        f"{_ACTOR}.fsdp_config.ulysses_sequence_parallel_size": c.sequence_parallel,
        f"{_ACTOR}.fsdp_config.param_offload": c.offload,
        f"{_ACTOR}.fsdp_config.optimizer_offload": c.offload,
        # in bfloat16 the entropy errs by up to 0.14 nat per token; in chunks it is computed in float32
        f"{_ACTOR}.fsdp_config.entropy_from_logits_with_chunking": True,
        f"{_ROLLOUT}.dtype": m.dtype,
    }
    if m.dtype == "float32":
        kinds = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
        settings[f"+{_ACTOR}.fsdp_config.mixed_precision"] = kinds
    if recipe.algorithm.kl_coefficient > 0:
        settings["actor_rollout_ref.ref.fsdp_config.param_offload"] = c.offload
    return settings


def _rollout(recipe: Recipe) -> Settings:
    c, s = recipe.cluster, recipe.sampling
    samples = c.val_temperature > 0
    return {
        "rllm.rollout.n": s.rollouts,
        "rllm.rollout.n_val": recipe.trainer.eval_rollouts,
        "rllm.rollout.train.temperature": s.temperature,
        "rllm.rollout.val.temperature": c.val_temperature,
        f"{_ROLLOUT}.val_kwargs.do_sample": samples,  # verl refuses to sample at temperature 0
        # the gateway would put it into every request, over the agent's own (budget minus what is used)
        "~rllm.rollout.train.max_tokens": None,
        "~rllm.rollout.val.max_tokens": None,
        f"{_ROLLOUT}.name": "vllm",
        f"{_ROLLOUT}.tensor_model_parallel_size": c.tensor_parallel,
        f"{_ROLLOUT}.gpu_memory_utilization": c.gpu_memory_utilization,
        f"{_ROLLOUT}.max_model_len": c.max_prompt_tokens + recipe.agent.response_budget,
        f"{_ROLLOUT}.logprobs_mode": "processed_logprobs",  # of the temperature that was sampled at, as the actor's
        f"{_ROLLOUT}.seed": recipe.seed,
        "rllm.workflow.n_parallel_tasks": s.prompts * s.rollouts,
        "rllm.workflow.retry_limit": 1,  # sandboxes are retried by the episode itself
        "rllm.workflow.raise_on_error": False,
        "rllm.workflow.warm_queue_size": 0,  # our sandboxes have a warm pool of their own
    }


def _trainer(recipe: Recipe) -> Settings:
    c, t = recipe.cluster, recipe.trainer
    training_nodes = 1 if c.nodes == 1 else c.training // c.gpus_per_node
    return {
        f"{_TRAINER}.nnodes": training_nodes,
        f"{_TRAINER}.n_gpus_per_node": c.training // training_nodes,
        # the streaming loop stops before the step of that number, the other one after it
        "rllm.trainer.total_batches": t.steps + (c.mode == "fully_async"),
        "rllm.trainer.total_epochs": t.steps,  # never the limit: an epoch has a batch
        "rllm.trainer.save_freq": t.save_every or -1,
        "rllm.trainer.test_freq": t.eval_every or -1,
        "rllm.trainer.val_before_train": bool(t.eval_every and c.val_before_train),
        "rllm.trainer.logger": list(c.logger),
        "rllm.trainer.project_name": "aem-swe",
        "rllm.trainer.experiment_name": Path(recipe.run_dir).name or "run",
        f"{_TRAINER}.default_local_dir": str(Path(recipe.run_dir).absolute() / "checkpoints"),
        f"{_TRAINER}.resume_mode": "auto",
        f"{_TRAINER}.max_actor_ckpt_to_keep": t.keep_checkpoints,
        # hf_model: what evaluation and the embedded engine load
        f"{_ACTOR}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        f"{_ACTOR}.checkpoint.load_contents": ["model", "optimizer", "extra"],
    }


def _ours(recipe: Recipe) -> Settings:
    """Keys that rLLM's configuration has no name for."""
    aem, address = recipe.aem, recipe.cluster.ray_address
    settings: Settings = {
        "+aem": aem.model_dump(by_alias=True, exclude={"analysis"}),  # refused here unless off
        "+model.name": model_path(recipe.model.path),  # what the gateway asks the servers for
    }
    return settings | ({"+ray_init.address": address} if address else {})
