"""Settings that exist twice, below `rllm.` and as verl's own key, and the words of Hydra's override grammar.

When a run starts, rLLM's sync_config makes the two equal in favour of `rllm.*`. So a recipe is said in rLLM's words and
doubled here: what a dry run prints is what runs, and a verl key that rLLM would overwrite is refused.
"""

import re
from collections.abc import Mapping
from typing import Any, Final  # Any: values of a configuration

from aem_swe.errors import ConfigError

_ACTOR, _ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
TWINS: Final[Mapping[str, tuple[str, ...]]] = {
    "rllm.algorithm.adv_estimator": ("algorithm.adv_estimator",),
    "rllm.algorithm.norm_adv_by_std_in_grpo": ("algorithm.norm_adv_by_std_in_grpo",),
    "rllm.algorithm.rollout_correction.bypass_mode": ("algorithm.rollout_correction.bypass_mode",),
    "rllm.algorithm.rollout_correction.tis_mode": ("algorithm.rollout_correction.rollout_is",),
    "rllm.algorithm.rollout_correction.tis_cap": ("algorithm.rollout_correction.rollout_is_threshold",),
    "rllm.algorithm.kl_beta": (f"{_ACTOR}.kl_loss_coef",),
    "rllm.algorithm.loss_fn": (f"{_ACTOR}.policy_loss.loss_mode",),
    "rllm.algorithm.loss_agg_mode": (f"{_ACTOR}.loss_agg_mode",),
    "rllm.algorithm.warmup_steps": (f"{_ACTOR}.optim.lr_warmup_steps",),
    "rllm.algorithm.warmup_steps_ratio": (f"{_ACTOR}.optim.lr_warmup_steps_ratio",),
    "rllm.algorithm.lr_schedule": (f"{_ACTOR}.optim.lr_scheduler_type",),
    "rllm.algorithm.eps_clip": (f"{_ACTOR}.clip_ratio", f"{_ACTOR}.clip_ratio_low"),
    "rllm.algorithm.eps_clip_high": (f"{_ACTOR}.clip_ratio_high",),
    "rllm.rollout.n": (f"{_ROLLOUT}.n",),
    "rllm.rollout.n_val": (f"{_ROLLOUT}.val_kwargs.n",),
    "rllm.rollout.train.temperature": (f"{_ROLLOUT}.temperature",),
    "rllm.rollout.train.top_p": (f"{_ROLLOUT}.top_p",),
    "rllm.rollout.train.top_k": (f"{_ROLLOUT}.top_k",),
    "rllm.rollout.train.max_tokens": (f"{_ROLLOUT}.response_length",),
    "rllm.rollout.val.temperature": (f"{_ROLLOUT}.val_kwargs.temperature",),
    "rllm.rollout.val.top_p": (f"{_ROLLOUT}.val_kwargs.top_p",),
    "rllm.rollout.val.top_k": (f"{_ROLLOUT}.val_kwargs.top_k",),
    "rllm.trainer.save_freq": ("trainer.save_freq",),
    "rllm.trainer.test_freq": ("trainer.test_freq",),
    "rllm.trainer.val_before_train": ("trainer.val_before_train",),
    "rllm.trainer.val_only": ("trainer.val_only",),
    "rllm.trainer.total_epochs": ("trainer.total_epochs",),
    "rllm.trainer.total_batches": ("trainer.total_training_steps",),
    "rllm.trainer.logger": ("trainer.logger",),
    "rllm.trainer.project_name": ("trainer.project_name",),
    "rllm.trainer.experiment_name": ("trainer.experiment_name",),
    "rllm.data.train_batch_size": ("data.train_batch_size",),
    "rllm.data.max_prompt_length": ("data.max_prompt_length",),
    "rllm.data.max_response_length": ("data.max_response_length",),
}
"""rLLM's key -> verl's: _SHARED_KEYS of rllm/trainer/verl/utils.py and the three that its sync_config treats apart."""
_FIRST: Final = {second: first for first, seconds in TWINS.items() for second in seconds}
_DERIVED: Final = {
    f"{_ACTOR}.use_kl_loss": "rllm.algorithm.kl_beta",
    f"{_ACTOR}.ppo_mini_batch_size": "rllm.async_training.mini_batch_size",
    "actor_rollout_ref.hybrid_engine": "rllm.async_training.enable",
    f"{_ROLLOUT}.checkpoint_engine.backend": "rllm.async_training.enable",
}
"""verl's key -> what rLLM's sync_config sets it from."""
_RECIPES: Final = {
    "aem": "aem.enabled and aem.lambda",
    "aem_swe": "its own keys",
    "trainer.default_local_dir": "run_dir",
    "trainer.resume_mode": "--resume",
    "model.name": "model.path",
    "ray_init.address": "cluster.ray_address",
}
"""What a recipe has keys of its own for; said behind its back, the run folder would tell of another run."""
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = {"null", "true", "false", "nan", "inf", "yes", "no", "on", "off"}


def doubled(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add verl's twin behind every key of rLLM's that has one. A key that is taken away (~) has no twin."""
    both: dict[str, Any] = {}
    for key, value in settings.items():
        both[key] = value
        both |= dict.fromkeys(TWINS.get(key.lstrip("+"), ()), value)
    return both


def same_setting(key: str) -> tuple[str, ...]:
    """All names of a setting: rLLM's and verl's are made equal when a run starts, and only one of them is read."""
    first = _FIRST.get(key, key)
    return (first, *TWINS.get(first, ()))


def require_first(verl: Mapping[str, Any]) -> None:
    """Raise ConfigError for a verl key that rLLM would overwrite with its own, or that is the recipe's to set."""
    for key in verl:
        for ours, instead in _RECIPES.items():
            if f"{key.lstrip('+~')}.".startswith(f"{ours}."):
                raise ConfigError(f"cluster.verl sets {key}, which is the recipe's own to set; use {instead}")
        first = _FIRST.get(key.lstrip("+~")) or _DERIVED.get(key.lstrip("+~"))
        if first is not None:
            name = first.removeprefix("rllm.")
            raise ConfigError(
                f"cluster.verl sets {key}, which rLLM overwrites with {first}; use the recipe's own key for it, or"
                f" cluster.rllm.{name}={verl[key]}"
            )


def hydra_value(value: Any) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        return "'" + re.sub(r"(\\*)('|$)", _escaped, value) + "'"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{hydra_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(hydra_value(inner) for inner in value) + "]"
    return repr(value)


def _escaped(found: re.Match[str]) -> str:
    """Backslashes count only before a quote, where each is doubled; the quote gets one of its own."""
    return found[1] * 2 + (r"\'" if found[2] else "")
