"""The command that makes the starting policy again, at a size that proves nothing about its quality."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Ended

from aem_swe.engines.local.demo_tokenizer import build_tokenizer
from aem_swe.engines.local.make_policy import RESULT
from aem_swe.engines.local.model import load_model, model_folder
from aem_swe.engines.local.warm_start import WarmStart, train_policy

SHIPPED = model_folder("builtin/demo-policy")


def test_the_shipped_tokenizer_is_the_one_that_the_code_builds(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (SHIPPED / "tokenizer.json").read_bytes()


def test_the_shipped_policy_is_small_and_says_how_good_it_is() -> None:
    assert (SHIPPED / "model.safetensors").stat().st_size <= 2_000_000
    result = json.loads((SHIPPED / RESULT).read_text())
    assert result["steps"] == WarmStart().steps
    assert result["seed"] == WarmStart().seed
    assert result["interval"][0] < result["success"] < result["interval"][1]
    assert result["episodes"] == 512


def test_training_is_a_function_of_its_settings(tmp_path: Path) -> None:
    settings = WarmStart(steps=3, batch_tokens=512)
    first = list(train_policy(settings, tmp_path / "a"))
    assert first == list(train_policy(settings, tmp_path / "b"))
    assert [step for step, _ in first] == [1, 2, 3]
    a, b = (load_model(str(tmp_path / name)).network.state_dict() for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_the_command_makes_a_policy_that_can_be_loaded_and_says_how_it_compares(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = run("warm-start", "--out", "policy", "--steps", "3", "--threads", "1", "--episodes", "16")
    assert (ended.code, ended.err) == (0, "")
    assert "the two DIFFER" in ended.out  # three steps teach nothing
    assert json.loads((tmp_path / "policy" / RESULT).read_text())["steps"] == 3
    assert load_model(str(tmp_path / "policy")).chat.end_id == 2
