"""One check per line, each failure with its remedy."""

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended

from aem_swe import doctor
from aem_swe.config import load_recipe
from aem_swe.doctor import Check, examine
from aem_swe.sandboxes import open_sandboxes
from aem_swe.schema import Recipe
from aem_swe.worlds import layouts

NAMES = ["platform", "memory", "disk", "git", "torch", "model", "sandbox"]


def checks(recipe: Recipe) -> dict[str, Check]:
    return {check.name: check for check in examine(recipe)}


def test_every_check_is_made_and_has_a_finding(tmp_path: Path) -> None:
    found = examine(load_recipe("demo", [f"run_dir={tmp_path / 'run'}"]))
    assert [check.name for check in found] == NAMES
    assert all(check.finding for check in found)
    assert all(check.remedy for check in found if not check.passed)
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_games_needs_their_engine_and_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts.importlib.util, "find_spec", lambda name: None if name == "textworld" else object())
    found = checks(load_recipe("demo_alfworld"))
    assert "sandbox" not in found
    assert not found["worlds"].passed
    assert found["worlds"].finding == "text worlds need textworld, not installed here"
    assert found["worlds"].remedy == "pip install 'aem-swe[alfworld]'"
    monkeypatch.setattr(layouts.importlib.util, "find_spec", lambda name: object())
    assert checks(load_recipe("demo_alfworld"))["worlds"].passed


def test_a_model_that_cannot_be_used_fails_its_line_and_no_other(tmp_path: Path) -> None:
    found = checks(load_recipe("demo", [f"model.path={tmp_path}"]))
    assert not found["model"].passed
    assert "has no config.json" in found["model"].finding
    assert found["sandbox"].passed


def test_cuda_without_a_gpu_says_what_to_do() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU: run with CUDA_VISIBLE_DEVICES=")
    found = checks(load_recipe("demo", ["model.device=cuda"]))["torch"]
    assert (found.passed, found.remedy) == (False, "use model.device=cpu")


def test_a_full_disk_and_a_missing_git_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage(100, 100, 0))
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    found = checks(load_recipe("demo"))
    assert not found["disk"].passed and "free 1 GB or choose another run_dir" in found["disk"].remedy
    assert not found["git"].passed and found["git"].remedy.startswith("install git")


def test_a_machine_without_sandboxes_fails_with_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    from aem_swe.sandboxes import local

    monkeypatch.setattr(local, "_base_interpreter", lambda: "/bin/false")
    found = checks(load_recipe("demo"))["sandbox"]
    assert not found.passed
    assert "local sandboxes do not work on this machine" in found.finding
    assert open_sandboxes  # the same entry that training uses


def test_the_command_prints_a_line_per_check_and_exits_0(invoke: Callable[..., Ended]) -> None:
    ended = invoke("doctor")
    assert ended.code == 0, ended.out
    assert [row.split(":")[0].split() for row in ended.out.splitlines()] == [["ok", name] for name in NAMES]


def test_the_command_exits_1_when_a_check_fails(invoke: Callable[..., Ended]) -> None:
    ended = invoke("doctor", "demo", "model.path=/nowhere")
    assert ended.code == 1
    assert "FAIL  model: model.path '/nowhere' is not a folder" in ended.out
    assert ended.err == ""
