"""A recipe in the words of rLLM and verl: what must be said, and that the installed ones understand it."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aem_swe.config import load_recipe
from aem_swe.engines.rllm.settings import cluster_config, overrides_of
from aem_swe.engines.rllm.twins import TWINS, doubled, hydra_value
from aem_swe.engines.rllm.versions import INSTALL, folder_of
from aem_swe.errors import ConfigError

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


def said(recipe: str, *overrides: str) -> dict[str, str]:
    """{key: value as text} of the overrides; a key that is taken away has no value."""
    words = overrides_of(load_recipe(recipe, overrides))
    found = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    assert len(found) == len(words)
    return found


def test_deepswe_in_the_words_of_verl() -> None:
    words = said("deepswe")
    expected = {
        "rllm.algorithm.adv_estimator": "aem_swe_leave_one_out",
        f"{ACTOR}.policy_loss.loss_mode": "vanilla",
        f"{ACTOR}.clip_ratio_low": "0.2",
        f"{ACTOR}.clip_ratio_high": "0.28",
        f"{ACTOR}.clip_ratio_c": "1000000.0",
        f"{ACTOR}.loss_agg_mode": "seq-mean-token-sum-norm",
        f"{ACTOR}.loss_scale_factor": "32768",
        f"{ACTOR}.use_kl_loss": "false",
        f"{ACTOR}.entropy_coeff": "0",
        f"{ACTOR}.optim.lr": "1e-06",
        f"{ACTOR}.optim.weight_decay": "0.01",
        f"{ACTOR}.optim.lr_scheduler_type": "constant",
        f"{ACTOR}.optim.clip_grad": "1.0",
        f"{ACTOR}.fsdp_config.entropy_from_logits_with_chunking": "true",
        f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size": "8",
        f"{ACTOR}.fsdp_config.param_offload": "true",
        f"{ACTOR}.fsdp_config.optimizer_offload": "true",
        f"{ACTOR}.use_dynamic_bsz": "true",
        f"{ACTOR}.ppo_max_token_len_per_gpu": "4608",
        f"{ACTOR}.ppo_mini_batch_size": "8",
        f"{ROLLOUT}.n": "8",
        f"{ROLLOUT}.temperature": "1.0",
        f"{ROLLOUT}.val_kwargs.temperature": "0.0",
        f"{ROLLOUT}.val_kwargs.do_sample": "false",
        f"{ROLLOUT}.max_model_len": "36864",
        f"{ROLLOUT}.logprobs_mode": "processed_logprobs",
        f"{ROLLOUT}.tensor_model_parallel_size": "8",
        "algorithm.rollout_correction.bypass_mode": "false",
        "data.train_batch_size": "8",
        "data.max_prompt_length": "4096",
        "data.max_response_length": "32768",
        "trainer.nnodes": "8",
        "trainer.n_gpus_per_node": "8",
        "trainer.total_training_steps": "200",
        "trainer.resume_mode": "auto",
        "trainer.val_before_train": "false",
        "+aem": "{enabled:false,lambda:1.0,group:trained,entropy_source:policy}",
    }
    assert {key: words.get(key) for key in expected} == expected
    assert words["trainer.default_local_dir"] == str(Path.cwd() / "runs" / "deepswe" / "checkpoints")
    assert "hf_model" in words[f"{ACTOR}.checkpoint.save_contents"]
    assert "hf_model" not in words[f"{ACTOR}.checkpoint.load_contents"]


def test_the_two_recipes_say_the_same_but_for_aem_and_their_names() -> None:
    plain, aem = said("deepswe", "run_dir=runs/x"), said("deepswe_aem", "run_dir=runs/x")
    assert {key for key in plain.keys() | aem.keys() if plain.get(key) != aem.get(key)} == {"+aem"}
    assert aem["+aem"] == "{enabled:true,lambda:1.0,group:trained,entropy_source:policy}"


def test_the_gateway_is_given_no_length_so_the_agents_own_reaches_the_server() -> None:
    words = said("deepswe")
    assert {"~rllm.rollout.train.max_tokens", "~rllm.rollout.val.max_tokens"} <= words.keys()
    assert not [key for key in words if key.endswith("response_length") and key.startswith(ROLLOUT)]


@pytest.mark.parametrize(("filtering", "beyond_errors"), [("mask", "false"), ("off", "false"), ("drop", "true")])
def test_only_drop_takes_truncated_trajectories_out_of_the_baseline(filtering: str, beyond_errors: str) -> None:
    words = said("deepswe", f"algorithm.filter={filtering}")
    below = "rllm.compact_filtering"
    assert (words[f"{below}.enable"], words[f"{below}.mask_error"]) == ("true", "true")
    for reason in ("max_turns_exceeded", "max_response_length_exceeded", "max_prompt_length_exceeded", "timeout"):
        assert words[f"{below}.mask_{reason}"] == beyond_errors
    assert words[f"{below}.mask_env_done"] == words[f"{below}.mask_unknown"] == "false"


@pytest.mark.parametrize("advantage", ["leave_one_out", "grpo", "mean_baseline"])
def test_each_advantage_has_its_estimator(advantage: str) -> None:
    words = said("deepswe", f"algorithm.advantage={advantage}")
    assert words["rllm.algorithm.adv_estimator"] == words["algorithm.adv_estimator"] == f"aem_swe_{advantage}"


def test_other_algorithms_reach_verl() -> None:
    words = said(
        "deepswe", "algorithm.loss=gspo", "algorithm.aggregation=token-mean", "algorithm.kl_coefficient=0.01",
        "optimizer.warmup_steps=5", "trainer.minibatches=4", "model.dtype=float32", "trainer.save_every=0",
        "trainer.eval_every=0", "cluster.recompute_old_logprobs=false", "cluster.val_temperature=0.6",
    )  # fmt: skip
    assert words[f"{ACTOR}.policy_loss.loss_mode"] == "gspo"
    assert words[f"{ACTOR}.loss_agg_mode"] == "token-mean" and f"{ACTOR}.loss_scale_factor" not in words
    assert (words[f"{ACTOR}.use_kl_loss"], words[f"{ACTOR}.kl_loss_coef"]) == ("true", "0.01")
    assert words["actor_rollout_ref.ref.fsdp_config.param_offload"] == "true"
    assert words[f"{ACTOR}.optim.lr_warmup_steps"] == "5"
    assert words[f"{ACTOR}.ppo_mini_batch_size"] == "2"
    assert "param_dtype:fp32" in words[f"+{ACTOR}.fsdp_config.mixed_precision"]
    assert words[f"{ROLLOUT}.dtype"] == "float32"
    assert words["trainer.save_freq"] == words["trainer.test_freq"] == "-1"
    assert words["algorithm.rollout_correction.bypass_mode"] == "true"
    assert words[f"{ROLLOUT}.val_kwargs.do_sample"] == "true"


def test_grpo_in_the_words_of_verl() -> None:
    words = said("deepswe_grpo")
    expected = {
        "algorithm.adv_estimator": "aem_swe_grpo", f"{ACTOR}.policy_loss.loss_mode": "vanilla",
        f"{ACTOR}.clip_ratio_low": "0.2", f"{ACTOR}.clip_ratio_high": "0.2",
        f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean", f"{ACTOR}.use_kl_loss": "true",
        f"{ACTOR}.kl_loss_coef": "0.04", f"{ACTOR}.kl_loss_type": "low_var_kl", f"{ACTOR}.ppo_mini_batch_size": "8",
    }  # fmt: skip
    assert {key: words.get(key) for key in expected} == expected
    assert f"{ACTOR}.loss_scale_factor" not in words


def test_dapo_in_the_words_of_rllm_and_verl() -> None:
    words = said("deepswe_dapo")
    expected = {
        "algorithm.adv_estimator": "aem_swe_grpo", f"{ACTOR}.clip_ratio_low": "0.2", f"{ACTOR}.clip_ratio_high": "0.28",
        f"{ACTOR}.loss_agg_mode": "token-mean", f"{ACTOR}.use_kl_loss": "false",
        "rllm.rejection_sample.filter_uniform_groups": "true", "rllm.async_training.enable": "true",
        "rllm.async_training.mini_batch_size": "8", "rllm.async_training.staleness_threshold": "0.0",
        "rllm.compact_filtering.mask_max_response_length_exceeded": "false",
    }  # fmt: skip
    assert {key: words.get(key) for key in expected} == expected


def test_gspo_in_the_words_of_verl() -> None:
    words = said("deepswe_gspo")
    expected = {
        "algorithm.adv_estimator": "aem_swe_grpo", f"{ACTOR}.policy_loss.loss_mode": "gspo",
        f"{ACTOR}.clip_ratio_low": "0.0003", f"{ACTOR}.clip_ratio_high": "0.0004",
        f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean", f"{ACTOR}.ppo_mini_batch_size": "2",
        f"{ACTOR}.use_kl_loss": "false",
    }  # fmt: skip
    assert {key: words.get(key) for key in expected} == expected


def test_fully_async_divides_the_gpus() -> None:
    words = said("deepswe", "cluster.mode=fully_async", "cluster.rollout_gpus=40", "cluster.staleness_threshold=0.5",
                 "cluster.trigger_step=2", "sampling.drop_uniform_groups=true")  # fmt: skip
    assert (words["trainer.nnodes"], words["trainer.n_gpus_per_node"]) == ("3", "8")
    assert (words["rollout.nnodes"], words["rollout.n_gpus_per_node"]) == ("5", "8")
    asynchronous = {key.rpartition(".")[2]: value for key, value in words.items() if "async_training" in key}
    assert asynchronous == {
        "enable": "true", "mini_batch_size": "8", "staleness_threshold": "0.5", "trigger_parameter_sync_step": "2"
    }  # fmt: skip
    assert words["rllm.data.train_batch_size"] == words["data.train_batch_size"] == "1"
    assert words["rllm.rejection_sample.filter_uniform_groups"] == "true"
    assert (words["actor_rollout_ref.hybrid_engine"], words[f"{ROLLOUT}.checkpoint_engine.backend"]) == (
        "false",
        "nccl",
    )


def test_fully_async_divides_one_node_too() -> None:
    words = said("deepswe_1node", "cluster.mode=fully_async", "cluster.sequence_parallel=2", "cluster.rollout_gpus=4")
    assert (words["trainer.nnodes"], words["trainer.n_gpus_per_node"]) == ("1", "4")
    assert (words["rollout.nnodes"], words["rollout.n_gpus_per_node"]) == ("1", "4")


def test_keys_that_are_handed_on_come_last_and_are_doubled_where_there_are_two() -> None:
    recipe = load_recipe(
        "deepswe",
        ["cluster.verl.actor_rollout_ref.rollout.enforce_eager=true", "cluster.rllm.rollout.n=4",
         "cluster.rllm.+gateway.extra=1", "cluster.verl.actor_rollout_ref.actor.strategy=fsdp"],
    )  # fmt: skip
    words = overrides_of(recipe)
    assert words[-1] == f"{ROLLOUT}.enforce_eager=true"
    assert {"rllm.rollout.n=4", f"{ROLLOUT}.n=4", "+rllm.gateway.extra=1", f"{ACTOR}.strategy=fsdp"} <= set(words)
    assert f"{ROLLOUT}.n=8" not in words


def test_a_key_of_verl_that_rllm_would_overwrite_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        overrides_of(load_recipe("deepswe", [f"cluster.verl.{ROLLOUT}.n=4"]))
    assert str(raised.value) == (
        f"cluster.verl sets {ROLLOUT}.n, which rLLM overwrites with rllm.rollout.n; use the recipe's own key for it, or"
        " cluster.rllm.rollout.n=4"
    )


def test_every_setting_with_a_twin_is_given_with_it() -> None:
    for words in (said("deepswe"), said("deepswe_1node", "cluster.mode=fully_async", "cluster.sequence_parallel=1")):
        for first, seconds in TWINS.items():
            for second in seconds:
                assert words.get(first) == words.get(second), first
    assert doubled({"+rllm.rollout.train.top_k": 5}) == {"+rllm.rollout.train.top_k": 5, f"{ROLLOUT}.top_k": 5}


@pytest.mark.skipif(folder_of("rllm") is not None, reason="rllm is installed here: another test composes with it")
def test_without_rllm_the_error_is_the_install_command() -> None:
    with pytest.raises(ConfigError) as raised:
        cluster_config(load_recipe("deepswe"))
    assert str(raised.value).startswith("engine rllm needs rllm")
    assert str(raised.value).endswith(f"install it with: {INSTALL}")
    assert "\n" not in str(raised.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
    | st.sampled_from(["null", "True", "a b", "it's", "\\", "a\\'", "${x", "1", "1e3", "[a]", "", "a=b", "x:y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b_c"]), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(VALUES)
def test_hydra_reads_every_value_as_it_was(value: Any) -> None:
    parser = pytest.importorskip("hydra.core.override_parser.overrides_parser", reason=f"hydra is missing: {INSTALL}")
    override = parser.OverridesParser.create().parse_override(f"key={hydra_value(value)}")
    assert override.value() == value


@pytest.fixture(scope="module")
def rllm() -> Any:  # rLLM has no types
    """rLLM's own configuration code, as it runs with the installed verl."""
    pytest.importorskip("rllm.trainer.verl.utils", reason=f"rllm is missing: {INSTALL}", exc_type=ImportError)
    from aem_swe.engines.rllm import compat  # noqa: F401  # on verl 0.9 rLLM's sync_config fails without it

    return importlib.import_module("rllm.trainer.verl.utils")


@pytest.mark.rllm
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("deepswe", []),
        ("deepswe_aem", []),
        ("deepswe_1node", []),
        ("deepswe_smoke_1gpu", []),
        ("deepswe_grpo", ["aem.enabled=true"]),
        ("deepswe_dapo", ["aem.enabled=true"]),
        ("deepswe_gspo", ["aem.enabled=true"]),
        ("deepswe", ["cluster.mode=fully_async", "cluster.trigger_step=2", "cluster.rollout_gpus=8"]),
        ("deepswe", ["algorithm.loss=gspo", "algorithm.advantage=grpo", "algorithm.kl_coefficient=0.01"]),
        ("deepswe", ["model.dtype=float32", "algorithm.aggregation=token-mean", "trainer.eval_every=0"]),
        ("deepswe", ["cluster.rllm.trainer.save_freq=3", "cluster.rllm.rollout.train.top_p=0.9"]),
    ],
)
def test_what_is_composed_is_what_rllm_runs_and_verl_accepts_it(rllm: Any, recipe: str, overrides: list[str]) -> None:
    from omegaconf import OmegaConf
    from verl.utils.config import validate_config

    config = cluster_config(load_recipe(recipe, overrides))
    before = OmegaConf.to_container(config, resolve=True)
    rllm.sync_config(config, [])
    assert OmegaConf.to_container(config, resolve=True) == before
    validate_config(config, use_reference_policy=config.actor_rollout_ref.actor.use_kl_loss, use_critic=False)
    assert "max_tokens" not in config.rllm.rollout.train and "max_tokens" not in config.rllm.rollout.val


@pytest.mark.rllm
def test_the_twins_are_rllms_own(rllm: Any) -> None:
    theirs = {(first, second) for second, first in rllm._SHARED_KEYS if "router_replay" not in second}
    ours = {(first, second) for first, seconds in TWINS.items() for second in seconds}
    apart = {"rllm.trainer.total_batches", "rllm.algorithm.lr_schedule", "rllm.algorithm.eps_clip"}
    assert {pair for pair in ours if pair[0] not in apart} == theirs


@pytest.mark.rllm
@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        ("leave_one_out", [[0.75, -0.5, -0.5, 0.75, -0.5], [0.0, 0.0]]),  # 1 - 1/4; 0 - 2/4
        ("mean_baseline", [[0.6, -0.4, -0.4, 0.6, -0.4], [0.0, 0.0]]),
        ("grpo", [[1.09544, -0.7303, -0.7303, 1.09544, -0.7303], [0.0, 0.0]]),  # 0.6 / sqrt(1.2 / 4)
    ],
)
def test_rllm_computes_our_advantages(rllm: Any, advantage: str, expected: list[list[float]]) -> None:
    import numpy
    from rllm.trainer.algorithms.advantage import get_rllm_adv_estimator

    from aem_swe.engines.rllm.estimators import estimator_of

    estimate = get_rllm_adv_estimator(estimator_of(advantage)["swe"])
    rewards = [numpy.array([1.0, 0.0, 0.0, 1.0, 0.0]), numpy.array([1.0, 1.0])]
    advantages, returns = estimate(rewards=rewards, algorithm_config=None, traj_groups=[])
    assert [found.tolist() for found in advantages] == [pytest.approx(row, abs=1e-4) for row in expected]
    assert len(returns) == 2


@pytest.mark.rllm
def test_a_key_that_rllm_and_verl_do_not_know_is_one_line(rllm: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        cluster_config(load_recipe("deepswe", ["cluster.verl.actor_rollout_ref.rollout.enforce_eagre=true"]))
    message = str(raised.value)
    assert "enforce_eagre" in message and "\n" not in message
    assert message.endswith("compare versions with: aem-swe doctor deepswe")
