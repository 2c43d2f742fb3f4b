"""`aem-swe train RECIPE --dry-run`: everything that rLLM and verl would get, and what is wrong with it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml
from command_line import Ended

from aem_swe.config import load_recipe
from aem_swe.engines.rllm import dry_run as module
from aem_swe.engines.rllm.dry_run import dry_run
from aem_swe.engines.rllm.settings import overrides_of
from aem_swe.engines.rllm.versions import INSTALL, SETS, compare, folder_of
from aem_swe.errors import ConfigError

WITHOUT = pytest.mark.skipif(folder_of("rllm") is not None, reason="rllm is installed here")
GOOD = {"rllm": "0.3.0", "verl": "0.9.1", "vllm": "0.28.0+cpu", "ray": "2.60.0", "torch": "2.13.0+cpu"} | {
    "transformers": "5.10.4", "tensordict": "0.10.0", "TransferQueue": "0.1.11", "numpy": "2.3.5"
}  # fmt: skip


@WITHOUT
def test_without_rllm_the_overrides_are_printed_and_then_the_install_command(invoke: Callable[..., Ended]) -> None:
    ended = invoke("train", "deepswe_aem", "--dry-run", "run_dir=/nowhere/x")
    assert ended.code == 2
    assert ended.err.count("\n") == 1 and ended.err.rstrip().endswith(INSTALL)
    overrides = overrides_of(load_recipe("deepswe_aem", ["run_dir=/nowhere/x"]))
    assert ended.out.splitlines() == [
        f"# recipe deepswe_aem: {len(overrides)} overrides of rLLM's configuration",
        *(f"#   {override}" for override in overrides),
    ]


@WITHOUT
def test_training_without_rllm_is_one_line(invoke: Callable[..., Ended]) -> None:
    ended = invoke("train", "deepswe_aem")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("aem-swe: engine rllm needs rllm") and ended.err.rstrip().endswith(INSTALL)


def test_a_dry_run_of_the_embedded_engine_is_its_recipe(invoke: Callable[..., Ended]) -> None:
    assert invoke("train", "demo", "--dry-run").out == invoke("train", "demo", "--show").out != ""


def test_the_versions_that_ran_are_a_set_and_others_say_how_they_differ() -> None:
    assert compare(GOOD) == (SETS[0], [])
    chosen, differing = compare(GOOD | {"tensordict": "0.11.0", "ray": "not installed", "rllm": "not installed"})
    assert chosen is SETS[0]
    assert differing == [
        "rllm not installed",
        "tensordict 0.11.0 (wants ==0.10.0)",
        "ray not installed (wants ==2.60.*)",
    ]
    assert compare(GOOD | {"verl": "0.8.0"})[0].name == "verl 0.8.0"
    assert compare(GOOD | {"verl": "1.0.0"})[1][0] == "verl 1.0.0 (wants ==0.9.1)"


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """check(overrides, read) -> what the check says of a composed configuration, with that list of read keys."""

    def with_list(overrides: list[str], read: set[str] | None, values: Mapping[str, Any] | None = None) -> str:
        recorded = None if read is None else ({"verl": "0.9.1", "rllm": "0.3.0"}, frozenset(read))
        monkeypatch.setattr(module, "known_reads", lambda: recorded)
        return module._check(overrides, values or {}, GOOD)

    return with_list


def test_until_reads_are_recorded_it_says_so(check: Callable[..., str]) -> None:
    assert check(["a.b=1"], None).endswith("which keys are read is not recorded yet")


def test_a_key_that_nothing_reads_is_an_error(check: Callable[..., str]) -> None:
    read = {"a.b", "s.*"}
    words = [
        "a.b=1",
        "s.x=2",
        "+aem={}",
        "+model.name=m",
        "~gone",
        "actor_rollout_ref.rollout.gpu_memory_utilization=1",
    ]
    assert check(words, read).endswith("was seen being read by these versions")
    with pytest.raises(ConfigError) as raised:
        check([*words, "actor_rollout_ref.actor.grad_clip=1.0"], read)
    assert str(raised.value) == (
        "actor_rollout_ref.actor.grad_clip: not seen being read in the recorded runs of verl 0.9.1 and rLLM 0.3.0; "
        "leave it out, use the key that took its place, or write ++ before a key that you know is read"
    )


def test_a_new_key_needs_a_place(check: Callable[..., str]) -> None:
    free = "+actor_rollout_ref.rollout.engine_kwargs.vllm.anything=1"
    assert "checked" in check([free, "+aem.enabled=true"], None)
    with pytest.raises(ConfigError, match=r"\+a\.nonsense is a key that the installed rLLM and verl do not have"):
        check(["+a.nonsense=1"], None)
    with pytest.raises(ConfigError, match=r"\+a\.nonsense"):
        check(["+a.nonsense=1"], {"a"})
    assert "checked" in check(["+a.sensible=1"], {"a.sensible"})


def test_a_field_that_verls_defaults_leave_out_is_no_new_key(check: Callable[..., str]) -> None:
    values = {"a": {"_target_": "aem_swe.engines.rllm.versions.VersionSet"}}
    assert "checked" in check(["+a.tried=1"], None, values)
    with pytest.raises(ConfigError, match=r"\+a\.tired"):
        check(["+a.tired=1"], None, values)


@pytest.mark.rllm
@pytest.mark.parametrize(
    ("recipe", "aggregation"),
    [
        *((name, "seq-mean-token-sum-norm") for name in ("deepswe", "deepswe_aem", "deepswe_1node")),
        ("deepswe_smoke_1gpu", "seq-mean-token-sum-norm"),
        ("deepswe_grpo", "seq-mean-token-mean"),
        ("deepswe_dapo", "token-mean"),
        ("deepswe_gspo", "seq-mean-token-mean"),
    ],
)
def test_the_whole_configuration_is_yaml_under_a_header_of_versions(recipe: str, aggregation: str) -> None:
    pytest.importorskip("rllm", reason=f"rllm is missing: {INSTALL}")
    text = "\n".join(dry_run(load_recipe(recipe)))
    assert "\n# versions: rllm " in text and "\n# checked: " in text
    values = yaml.safe_load(text)
    assert values["actor_rollout_ref"]["actor"]["loss_agg_mode"] == aggregation
    enabled = recipe in ("deepswe_aem", "deepswe_1node", "deepswe_smoke_1gpu")
    assert values["aem"] == {"enabled": enabled, "lambda": 1.0, "group": "trained", "entropy_source": "policy"}
    assert values["actor_rollout_ref"]["rollout"]["response_length"] == values["data"]["max_response_length"]
