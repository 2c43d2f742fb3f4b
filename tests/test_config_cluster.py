"""Recipes for a cluster: what fits together, what either engine cannot do, and keys that are handed on."""

import re
from pathlib import Path

import pytest
import yaml
from command_line import REPOSITORY

from aem_swe.config import KEYS, dump_recipe, load_recipe
from aem_swe.errors import ConfigError
from aem_swe.resources import resource
from aem_swe.schema_cluster import Cluster

BASES = ["deepswe_grpo", "deepswe_dapo", "deepswe_gspo"]
ALL = ["deepswe", "deepswe_aem", "deepswe_1node", "deepswe_smoke_1gpu", *BASES]


def complaint(recipe: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as raised:
        load_recipe(recipe, overrides)
    message = str(raised.value)
    assert "\n" not in message
    return message


def lines(recipe: str) -> list[str]:
    return resource("configs", f"{recipe}.yaml").read_text().splitlines()


def test_deepswe_and_deepswe_aem_differ_in_one_line() -> None:
    differing = [pair for pair in zip(lines("deepswe"), lines("deepswe_aem"), strict=True) if pair[0] != pair[1]]
    assert differing == [("  enabled: false", "  enabled: true")]
    plain, aem = load_recipe("deepswe"), load_recipe("deepswe_aem")
    assert (plain.aem.enabled, aem.aem.enabled) == (False, True)
    assert plain.model_copy(update={"aem": aem.aem, "recipe": "", "run_dir": ""}) == aem.model_copy(
        update={"recipe": "", "run_dir": ""}
    )


def test_deepswe_is_what_the_published_script_says() -> None:
    recipe = load_recipe("deepswe")
    assert (recipe.engine, recipe.model.path) == ("rllm", "Qwen/Qwen3-32B")
    assert (recipe.sampling.prompts, recipe.sampling.rollouts, recipe.sampling.temperature) == (8, 8, 1.0)
    assert (recipe.cluster.max_prompt_tokens, recipe.agent.response_budget) == (4096, 32768)
    assert (recipe.agent.max_steps, recipe.agent.trajectory_timeout_s, recipe.sandbox.command_timeout_s) == (
        50,
        5400,
        90,
    )
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay, recipe.optimizer.grad_clip) == (1e-6, 0.01, 1.0)
    assert recipe.optimizer.warmup_steps == 0
    algorithm = recipe.algorithm
    assert (algorithm.advantage, algorithm.clip_low, algorithm.clip_high) == ("leave_one_out", 0.2, 0.28)
    assert (algorithm.aggregation, algorithm.kl_coefficient, algorithm.filter) == ("seq-sum-over-budget", 0.0, "mask")
    assert not recipe.sampling.drop_uniform_groups
    cluster = recipe.cluster
    assert (cluster.nodes, cluster.gpus_per_node, cluster.mode) == (8, 8, "sync")
    assert (cluster.tensor_parallel, cluster.sequence_parallel, cluster.offload) == (8, 8, True)
    assert (cluster.gpu_memory_utilization, cluster.val_temperature) == (0.6, 0.0)


@pytest.mark.parametrize(
    ("name", "algorithm", "others"),
    [
        (
            "deepswe_grpo",
            {"advantage": "grpo", "clip_low": 0.2, "clip_high": 0.2, "aggregation": "seq-mean-token-mean",
             "kl_coefficient": 0.04},
            {},
        ),
        (
            "deepswe_dapo",
            {"advantage": "grpo", "clip_low": 0.2, "clip_high": 0.28, "aggregation": "token-mean",
             "overlong_buffer": 4096, "filter": "off"},
            {"sampling": {"drop_uniform_groups": True}, "cluster": {"mode": "fully_async"}},
        ),
        (
            "deepswe_gspo",
            {"advantage": "grpo", "loss": "gspo", "gspo_unit": "trajectory", "clip_low": 3e-4, "clip_high": 4e-4,
             "aggregation": "seq-mean-token-mean"},
            {"trainer": {"minibatches": 4}},
        ),
    ],
)  # fmt: skip
def test_the_other_algorithms_are_deepswes_run_but_for_the_algorithm(
    name: str, algorithm: dict[str, object], others: dict[str, dict[str, object]]
) -> None:
    expected = load_recipe("deepswe").model_dump(by_alias=True)
    for section, keys in {"algorithm": algorithm, **others}.items():
        expected[section] |= keys
    assert load_recipe(name).model_dump(by_alias=True) == {**expected, "recipe": name, "run_dir": f"runs/{name}"}


@pytest.mark.parametrize("name", BASES)
def test_every_algorithm_takes_aem_with_one_override(name: str) -> None:
    plain, aem = load_recipe(name), load_recipe(name, ["aem.enabled=true"])
    assert not plain.aem.enabled and aem == plain.model_copy(update={"aem": aem.aem})


@pytest.mark.parametrize("name", ALL)
def test_every_value_of_a_cluster_recipe_says_where_it_comes_from(name: str) -> None:
    body = "\n".join(line for line in lines(name) if not line.startswith("#"))
    legend = ("v0.1", "2025-08", "eager", "write-up", "AEM", "ours", "as deepswe", "GRPO", "DAPO", "GSPO")
    plain = {"engine: rllm", "kind: docker", "enabled: true", "enabled: false", "nodes: 1", "gpus_per_node: 1"}
    for line in body.splitlines():
        value = line.strip()
        if value and not value.endswith(":") and value not in plain:
            assert any(origin in line.partition("#")[2] for origin in legend), line


@pytest.mark.parametrize("name", ["deepswe", "deepswe_aem", "deepswe_1node"])
def test_the_embedded_engine_says_what_of_a_cluster_recipe_it_cannot_do(name: str) -> None:
    said = complaint(name, "engine=local")
    assert said.startswith("engine local is one process on one device and cannot run Qwen/Qwen3-32B")
    assert "8 GPUs" in said and ("8 nodes" in said) == (name != "deepswe_1node")
    assert said.endswith("use engine=rllm, or the recipe demo")


def test_a_recipe_for_one_gpu_is_fine_with_either_engine() -> None:
    assert load_recipe("deepswe_smoke_1gpu", ["engine=local"]).engine == "local"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["aem.entropy_source=surprisal"], "aem.entropy_source surprisal"),
        (["cluster.recompute_old_logprobs=false"], "cluster.recompute_old_logprobs=false"),
        (["cluster.nodes=2"], "2 nodes"),
        (["cluster.mode=fully_async", "cluster.gpus_per_node=2"], "2 GPUs, cluster.mode fully_async"),
        (["cluster.verl.trainer.device=cpu"], "keys of cluster.verl and cluster.rllm"),
    ],
)
def test_the_embedded_engine_ignores_nothing(overrides: list[str], message: str) -> None:
    assert f"({message})" in complaint("demo", *overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.device=cuda", "trainer.threads=2"], "engine rllm has no use for model.device=cuda, trainer.threads=2"),
        (["cluster.recompute_old_logprobs=false"], "aem.enabled has no entropies with cluster.recompute_old_logprobs"),
        (
            ["sampling.max_rounds=2", "sampling.drop_uniform_groups=true"],
            "sampling.max_rounds above 1 (with cluster.mode=fully_async, rLLM itself plays on) is not there with",
        ),
        (["algorithm.layout=turn"], "algorithm.layout turn is not there with engine rllm"),
        (["aem.analysis=fall"], "aem.analysis fall is not there with engine rllm; leave it out, or use engine=local"),
        (["algorithm.loss=gspo", "algorithm.gspo_unit=response"], "algorithm.gspo_unit response is not there"),
        (["sampling.drop_uniform_groups=true"], "sampling.drop_uniform_groups outside cluster.mode=fully_async"),
        (["cluster.staleness_threshold=0.5"], "need cluster.mode=fully_async; leave them out"),
        (["cluster.mode=fully_async", "cluster.rollout_gpus=64"], "cluster.rollout_gpus 64 of 64 GPUs leaves no GPU"),
        (["cluster.mode=fully_async", "cluster.rollout_gpus=12"], "12 is no number of whole nodes of 8"),
        (["cluster.tensor_parallel=6"], "cluster.tensor_parallel 6 does not divide 64 GPUs of rollout"),
        (["cluster.sequence_parallel=6"], "cluster.sequence_parallel 6 does not divide 64 GPUs of training"),
        (["cluster.tokens_per_gpu=4607"], "4607 x sequence_parallel 8 is less than a row of 36864 tokens"),
        (["cluster.gpu_memory_utilization=1.5"], "less than or equal to 1"),
        (["cluster.verl.a b=1"], "key 'a b' should be dotted words"),
        (["cluster.logger=wandb"], "cluster.logger 'wandb' is not usable: it is a list; write cluster.logger=[wandb]"),
        (["cluster.verl=3"], "cluster.verl 3 is not usable"),
        (["cluster.node=2"], "key 'cluster.node' is unknown; did you mean 'cluster.nodes'?"),
    ],
)
def test_what_does_not_fit_together_is_one_line(overrides: list[str], message: str) -> None:
    assert message in complaint("deepswe_aem", *overrides)


def test_without_entropies_the_stand_in_or_no_aem_will_do() -> None:
    bypass = "cluster.recompute_old_logprobs=false"
    assert load_recipe("deepswe_aem", [bypass, "aem.entropy_source=surprisal"]).aem.entropy_source == "surprisal"
    assert load_recipe("deepswe", [bypass]).cluster.recompute_old_logprobs is False


def test_a_row_that_just_fits_is_accepted() -> None:
    assert load_recipe("deepswe", ["cluster.tokens_per_gpu=4608"]).cluster.tokens_per_gpu == 4608


@pytest.mark.parametrize(
    ("keys", "generating", "training"),
    [
        ({"nodes": 8, "gpus_per_node": 8}, 64, 64),
        ({"nodes": 8, "gpus_per_node": 8, "mode": "fully_async"}, 32, 32),
        ({"nodes": 3, "gpus_per_node": 8, "mode": "fully_async"}, 8, 16),
        ({"nodes": 4, "gpus_per_node": 8, "mode": "fully_async", "rollout_gpus": 24}, 24, 8),
        ({"gpus_per_node": 8, "mode": "fully_async"}, 4, 4),
        ({"gpus_per_node": 8, "mode": "fully_async", "rollout_gpus": 6}, 6, 2),
    ],
)
def test_gpus_are_shared_or_divided(keys: dict[str, object], generating: int, training: int) -> None:
    cluster = Cluster.model_validate(keys)
    assert (cluster.generating, cluster.training) == (generating, training)


def test_extra_keys_may_be_nested_or_dotted_and_the_command_line_wins(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    extra = {"trainer.device": "cpu", "actor_rollout_ref": {"rollout": {"enforce_eager": False, "max_num_seqs": 8}}}
    path.write_text(yaml.safe_dump({"engine": "rllm", "cluster": {"verl": extra}}))
    recipe = load_recipe(
        str(path), ["cluster.verl.actor_rollout_ref.rollout.enforce_eager=true", "cluster.verl.+a.b=1"]
    )
    assert recipe.cluster.verl == {
        "trainer.device": "cpu",
        "actor_rollout_ref.rollout.enforce_eager": True,
        "actor_rollout_ref.rollout.max_num_seqs": 8,
        "+a.b": 1,
    }
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe


def test_keys_of_the_cluster_are_read_from_the_command_line() -> None:
    cluster = load_recipe(
        "deepswe", ["cluster.logger=[console]", "cluster.ray_address=auto", "cluster.nodes=2"]
    ).cluster
    assert (cluster.logger, cluster.ray_address, cluster.nodes) == (("console",), "auto", 2)


def test_every_key_that_the_recipes_page_names_exists() -> None:
    text = (REPOSITORY / "docs" / "recipes.md").read_text()
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    named = {
        word.partition("=")[0] for word in re.findall(r"`([a-z_]+\.[a-z_.]+(?:=[^`]*)?)`", text)
        if word.partition(".")[0] in sections
    }  # fmt: skip
    named = {name for name in named if not name.startswith(("cluster.verl.", "cluster.rllm.", "trainer.", "actor."))}
    assert {"cluster.nodes", "sampling.drop_uniform_groups"} <= named <= {*KEYS, "cluster.verl", "cluster.rllm"}
