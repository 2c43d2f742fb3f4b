"""`aem-swe verify theory`: its table, its files, its exit code; and the picture of the simplex."""

import json
import math
import re
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import REPOSITORY, Ended

from aem_swe.eval.simplex import CORNERS, draw_simplex, simplex_field
from aem_swe.theory import checks, statements, verify

Run = Callable[..., Ended]
THEOREMS = {"3.2.1", "3.2.2", "C.3.1", "C.4.1", "C.5.1"}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three instances of every check."""
    fewer = tuple(checks.Check(c.claim, c.compared, c.instance, c.kind, 3) for c in checks.CHECKS)
    monkeypatch.setattr(verify, "__defaults__", (0, fewer))


def test_every_statement_holds_and_every_control_fails_in_under_thirty_seconds(run: Run, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = run("verify", "theory", "--json", "theory.json", "--plot", "figures/simplex.svg")
    assert (ended.code, ended.err) == (0, "")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 30
    found = json.loads((tmp_path / "theory.json").read_text())
    assert found["passed"] is True
    assert {row["claim"] for row in found["checks"]} == THEOREMS
    for row in found["checks"]:
        assert row["instances"] >= 100
        assert row["max_error"] < 1e-7 if row["kind"] == "statement" else row["median_error"] > 1e-3
    shown = " ".join(re.findall(r"[^\s]+", ended.out))
    assert "control: sum of the tokens' A (S - H)" in shown
    assert "E[sum of its token entropies]" in shown  # brackets are no markup
    count = len(found["checks"])
    assert f"{count} of {count} checks passed (seed 0," in ended.out
    assert (tmp_path / "figures" / "simplex.svg").read_bytes() == draw_simplex("svg")


@pytest.mark.usefixtures("short")
def test_the_same_seed_gives_the_same_file(invoke: Run, tmp_path: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert invoke("verify", "theory", "--json", name, "--seed", seed).code == 0
    first, same, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == same
    assert first != other


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("wrong", "failed"),
    [(lambda logprobs: logprobs, "dH = A (S - H): bandit"), (lambda logprobs: logprobs * math.nan, "<grad H, v>")],
)
def test_a_theorem_that_fails_is_named_and_the_exit_code_is_1(
    invoke: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: Callable[..., object], failed: str
) -> None:
    monkeypatch.setattr(statements, "relative_surprisal", wrong)
    ended = invoke("verify", "theory", "--json", "theory.json")
    assert ended.code == 1
    assert any(failed in line and line.rstrip().endswith("NO") for line in ended.out.splitlines())
    found = json.loads((tmp_path / "theory.json").read_text())  # NaN would not be JSON
    assert found["passed"] is False


@pytest.mark.usefixtures("short")
def test_a_control_that_agrees_fails_the_command(invoke: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.controls, "simplex_slope", lambda p, direction: -math.log(p[direction.argmax()]))
    monkeypatch.setattr(checks.controls, "relative_surprisal", lambda logprobs: -logprobs)
    ended = invoke("verify", "theory")
    assert ended.code == 1
    failed = [line.strip() for line in ended.out.splitlines() if line.rstrip().endswith("NO")]
    assert failed and all(line.startswith("3.2.2   control: Euclidean gradient") for line in failed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "simplex.pdf"], "--plot 'simplex.pdf' is neither .png nor .svg; choose a name that ends so"),
        (["--plot", "x.svg", "--json", "./x.svg"], "--plot 'x.svg' is --json's file as well; choose another --plot"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_computed(
    invoke: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(verify, "__defaults__", (0, None))  # would break if it was called
    ended = invoke("verify", "theory", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("option", ["--plot", "--json"])
def test_a_file_that_cannot_be_written_is_one_line(invoke: Run, tmp_path: Path, option: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    ended = invoke("verify", "theory", option, "folder.svg")
    assert ended.code == 2
    assert re.fullmatch(rf"aem-swe: .*'folder.svg' cannot be written .*; choose another {option}\n", ended.err)


def test_the_field_by_hand() -> None:
    field = simplex_field(2.0, steps=3, margin=1e-9)
    centre = int(np.argmin(np.abs(field.p_N3 - 1 / 3).max(axis=1)))
    assert field.rate_N[centre] == pytest.approx(0.0, abs=1e-8)  # S = H = log 3
    assert field.entropy_N[centre] == pytest.approx(math.log(3))
    # dp = 2 (e_1 - p): towards the corner of action 1, twice the way
    assert field.flow_N2[centre] == pytest.approx(2 * (CORNERS[0] - CORNERS.mean(axis=0)))
    assert field.place_N2[centre] == pytest.approx(CORNERS.mean(axis=0))
    two = int(np.argmin(np.abs(field.p_N3 - [1 / 3, 2 / 3, 0]).max(axis=1)))
    # H = log 3 - 2/3 log 2, S = log 3
    assert field.rate_N[two] == pytest.approx(2 * 2 / 3 * math.log(2), abs=1e-6)


def test_the_sign_of_the_advantage_turns_the_picture_around() -> None:
    up, down = simplex_field(1.0, steps=20), simplex_field(-1.0, steps=20)
    assert np.array_equal(up.rate_N, -down.rate_N)
    assert np.allclose(up.flow_N2, -down.flow_N2)
    assert (up.rate_N[up.p_N3[:, 0] > 0.9] < 0).all()
    assert (up.rate_N[up.p_N3[:, 0] < 0.05][1:-1] > 0).all()
    assert np.isfinite(up.rate_N).all()


def test_the_picture_is_the_same_every_time_in_both_forms() -> None:
    assert draw_simplex("png").startswith(b"\x89PNG")
    first = draw_simplex("svg")
    assert first == draw_simplex("svg")
    assert first.lstrip().startswith(b"<?xml")


def test_the_document_names_every_theorem_and_the_command() -> None:
    text = (REPOSITORY / "docs" / "theory.md").read_text()
    assert "aem-swe verify theory" in text
    for theorem in THEOREMS:
        assert re.search(rf"^## .*{re.escape(theorem)}", text, re.M), theorem
