"""AEM in verl's RayPPOTrainer (0.8 and 0.9): two real FSDP2 workers under Ray on the CPU, against plain loops."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verl_installed import VERL

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("default")]  # verl's and Ray's own warnings
HAS_V1 = VERL >= "0.9"
if not VERL:
    pytest.skip("needs verl and Ray: make test-verl installs them", allow_module_level=True)
RLOO = "algorithm.adv_estimator=rloo"


@pytest.mark.parametrize("touching", ["apart", "merged"])
def test_the_advantages_are_those_of_hugging_face_and_plain_loops(workers: Any, model: Path, touching: str) -> None:
    """Padding, balanced order, two ranks, masked, truncated and touching responses, with exact borders and without."""
    import verl_scene as scene
    import verl_steps as steps

    batch = scene.make_batch()
    if touching == "merged":
        del batch.non_tensor_batch["turn_lengths"]
    step = steps.ray_step(scene.verl_config(model, RLOO, "+aem.lambda=1.0"), workers, batch=batch)
    expected = scene.expected_advantages(model, touching=touching)
    assert list(step.advantages) != sorted(step.advantages)  # balanced: another order
    for row, advantages in step.advantages.items():
        assert (advantages.double() - expected[row]).abs().max() < 1e-5
    responses = sum(len(turns if touching == "apart" else scene.runs(turns)) for turns in scene.TURNS)
    assert step.metrics["aem/responses"] == responses
    assert step.metrics["aem/groups"] == 2
    assert step.metrics["aem/borders_from_mask"] == (touching == "merged")
    assert step.metrics["aem/alpha_max"] > 1.1


def test_lambda_0_and_aem_off_are_stock_verl_bit_for_bit(workers: Any, model: Path) -> None:
    import torch
    import verl_scene as scene
    import verl_steps as steps

    runs = [([], False), (["+aem.enabled=false"], True), (["+aem.lambda=0"], True), ([], True)]
    stock, off, zero, on = (
        steps.ray_step(scene.verl_config(model, RLOO, *overrides), workers, aem=aem) for overrides, aem in runs
    )
    for other in (off, zero):
        assert all(torch.equal(other.advantages[row], stock.advantages[row]) for row in stock.advantages)
        for name, gradient in stock.gradients[0].items():
            assert torch.equal(gradient, other.gradients[0][name])
    numbers = {key for key in stock.metrics if "perf" not in key}
    assert {key for key in off.metrics if "perf" not in key} == numbers
    assert all(off.metrics[key] == zero.metrics[key] == stock.metrics[key] for key in numbers)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(on.gradients[0][name], stock.gradients[0][name])


ALGORITHMS = {
    "grpo": ["algorithm.adv_estimator=grpo"],
    "leave_one_out": ["algorithm.adv_estimator=rloo_vectorized"],
    "dapo": ["algorithm.adv_estimator=grpo", "actor_rollout_ref.actor.clip_ratio_high=0.28",
             "actor_rollout_ref.actor.loss_agg_mode=token-mean"],
    "gspo": ["algorithm.adv_estimator=grpo", "actor_rollout_ref.actor.policy_loss.loss_mode=gspo",
             "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean"],
}  # fmt: skip


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_estimator_and_loss_takes_the_same_scales(workers: Any, model: Path, name: str) -> None:
    import verl_scene as scene
    import verl_steps as steps

    step = steps.ray_step(scene.verl_config(model, *ALGORITHMS[name]), workers)
    alpha_and_base = scene.expected_advantages(model)
    plain = scene.expected_advantages(model, lam=0.0)
    for row, turns in enumerate(scene.TURNS):
        for start, _ in turns:
            if plain[row][start] != 0:
                alpha = float(alpha_and_base[row][start] / plain[row][start])
                scale = float(step.advantages[row][start] / step.base[row][start])
                assert scale == pytest.approx(alpha, abs=1e-5)
    assert len(step.gradients) == 1
    assert sum(float(gradient.abs().sum()) for gradient in step.gradients[0].values()) > 0


def test_the_advantages_of_a_critic_are_rescaled_and_its_returns_are_not(workers: Any, model: Path) -> None:
    """PPO with GAE: whitened, and another one for every token. The critic learns what it would without AEM."""
    import torch
    import verl_scene as scene
    import verl_steps as steps
    from verl.trainer.ppo.ray_trainer import compute_advantage

    config = scene.verl_config(model, "algorithm.adv_estimator=gae", "algorithm.lam=0.95", "+aem.lambda=1.0")
    steps.use_loss(workers, config)
    trainer = steps.ray_trainer(config, workers)
    batch = steps.old_pass(trainer, scene.make_batch())
    generator = torch.Generator().manual_seed(5)
    batch.batch["values"] = torch.randn(batch.batch["response_mask"].shape, generator=generator)  # a critic's
    batch = compute_advantage(batch, adv_estimator="gae", gamma=1.0, lam=0.95, config=config.algorithm)
    base, returns = batch.batch["advantages"].clone(), batch.batch["returns"].clone()
    metrics = trainer._update_actor(batch).meta_info["metrics"]
    assert torch.equal(batch.batch["returns"], returns)
    assert not torch.allclose(base, returns)
    with_alpha, plain = scene.expected_advantages(model), scene.expected_advantages(model, lam=0.0)
    compared = 0
    for place, row in enumerate(batch.non_tensor_batch["row"].tolist()):
        for start, stop in scene.TURNS[row]:
            if plain[row][start] != 0:
                alpha = float(with_alpha[row][start] / plain[row][start])
                expected = base[place, start:stop] * alpha
                assert (batch.batch["advantages"][place, start:stop] - expected).abs().max() < 1e-5
                compared += len(set(expected.tolist())) > 1
    assert compared > 5
    assert metrics["aem/responses"] == [sum(map(len, scene.TURNS))]
    assert len(workers.read_gradients()[0]) == 1


def test_tokens_that_verl_rejects_after_the_pass_leave_the_response_whole(workers: Any, model: Path) -> None:
    import verl_scene as scene
    import verl_steps as steps

    config = scene.verl_config(model, RLOO)
    steps.use_loss(workers, config)
    trainer = steps.ray_trainer(config, workers)
    batch = steps.old_pass(trainer, scene.make_batch())
    rows = batch.non_tensor_batch["row"].tolist()
    hole = batch.batch["response_mask"].clone()
    hole[rows.index(1), 4] = 0  # in the middle of a turn
    hole[rows.index(4)] = 0  # a whole row, which thereby leaves G
    batch.batch["response_mask"] = hole
    batch.batch["advantages"] = batch.batch["returns"] = hole.float()
    metrics = trainer._update_actor(batch).meta_info["metrics"]
    assert metrics["aem/responses"] == [sum(map(len, scene.TURNS)) - 1]


def test_a_run_that_cannot_have_aem_is_refused_with_the_remedy(model: Path) -> None:
    import verl_scene as scene
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    from aem_swe.engines.verl.ray_trainer import with_aem
    from aem_swe.errors import ConfigError

    bypass = "algorithm.rollout_correction.bypass_mode=true"
    surprisal = ["+aem.entropy_source=surprisal", "actor_rollout_ref.rollout.calculate_log_probs=false"]
    for overrides, message in (
        ([bypass], "bypass_mode leaves out the old-log-prob pass"),
        ([bypass, *surprisal], "needs the rollout's log-probs"),
        (["+aem.group=all"], "aem.group is 'all', but verl's response_mask holds no token of a masked row"),
    ):
        with pytest.raises(ConfigError, match=message):
            with_aem(RayPPOTrainer)(scene.verl_config(model, *overrides))


def test_what_crosses_to_the_workers_pickles(model: Path) -> None:
    import verl_scene as scene
    from ray import cloudpickle
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    from aem_swe.engines.verl.ray_trainer import with_aem
    from aem_swe.engines.verl.settings import read_settings
    from aem_swe.errors import ConfigError

    settings = read_settings(scene.verl_config(model, "+aem.lambda=2"))
    assert pickle.loads(pickle.dumps(settings)) == settings
    again = cloudpickle.loads(cloudpickle.dumps(with_aem(RayPPOTrainer)))  # Ray ships task runners by value
    assert again.__name__ == "AEMRayPPOTrainer" and issubclass(again, RayPPOTrainer)
    assert str(pickle.loads(pickle.dumps(ConfigError("which key")))) == "which key"


def test_the_command_gives_verls_own_runner_a_trainer_with_aem(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.9: in the names that travel with the runner. 0.8: where the runner runs, which is here."""
    import cloudpickle
    from verl.trainer import main_ppo

    from aem_swe.engines.verl.ray_trainer import task_runner

    home: Any = main_ppo
    if HAS_V1:
        from verl.trainer import main_ppo_v0 as home
    monkeypatch.setattr(home, "RayPPOTrainer", home.RayPPOTrainer)  # put back at the end
    runner = task_runner(home)
    kept = runner.__ray_metadata__.modified_class
    if not HAS_V1:
        again = cloudpickle.loads(cloudpickle.dumps(kept))
        with pytest.raises(Exception, match="NoneType"):  # there is no configuration, and that comes second
            again().run(None)
    assert home.RayPPOTrainer.__name__ == "AEMRayPPOTrainer"


def test_the_block_in_the_document_makes_a_trainer() -> None:
    from test_docs import snippet
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    names: dict[str, Any] = {}
    exec(snippet("verl: RayPPOTrainer"), names)
    made = names["trainer_class"]
    assert issubclass(made, RayPPOTrainer) and made.__name__ == "AEMRayPPOTrainer"


def test_aem_is_a_span_beside_the_workers_update(workers: Any, model: Path, tmp_path: Path) -> None:
    import verl_scene as scene
    import verl_steps as steps

    from aem_swe.profiling import recording

    with recording(tmp_path / "spans.jsonl"):
        steps.ray_step(scene.verl_config(model, RLOO), workers)
    (aem,) = [json.loads(line) for line in (tmp_path / "spans.jsonl").read_text().splitlines()]
    assert aem["stage"] == "aem" and 0 < aem["seconds"] < 1


def test_verls_own_loops_have_the_timers_from_which_steps_are_told() -> None:
    """Names that timers.py knows, in the code of this verl, and the function that it puts its own in the place of."""
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    from aem_swe.engines.verl.timers import AFTER, BEGINNINGS, STAGES

    known = {"step", "gen", "adv", "update_actor", "update_weights", "save_checkpoint", "testing"}
    assert known <= STAGES.keys() and {"start_profile", "step", "stop_profile", "testing", "gen"} <= AFTER.keys()
    fit = RayPPOTrainer.fit
    assert "marked_timer" in fit.__globals__ and known | set(BEGINNINGS) <= set(fit.__code__.co_consts)
    if HAS_V1:
        from verl.trainer.ppo.v1 import PPOTrainerSync

        assert "marked_timer" in PPOTrainerSync.fit.__globals__
        names = {*PPOTrainerSync.fit.__code__.co_consts, *PPOTrainerSync._step_once.__code__.co_consts}
        assert known - {"update_weights"} <= names and "start_profile" not in names
        assert "update_weights" in PPOTrainerSync.on_step_end.__code__.co_consts


def test_a_worker_that_dies_in_a_step_fails_it_with_its_name(
    workers: Any, model: Path, lose_workers: Callable[[], None]
) -> None:
    import verl_scene as scene
    import verl_steps as steps
    from ray.exceptions import RayError

    steps.use_loss(workers, scene.verl_config(model, RLOO))
    trainer = steps.ray_trainer(scene.verl_config(model, RLOO), workers)
    batch = steps.old_pass(trainer, scene.make_batch())
    batch.batch["advantages"] = batch.batch["response_mask"].float()
    lose_workers()
    workers.die_in_update(1)
    with pytest.raises(RayError, match=rf"pid[:=]\s?{workers.process_id()[1]}\b"):
        trainer._update_actor(batch)
