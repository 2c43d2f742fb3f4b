"""Published outcomes: which can be compared, and every pair of them against a plain computation of its own.

The outcomes themselves are not part of this repository; without them only the reading is tested.
"""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import REPOSITORY
from typer.testing import CliRunner

from aem_swe import cli_compare
from aem_swe.errors import ConfigError
from aem_swe.eval import statistics
from aem_swe.eval.swebench import published
from aem_swe.eval.swebench.arms import make_arms
from aem_swe.eval.swebench.contrast import contrast
from aem_swe.eval.swebench.power import Plan, runs_for_power, seeds_for_power
from aem_swe.eval.swebench.published import full_runs, read_published

SHARED = REPOSITORY.parent / "shared" / "data"
OUTCOMES, IDS = SHARED / "verified_resolved_by_submission.json", SHARED / "swe_bench_verified_ids.json"
DOCUMENT = REPOSITORY / "docs" / "evaluation-statistics.md"
needs_outcomes = pytest.mark.skipif(
    not (OUTCOMES.is_file() and IDS.is_file()), reason=f"needs published outcomes: {OUTCOMES} and {IDS.name}"
)


@pytest.fixture
def command() -> Callable[..., str]:
    """command("published", "outcomes.json", "x", "y") -> what a user sees."""
    app = typer.Typer()
    app.command()(cli_compare.published)
    app.command()(cli_compare.power)

    def call(*words: str) -> str:
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    return call


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three made-up submissions on four instances: two full runs, and one that is on no list."""
    monkeypatch.setattr(published, "full_runs", lambda: published.FullRuns({"x": 2, "y": 3}, {"lite": "it is a part"}))
    (tmp_path / IDS.name).write_text(json.dumps([f"django__django-{i}" for i in range(4)]))
    path = tmp_path / "outcomes.json"
    resolved = {"x": (0, 1), "y": (1, 2, 3), "z": (0,), "lite": (1,)}
    path.write_text(json.dumps({name: [f"django__django-{i}" for i in which] for name, which in resolved.items()}))
    return path


def test_an_absent_instance_of_a_full_run_is_unresolved(outcomes: Path) -> None:
    (found,) = read_published(outcomes, ["x"])
    assert found.complete and found.scores_RI().tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert {one.repository for one in found.instances} == {"django/django"}


def test_the_command_compares_or_lists(outcomes: Path, command: Callable[..., str]) -> None:
    said = command("published", str(outcomes), "x", "y")
    assert "x (1 run): pass@1 50.0%" in said and "50.0% -> 75.0%, +25.0 points" in said
    assert "y gains 2 instances: django__django-2, django__django-3." in said
    assert said.endswith(f"note: {published.CAVEAT}\n")
    listed = command("published", str(outcomes)).splitlines()
    assert [line.split(":")[0] for line in listed] == ["x", "y"] and "pass@1 75.0%" in listed[1]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["x", "lite"], "submission 'lite' cannot be compared: it is a part; give no name"),
        (["x", "z"], "submission 'z' cannot be compared: not known to be a full run"),
        (["xx"], "submission 'xx' is not in .*; did you mean 'x'?"),
        (["x", "y", "x"], "submission 'x' is given more than once"),
    ],
)
def test_a_submission_that_cannot_be_compared_is_refused_in_one_line(
    outcomes: Path, names: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{said}") as refused:
        cli_compare.published(outcomes, names)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"x": 3}', '{"x": [1]}', '{"x": ["django__django-0"]}', '{"x": ["a", "b"]}', "[" * 100_000],
)
def test_data_of_another_form_is_refused_in_one_line(outcomes: Path, content: str) -> None:
    outcomes.write_text(content)
    with pytest.raises(ConfigError) as refused:
        read_published(outcomes, ["x"])
    assert str(outcomes.name) in str(refused.value) or "--ids" in str(refused.value)
    assert "\n" not in str(refused.value)


TWICE = json.dumps([f"django__django-{i}" for i in (0, 1, 2, 3, 0)])


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", TWICE, '["django__django-0"]'])
def test_ids_of_another_form_are_refused_in_one_line(outcomes: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "ids.json").write_text(content)
    with pytest.raises(ConfigError, match="--ids"):
        read_published(outcomes, ["x"], tmp_path / "ids.json")


def test_the_list_names_every_submission_once() -> None:
    listed = full_runs()
    assert not listed.resolved.keys() & listed.refused.keys()
    assert all(isinstance(number, int) and 0 < number <= 500 for number in listed.resolved.values())
    assert min(listed.resolved) >= "20240813"  # the release of SWE-bench Verified


@needs_outcomes
def test_the_list_decides_about_every_published_submission() -> None:
    data: dict[str, list[str]] = json.loads(OUTCOMES.read_text())
    listed = full_runs()
    assert data.keys() == listed.resolved.keys() | listed.refused.keys()
    assert {name: len(set(data[name])) for name in listed.resolved} == listed.resolved
    assert len(read_published(OUTCOMES, [])) == len(listed.resolved)
    for name, reason in listed.refused.items():
        with pytest.raises(ConfigError, match=re.escape(reason)):
            read_published(OUTCOMES, [name])


@needs_outcomes
def test_a_full_run_resolves_something_in_every_large_repository() -> None:
    data: dict[str, list[str]] = json.loads(OUTCOMES.read_text())
    repository = {one: one.rsplit("-", 1)[0] for one in json.loads(IDS.read_text())}
    large = {name for name, count in Counter(repository.values()).items() if count >= 20}
    assert len(large) >= 5
    for name in full_runs().resolved:
        assert large <= {repository[one] for one in data[name]}, name


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value by summing the binomial distribution."""
    both = gained + lost
    weights = [math.comb(both, i) for i in range(both + 1)]
    return sum(weight for weight in weights if weight <= weights[gained]) / 2**both


@needs_outcomes
def test_every_pair_agrees_with_a_plain_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 50)  # intervals are not what is compared here
    data: dict[str, list[str]] = json.loads(OUTCOMES.read_text())
    arms = {arm.label: arm for arm in make_arms([[one] for one in read_published(OUTCOMES, [])])}
    assert len(arms) > 30
    for first, second in itertools.combinations(arms, 2):
        found = contrast(arms[first], arms[second])
        before, after = set(data[first]), set(data[second])
        assert found is not None and len(found.instances) == 500
        assert found.these_checkpoints.value == pytest.approx((len(after) - len(before)) / 500, abs=1e-12)
        assert {flip.instance_id for flip in found.lost} == before - after
        assert {flip.instance_id for flip in found.gained} == after - before
        assert found.these_checkpoints.p_value == pytest.approx(mcnemar(len(after - before), len(before - after)))


def documented(name: str) -> tuple[list[str], str]:
    """The words and the output of the block in the document that runs `aem-swe name`."""
    found: Any = re.search(rf"```text\n\$ aem-swe ({name} .*)\n((?:.*\n)*?)```", DOCUMENT.read_text())
    return found[1].split(), found[2]


def test_the_document_shows_what_the_power_calculator_prints(command: Callable[..., str]) -> None:
    words, output = documented("power")
    assert command(*words) == output


def test_the_seeds_in_the_table_of_the_document_are_those_of_the_calculator() -> None:
    rows = re.findall(r"^\| ([\d.]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", DOCUMENT.read_text(), re.M)
    assert len(rows) == 3
    for difference, runs, *seeds in rows:
        plans = [Plan(0.42, float(difference) / 100, spread / 100, runs=16, seeds=3) for spread in (0.5, 1, 2)]
        assert int(runs) == runs_for_power(plans[0])
        assert [int(number) for number in seeds] == [seeds_for_power(plan) for plan in plans]


@needs_outcomes
def test_the_document_shows_what_the_comparison_prints(command: Callable[..., str]) -> None:
    words, output = documented("published")
    assert words[1] == "outcomes.json"
    said = command(words[0], str(OUTCOMES), *words[2:])
    assert said == output
    assert "+2.0 points of pass@1" in said
    gained, lost = re.findall(r"(?:gains|loses) (\d+) instances", said)
    prose = DOCUMENT.read_text().split(output)[1]
    assert f"{gained} instances went one way and {lost} the other" in prose
