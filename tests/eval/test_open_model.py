"""Which model an evaluation is of: two checkpoints are never taken for one, and what cannot be meant is refused."""

import shutil
from pathlib import Path

import pytest

from aem_swe.errors import ConfigError
from aem_swe.open_model import Model, open_model
from aem_swe.resources import resource

POLICY = resource("agents", "demo/policy")


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[str]:
    """The same step of two training runs; the weights differ in one byte."""
    folders = [tmp_path / run / "checkpoints" / "step_000040" for run in ("deepswe", "deepswe_aem")]
    for folder in folders:
        shutil.copytree(POLICY, folder)
    weights = folders[1] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return [str(folder) for folder in folders]


def test_checkpoints_of_different_runs_have_names_and_identities_of_their_own(checkpoints: list[str]) -> None:
    first, second = (Model(folder) for folder in checkpoints)
    assert (first.name, second.name) == ("deepswe-step_000040", "deepswe_aem-step_000040")
    assert first.identity()["weights"] != second.identity()["weights"]
    assert Model(f"{checkpoints[0]}/").identity() == first.identity()
    assert Model(checkpoints[0], embedded=True).identity() != first.identity(), "another way to sample"
    assert Model("builtin/demo-policy").name == "demo-policy"


def test_where_a_model_is_served_is_not_part_of_what_it_is() -> None:
    here, there = (Model("org/m", url=f"http://{host}/v1") for host in ("a", "b"))
    assert here.identity() == there.identity() and here.name == "org/m"
    assert Model("org/m", url="http://a/v1", tokenizer="t").identity() != here.identity()


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Model("m", url="http://a/v1", embedded=True), "--embedded runs a checkpoint in this process"),
        (Model("m", url="http://a/v1", tensor_parallel=2), "are for vLLM served here"),
        (Model("builtin/demo-policy", embedded=True, vllm_arguments=("--x",)), "are for vLLM served here"),
        (Model("builtin/demo-policy", tokenizer="t"), "--tokenizer is for a model at --endpoint"),
        (Model("nowhere"), "model 'nowhere' is no checkpoint folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(model: Model, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        model.check()


def test_a_small_model_is_not_asked_for_more_than_it_holds(tmp_path: Path) -> None:
    model = Model("builtin/demo-policy", embedded=True)
    wanted = {"log": tmp_path / "log", "temperature": 1.0, "seed": 1, "retries": 0, "say": print}
    with pytest.raises(ConfigError, match=r"play\.context 65536 is more than the 1024 tokens"):
        with open_model(model, context=65536, **wanted):  # type: ignore[arg-type]
            pass
    with open_model(model, context=1024, **wanted) as (_, chat):  # type: ignore[arg-type]
        assert chat is not None
