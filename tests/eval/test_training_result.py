"""Result files of verify training: refused where runs, values and plan contradict each other; commits and failures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_scene import ABOUT, make_plan, result_of

from aem_swe.errors import ConfigError
from aem_swe.eval.training_result import Result, RunName, make_result, read_result, to_text
from aem_swe.eval.training_table import closing_line, with_tables

Json = dict[str, Any]  # JSON values
ALPHA = {"token": 1.0, "positive": None, "negative": None}


@pytest.fixture
def result(tmp_path: Path) -> Result:
    return result_of(make_plan(tmp_path), {arm: {seed: {} for seed in (1, 2, 3)} for arm in ("plain", "aem", "drop")})


def run_of(data: Json) -> Json:
    found: Json = data["arms"]["aem"]["runs"][0]
    return found


def _set(**values: Any) -> Callable[[Json], None]:
    """Edits the first run of arm aem."""
    return lambda data: run_of(data).update(values)


def _series(name: str, *values: float | None) -> Callable[[Json], None]:
    """Replaces the last values of a series of the first run of arm aem."""

    def edit(data: Json) -> None:
        run_of(data)["series"][name][-len(values) :] = values

    return edit


def _top(**values: Any) -> Callable[[Json], None]:
    return lambda data: data.update(values)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda data: data.clear(), "'contrasts' is missing"),
        (_top(arms=3), "is no result"),
        (_top(seeds=[1, 1]), "1 is given twice"),
        (lambda data: [row.update(arm="x") for row in data["contrasts"][:3]], "names arm 'x'"),
        (lambda data: data["contrasts"][1].update(arm="drop"), "contrast 'aem_plain' has other arms, or another paper"),
        (lambda data: data["contrasts"].append(data["contrasts"][0]), "has held_out of aem and plain twice; list it"),
        (lambda data: data["arms"]["aem"].update(runs=[5]), r"\(runs.0 5 is not usable: it is a section\)"),
        (lambda data: data["arms"]["aem"].update(aem=False), "arm 'aem': aem is False, and its recipe has True"),
        (lambda data: data["arms"]["drop"].update(filter="mask"), "arm 'drop': filter is mask, and its recipe"),
        (lambda data: data["arms"]["drop"].update(filter="some"), "arm 'drop': filter is some, and its recipe"),
        (lambda data: data["arms"]["aem"].update({"lambda": 2.0}), "arm 'aem': lambda is 2.0, and its recipe has 1.0"),
        (lambda data: data["arms"]["aem"].pop("runs"), "'runs' is missing"),
        (_set(held_out="0.5x"), "held_out '0.5x' is not usable"),
        (_set(held_out=float("nan")), "NaN is no number"),
        (_set(step_seconds=1e300), r"1e\+300 is no number that could be measured"),
        (_set(entropy=1e-300), "1e-300 is no number that could be measured"),
        (_top(command="x \ud800"), r"command is 'x \\ud800'"),
        (_top(command="x \u202e"), r"command is 'x \\u202e'"),
        (_top(overrides=["trainer.steps=16 # <!-- end -->"]), r"command is 'trainer\.steps=16 # <!-- end -->'"),
        (lambda data: run_of(data)["series"].update(loss=[]), "the series of 'loss' is unknown"),
        (lambda data: data["arms"]["drop"]["runs"][0].update(alpha=ALPHA), "'drop', seed 1: it has an alpha, and"),
        (_set(held_out=True), "held_out True is not usable"),
        (_set(step_seconds=-1.0), "step_seconds -1.0 is not usable"),
        (_set(entropy=-0.5), "entropy -0.5 is not usable"),
        (_set(commit="abc"), "commit 'abc' is not usable"),
        (_set(commit="abcdef0\n"), r"commit 'abcdef0\\n' is not usable"),
        (_series("entropy", -0.5, 1.5), "entropy in its series is -0.5, which is less than 0"),
        (_set(reward_first=0.3), "reward_first is 0.3, and the first 8 steps of its series give 0.25"),
        (_set(truncation_max=0.5), "truncation_max is 0.5, and the largest of its series is 0.0"),
        (lambda data: run_of(data)["series"].pop("reward"), "the series of reward is missing"),
        (_top(family={}), "'held_out' is missing"),
        (_top(family={"held_out": 1, "reward": 1, "entropy": 1, "truncation": 1}), "family counts 1 of held_out, of"),
        (lambda data: data["family"].update(held_out=True), "family counts True of held_out, which is no number"),
        (lambda data: data["family"].update(held_out=10_001), "family counts 10001 of held_out, which"),
        (_set(seed=2), "arm 'aem': 2 is given twice"),
        (_set(seed=9), r"arm 'aem', seed 9: the plan has the seeds \[1, 2, 3, 4, 5\]"),
        (_set(steps=8), "arm 'aem', seed 1: 8 steps, and its recipe has 16"),
        (_set(held_out=1.2), "held_out is 1.2, which is no fraction"),
        (_set(held_out_first=-0.1), "held_out_first is -0.1, which"),
        (_set(truncation_max=30.0), "truncation_max is 30.0, which"),
        (_series("truncation", 1.5, 0.5), "truncation in its series is 1.5, which"),
        (_set(reward=0.26), "reward is 0.26, and the last 8 steps of its series give 0.25"),
        (_set(entropy=None), "entropy is None, and the last 8 steps of its series give 0.5"),
        (_series("truncation", 0.5), "truncation is 0.0, and the last 8 steps of its series give 0.0625"),
        (_series("entropy", *[None] * 8), "entropy is 0.5, and the last 8 steps of its series give None"),
        (lambda data: run_of(data)["series"]["reward"].pop(), "the series of reward has 15 of 16 steps"),
        (_top(failed=[{"arm": "x", "seed": 1}]), "arm 'x', seed 1: failed or unfinished, and not in the plan"),
        (_top(unfinished=[{"arm": "aem", "seed": 6}]), "arm 'aem', seed 6: failed or unfinished, and not in the plan"),
        (_top(failed=[{"arm": "aem", "seed": 1}]), "arm 'aem', seed 1: failed or unfinished, and there a second time"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_one_line(
    result: Result, tmp_path: Path, edit: Callable[[Json], None], said: str
) -> None:
    path = tmp_path / "t.json"
    data = json.loads(to_text(result))
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=said) as caught:
        read_result(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"--from {str(path)!r} is no result of")


def test_rounded_series_and_gaps_in_them_are_no_contradiction(result: Result, tmp_path: Path) -> None:
    data = json.loads(to_text(result))
    _series("entropy", 0.5, None, 0.5)(data)
    run_of(data)["reward"] = 0.2509
    (tmp_path / "t.json").write_text(json.dumps(data))
    assert read_result(tmp_path / "t.json").arms["aem"].runs[0].reward == 0.2509


def test_a_key_that_comes_twice_is_no_result_of_the_last_one(result: Result, tmp_path: Path) -> None:
    text = to_text(result)
    (tmp_path / "t.json").write_text(text.replace('"held_out": 0.5,', '"held_out": 0.5, "held_out": 0.9,', 1))
    with pytest.raises(ConfigError, match="key 'held_out' is there twice"):
        read_result(tmp_path / "t.json")


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="it has more than 64 MB"):
        read_result(Path("/dev/zero"))


def test_what_is_no_file_of_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(ConfigError, match="is no result of `aem-swe verify training`"):
        read_result(tmp_path / "t.json")
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(ConfigError, match="is no result of"):
        read_result(tmp_path / "t.json", "--training")
    with pytest.raises(ConfigError, match=r"--training .* cannot be read \(No such file"):
        read_result(tmp_path / "none.json", "--training")


def test_the_filter_is_the_one_of_the_recipe(result: Result) -> None:
    assert {name: arm.filter for name, arm in result.arms.items()} == {"plain": "off", "aem": "off", "drop": "drop"}


def test_runs_of_several_commits_are_named(result: Result, tmp_path: Path) -> None:
    assert "commits" not in closing_line(result)
    long = "0123456789abcdef0123456789abcdef01234567"
    values = {
        "plain": {1: {"commit": long}, 2: {"commit": long}},
        "aem": {1: {"commit": f"{long}-dirty"}, 2: {"commit": None}},
    }
    said = closing_line(result_of(result.plan, values))
    assert said.endswith("; runs of 3 commits are compared (0123456789, 0123456789-dirty, unknown)")


def test_what_failed_is_in_the_file_and_in_the_closing_line(result: Result, tmp_path: Path) -> None:
    failed, stopped = RunName(arm="aem", seed=4), RunName(arm="plain", seed=5)
    less = make_result(ABOUT, result.plan, result.arms, result.family, [failed], [stopped])
    said = closing_line(less)
    assert said.endswith("summed; 1 FAILED: aem seed 4; 1 not finished: plain seed 5")
    (tmp_path / "t.json").write_text(to_text(less))
    data = json.loads(to_text(less))
    assert (data["failed"], data["unfinished"]) == ([{"arm": "aem", "seed": 4}], [{"arm": "plain", "seed": 5}])
    again = read_result(tmp_path / "t.json")
    assert (again.failed, again.unfinished) == ((failed,), (stopped,))
    assert "FAILED" not in closing_line(result) and said in with_tables("", again)
