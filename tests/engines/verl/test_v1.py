"""AEM in verl's V1 trainer (0.9): its real step on a real TransferQueue and two real FSDP2 workers."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from verl_installed import VERL

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("default")]  # verl's and Ray's own warnings
if VERL < "0.9":
    pytest.skip("needs verl 0.9 and Ray: make test-verl installs them", allow_module_level=True)
ROOT = Path(__file__).parents[3]
AEM = "trainer.v1.trainer_mode=aem_sync"
STOCK = "trainer.v1.trainer_mode=sync"
RLOO = "algorithm.adv_estimator=rloo"


def test_the_advantages_are_those_of_hugging_face_and_plain_loops(workers: Any, queue: None, model: Path) -> None:
    """Seven of eight rows, so verl adds a padding row; two ranks, balanced, masked, truncated, touching."""
    import verl_scene as scene
    import verl_steps as steps

    rows = [0, 1, 2, 3, 5, 6, 7]
    keys, fields = steps.scene_rows(rows)
    config = scene.verl_config(model, AEM, RLOO, "+aem.lambda=1.0")
    step = steps.v1_step(config, workers, steps.put(keys, fields))
    expected = scene.expected_advantages(model, rows)
    assert sorted(step.advantages) == rows
    for row, advantages in step.advantages.items():
        assert (advantages.double() - expected[row][: len(advantages)]).abs().max() < 1e-5
    assert step.metrics["aem/responses"] == sum(len(scene.TURNS[row]) for row in rows)
    assert step.metrics["aem/groups"] == 2
    assert step.metrics["aem/borders_from_mask"] == 0
    assert step.metrics["actor/grad_norm"] == 0  # frozen, but the update ran
    assert config.trainer.v1.trainer_mode == "sync"


def test_lambda_0_and_aem_off_are_stock_verl_bit_for_bit(workers: Any, queue: None, model: Path) -> None:
    import torch
    import verl_scene as scene
    import verl_steps as steps

    runs = [[STOCK], [AEM, "+aem.enabled=false"], [AEM, "+aem.lambda=0"]]
    stock, *others = (
        steps.v1_step(scene.verl_config(model, RLOO, *run), workers, steps.put(*steps.scene_rows(list(range(8)))))
        for run in runs
    )
    for other in others:
        assert all(torch.equal(other.advantages[row], stock.advantages[row]) for row in stock.advantages)
        for name, gradient in stock.gradients[0].items():
            assert torch.equal(gradient, other.gradients[0][name])


def test_a_session_with_two_outputs_is_compared_once_by_grpo_and_refused_for_leave_one_out(
    workers: Any, queue: None, model: Path
) -> None:
    import verl_scene as scene
    import verl_steps as steps

    from aem_swe.errors import ConfigError

    def two_outputs() -> Any:
        keys, fields = steps.scene_rows([0, 2, 4, 6])
        return steps.put([keys[0], keys[0][:-1] + "1", *keys[1:]], [fields[0], fields[0] | {"row": 5}, *fields[1:]])

    with pytest.raises(
        ConfigError, match=r"compare 5 outputs of 4 rollouts .* algorithm.norm_adv_by_std_in_grpo=false"
    ):
        steps.v1_step(scene.verl_config(model, AEM, RLOO), workers, two_outputs())
    remedy = ["algorithm.adv_estimator=grpo", "algorithm.norm_adv_by_std_in_grpo=false"]
    step = steps.v1_step(scene.verl_config(model, AEM, *remedy, "+aem.lambda=0"), workers, two_outputs())
    rewards = [scene.REWARDS[row] for row in (0, 2, 4, 6)]
    for row, reward in zip((0, 5, 2, 4, 6), (rewards[0], *rewards), strict=True):
        assert float(step.advantages[row][0]) == pytest.approx(reward - sum(rewards) / 4)
    scaled = steps.v1_step(scene.verl_config(model, AEM, *remedy), workers, two_outputs())
    assert scaled.metrics["aem/responses"] == sum(len(scene.TURNS[row]) for row in (0, 0, 2, 4, 6))


def test_a_run_that_cannot_have_aem_is_refused(model: Path) -> None:
    import verl_scene as scene

    from aem_swe.engines.verl.v1 import AEMTrainerSync
    from aem_swe.errors import ConfigError

    with pytest.raises(ConfigError, match=r"aem\.group is 'all'"):
        AEMTrainerSync(scene.verl_config(model, AEM, "+aem.group=all"))
    with pytest.raises(ConfigError, match="bypass_mode leaves out"):
        AEMTrainerSync(scene.verl_config(model, AEM, "algorithm.rollout_correction.bypass_mode=true"))


FIND = "import verl\nfrom verl.trainer.ppo.v1 import get_trainer_cls\nprint(get_trainer_cls('aem_sync').__name__)"


@pytest.mark.parametrize("way", ["entry point", "external module", "neither"])
def test_verl_finds_the_trainer_by_entry_point_and_by_external_module(tmp_path: Path, way: str) -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["verl.plugins"]
    if way == "entry point":  # as an installed wheel has it
        folder = tmp_path / "aem_swe-0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: aem_swe\nVersion: 0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[verl.plugins]", *lines]))
    modules = "verl_on_cpu,aem_swe.engines.verl.v1" if way == "external module" else "verl_on_cpu"
    given = {
        "VERL_USE_EXTERNAL_MODULES": modules,
        "VERL_USE_EXTERNAL_PLUGINS": "auto" if way == "entry point" else "none",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), str(Path(__file__).parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", FIND], env=os.environ | given, capture_output=True, text=True, check=False
    )
    if way == "neither":
        assert "Unknown trainer 'aem_sync'" in done.stderr
    else:
        assert done.stdout.splitlines()[-1:] == ["AEMTrainerSync"], done.stderr[-2000:]
