"""`aem-swe verify dynamics` as a user runs it: end to end, killed and continued, and refused in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types
from command_line import Ended

from aem_swe.engines.local.dynamics.batches import measure_batch
from aem_swe.engines.local.dynamics.policies import Policy, find_policies, make_policies
from aem_swe.engines.local.dynamics.probe import ROWS, probe_policies
from aem_swe.engines.local.dynamics.setting import QUICK, Setting
from aem_swe.engines.local.make_policy import RESULT
from aem_swe.engines.local.model import model_folder
from aem_swe.errors import ConfigError
from aem_swe.eval.preregistered import preregistered_file

Invoke = Callable[..., Ended]
Row = dict[str, Any]  # JSON values


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two early batches of the shipped policy. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("dynamics")
    probe_policies(find_policies(["builtin/demo-policy"]), folder, EARLY, lambda line: None)
    return folder


EARLY = Setting(overrides=QUICK.overrides, batches=2, probe_episodes=2, late_steps=0, checked_batches=0)


def rows_in(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]


def test_quick_runs_end_to_end_and_decides_nothing(invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("verify", "dynamics", "--quick", "--out", "d", "--json", "d.json", "--plot", "d.svg", "--log", "l")
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "d.json").read_text())
    assert len(found["claims"]) == 5
    for claim in found["claims"]:
        assert (claim["verdict"], claim["n"]) == ("undecided (1 policy, 5 needed)", 1)
        assert claim["mean"] is not None and claim["low"] is None
    assert ended.out.count("undecided") == 5
    # the linear estimate is what real steps do
    assert found["estimator"]["steps"] == 26  # thirteen rules in the first batch of each regime
    assert found["estimator"]["backpropagation"] < 0.01
    assert found["estimator"]["real_step"] < 0.1 and found["estimator"]["half_step"] < 0.1
    changes = {(one["regime"], one["rule"]): one["change"] for one in found["rules"]}
    assert changes["early", "base"] != 0.0
    assert changes["early", "base"] != changes["late", "base"]  # the late policy was trained
    assert "<svg" in (tmp_path / "d.svg").read_text()
    logged = json.loads((tmp_path / "l").read_text())
    assert logged["setting"] == QUICK.as_json() and "batches" not in logged
    again = invoke("verify", "dynamics", "--from", "d.json", "--json", "e.json", "--plot", "e.svg")
    assert again.code == 0, again.err
    assert again.out.replace("e.json", "d.json").replace("e.svg", "d.svg") in ended.out
    for name in ("json", "svg"):
        assert (tmp_path / f"e.{name}").read_bytes() == (tmp_path / f"d.{name}").read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Expecting property name"),
        ("[1]", "list indices"),
        ("{}", "'batches' is missing"),
        ('{"batches": []}', "it has no batches"),
        ('{"batches": [{"policy": "a"}]}', "a batch lacks 'regime'"),
    ],
)
def test_what_is_no_result_is_refused_in_one_line(invoke: Invoke, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "r.json").write_text(text)
    ended = invoke("verify", "dynamics", "--from", "r.json")
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert said in ended.err and "is no result of `aem-swe verify dynamics`" in ended.err


def test_a_killed_probe_continues_to_the_same_rows(early: Path, tmp_path: Path) -> None:
    whole = rows_in(early)
    folder = tmp_path / "killed"
    shutil.copytree(early, folder)
    first, second = (folder / ROWS).read_text().splitlines(keepends=True)
    (folder / ROWS).write_text(first + second[:40])
    said: list[str] = []
    rows = probe_policies(find_policies(["builtin/demo-policy"]), folder, EARLY, said.append)
    assert rows == whole == rows_in(folder)
    assert said == ["seed_0, early: batch 2 of 2"]


def test_a_finished_probe_plays_nothing(early: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("aem_swe.engines.local.dynamics.probe.measure_batch")
    assert callable(measure_batch)
    rows = probe_policies(find_policies(["builtin/demo-policy"]), early, EARLY, lambda line: None)
    assert [row["batch"] for row in rows] == [0, 1]


def test_a_folder_belongs_to_one_setting_and_a_seed_to_one_policy(early: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another batches"):
        probe_policies([], early, Setting(overrides=QUICK.overrides, probe_episodes=2, late_steps=0,
                                          checked_batches=0), print)  # fmt: skip
    other = tmp_path / "other"
    shutil.copytree(model_folder("builtin/demo-policy"), other)
    weights = next(other.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\0")
    with pytest.raises(ConfigError, match="another policy with seed 0"):
        probe_policies([Policy(str(other), 0)], early, EARLY, print)


def test_policies_are_made_once_and_what_was_half_made_is_made_again(tmp_path: Path) -> None:
    setting = Setting(warm_start_steps=1)
    half = tmp_path / "policies" / "seed_5"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{")
    said: list[str] = []
    policies = make_policies([5], tmp_path, setting, said.append)
    assert policies == [Policy(str(half), 5)] == find_policies([str(half)])
    made = (half / RESULT).stat().st_mtime_ns
    make_policies([5], tmp_path, setting, said.append)
    assert (half / RESULT).stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "d.json", "--log", "d.json"], "--log 'd.json' is --from's file as well; choose another --log"),
        (["--quick", "--json", "x", "--log", "x"], "--log 'x' is --json's file as well; choose another --log"),
        (["--quick", "--log", "notes.md"], "--log 'notes.md' is no list of earlier settings"),
        (["--quick", "--log", "."], "--log '.' is no list of earlier settings (["),
    ],
)
def test_no_file_is_lost_to_an_option(invoke: Invoke, tmp_path: Path, options: list[str], said: str) -> None:
    for name in ("d.json", "notes.md"):
        (tmp_path / name).write_text("# kept\n")
    ended = invoke("verify", "dynamics", *options)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("d.json", "notes.md"), "# kept\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--confirm", "--batches", "3"], "batches is 3, registered is 32"),
        (["--confirm", "--quick"], "exclude each other"),
        (["--make", "1", "--first-seed", "100"], "seed 100 is kept for --confirm"),
        (["--policies", "builtin/demo-policy", "--policies", "builtin/demo-policy"], "seed 0 is given twice"),
        (["--policies", "nowhere"], "is not a folder"),
        (["algorithm.loss=gspo"], "verify dynamics measures algorithm.loss=ppo"),
        (["--from", "nothing.json"], "cannot be read (No such file or directory); name a file of --json"),
        (["--from", "nothing.json", "--quick"], "leave out KEY=VALUE, --quick, --policies, --make, --first-seed, --b"),
        (["--from", "nothing.json", "--first-seed", "0"], "measures nothing; leave out"),
        (["--from", "nothing.json", "--out", "d"], "--late-steps, --out and --confirm"),
        (["--plot", "a.pdf"], "neither .png nor .svg"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    invoke: Invoke, tmp_path: Path, options: list[str], said: str
) -> None:
    ended = invoke("verify", "dynamics", *options)
    assert ended.code == 2 and said in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_confirmation_runs_what_is_registered_and_nothing_else(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting(overrides=QUICK.overrides, batches=1, probe_episodes=2, late_steps=0, checked_batches=0)
    registered = yaml.safe_load(preregistered_file().read_text())
    registered |= {"status": "registered", "setting": setting.as_json(), "seeds": [100, 101, 102, 103, 104]}
    file = tmp_path / "registered.yaml"
    file.write_text(yaml.safe_dump(registered))
    monkeypatch.setattr("aem_swe.eval.preregistered.preregistered_file", lambda: file)
    given = []
    for seed in registered["seeds"]:  # one set of weights under five seeds: a test of the command, not of a claim
        folder = tmp_path / f"policy_{seed}"
        shutil.copytree(model_folder("builtin/demo-policy"), folder)
        (folder / RESULT).write_text(json.dumps({"seed": seed}))
        given += ["--policies", str(folder)]
    refused = invoke("verify", "dynamics", "--confirm", "--batches", "2", *given)
    assert refused.code == 2 and "batches is 2, registered is 1" in refused.err
    refused = invoke("verify", "dynamics", "--confirm", *given[2:])
    assert refused.code == 2 and "registered are" in refused.err
    ended = invoke("verify", "dynamics", "--confirm", "--json", "c.json", *given)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "c.json").read_text())
    claims = {claim["id"]: claim for claim in found["claims"]}
    assert found["confirmatory"] is True
    assert claims["late"]["verdict"] == "undecided (0 policies, 5 needed)"
    masks = claims["masks"]
    assert masks["n"] == 5 and masks["low"] < masks["mean"] < masks["high"]
    assert not any("exploratory" in claim["verdict"] for claim in claims.values())
