"""AEM in verl's RayPPOTrainer: a real FSDP2 worker under Ray on the CPU, against Hugging Face and plain loops."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("default")]  # verl's and Ray's own warnings
if importlib.util.find_spec("verl") is None:
    pytest.skip("needs verl and Ray: make test-verl installs them", allow_module_level=True)
# before verl is imported anywhere: it reads these then
HERE = Path(__file__).parent
os.environ |= {"VERL_USE_EXTERNAL_MODULES": "verl_on_cpu", "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import verl_scene as scene

    folder = scene.make_model(tmp_path_factory.mktemp("model"))
    scene.make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    environment = {key: os.environ[key] for key in ("VERL_USE_EXTERNAL_MODULES", "VERL_PLATFORM", "HF_HUB_OFFLINE")}
    ray.init(
        num_cpus=4, num_gpus=1, include_dashboard=False, runtime_env={"env_vars": environment | {"PYTHONPATH": paths}}
    )
    yield
    ray.shutdown()


def make_trainer(config: Any, worker: Any, *, aem: bool = True) -> Any:
    """The trainer without data, logging and rollout: the two steps that AEM hooks into are verl's own."""
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    from aem_swe.engines.verl.ray_trainer import with_aem
    from aem_swe.engines.verl.settings import read_settings

    kind = with_aem(RayPPOTrainer) if aem else RayPPOTrainer
    trainer = object.__new__(kind)
    trainer.config, trainer.actor_rollout_wg, trainer._aem = config, worker, read_settings(config)
    return trainer


def step(trainer: Any, batch: Any) -> Any:
    """What fit() does between rollout and logging. Returns the metrics of the update."""
    from verl.trainer.ppo.core_algos import AdvantageEstimator
    from verl.trainer.ppo.ray_trainer import compute_advantage

    old, _ = trainer._compute_old_log_prob(batch)
    old.batch.pop("entropys")
    batch = batch.union(old)
    batch = compute_advantage(batch, adv_estimator=AdvantageEstimator.RLOO, num_repeat=3)
    base = batch.batch["advantages"].clone()
    output = trainer._update_actor(batch)
    return batch, base, output


def test_the_advantages_are_scaled_as_hugging_face_and_plain_loops_say(cluster: None, model: Path) -> None:
    import torch
    import verl_scene as scene

    config = scene.verl_config(model, "trainer.use_v1=False", "+aem.lambda=1.0")
    worker = scene.make_worker(config)
    batch, base, output = step(make_trainer(config, worker), scene.make_batch())
    alpha = scene.expected_alpha(model, batch)
    mask = batch.batch["response_mask"].bool()
    assert base[mask].abs().max() > 0
    difference = (batch.batch["advantages"].double() - base.double() * alpha)[mask].abs().max()
    assert difference < 1e-5
    assert (alpha[mask] - 1).abs().max() > 0.1
    assert torch.equal(batch.batch["returns"][mask], base[mask])
    assert output.meta_info["metrics"]["aem/responses"] == [9.0]
    assert output.meta_info["metrics"]["aem/borders_from_mask"] == [1.0]


def test_lambda_0_and_aem_off_are_stock_verl_bit_for_bit(cluster: None, model: Path) -> None:
    import torch
    import verl_scene as scene

    results = []
    for overrides, aem in ((["+aem.lambda=0"], True), (["+aem.enabled=false"], True), ([], False)):
        config = scene.verl_config(model, "trainer.use_v1=False", *overrides)
        worker = scene.make_worker(config)
        batch, _, output = step(make_trainer(config, worker, aem=aem), scene.make_batch())
        again, _ = make_trainer(config, worker, aem=False)._compute_old_log_prob(scene.make_batch())
        numbers = {k: v for k, v in output.meta_info["metrics"].items() if "aem/" not in k and "perf" not in k}
        results.append((batch.batch["advantages"], again.batch["old_log_probs"], numbers))
    for advantages, logprobs, numbers in results[1:]:
        assert torch.equal(advantages, results[0][0])
        assert torch.equal(logprobs, results[0][1])  # after the update: the same weights
        assert numbers.keys() == results[0][2].keys()


def test_a_run_without_entropies_is_refused_with_the_remedy(model: Path) -> None:
    import verl_scene as scene
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    from aem_swe.engines.verl.ray_trainer import with_aem
    from aem_swe.errors import ConfigError

    config = scene.verl_config(model, "algorithm.rollout_correction.bypass_mode=true")
    with pytest.raises(ConfigError, match="bypass_mode leaves out the old-log-prob pass"):
        with_aem(RayPPOTrainer)(config)
    config = scene.verl_config(
        model, "algorithm.rollout_correction.bypass_mode=true", "+aem.entropy_source=surprisal",
        "actor_rollout_ref.rollout.calculate_log_probs=false",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="needs the rollout's log-probs"):
        with_aem(RayPPOTrainer)(config)


def test_the_v1_trainer_is_registered_under_its_name() -> None:
    pytest.importorskip("transfer_queue")
    from verl.trainer.ppo.v1 import PPOTrainerSync, get_trainer_cls

    import aem_swe.engines.verl.v1 as v1

    assert get_trainer_cls("aem_sync") is v1.AEMTrainerSync
    assert issubclass(v1.AEMTrainerSync, PPOTrainerSync)
