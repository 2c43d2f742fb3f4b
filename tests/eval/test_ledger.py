"""The ledger of claims: verdicts come from result files, by rules, and the committed page is what they give."""

import json
from pathlib import Path
from typing import Any  # JSON values

import pytest
from command_line import REPOSITORY

from aem_swe.errors import ConfigError
from aem_swe.eval.ledger import Entry, Results, load_claims, make_ledger
from aem_swe.eval.reproduction import page
from aem_swe.eval.training_plan import read_plan

CONTROL = {"claim": "3.2.2", "kind": "control", "instances": 500, "max_error": 0.4, "bound": 1e-3, "passed": True}
STATEMENT = {"claim": "3.2.2", "kind": "statement", "instances": 500, "max_error": 2e-9, "bound": 1e-7, "passed": True}


def one(folder: Path, check: dict[str, Any], **files: Any) -> Entry:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    claims = {"claims": [{"claim": "c", "source": "s", "check": check}]}
    return make_ledger(claims, Results(folder))[0]


def test_a_theorem_holds_while_all_its_rows_pass(tmp_path: Path) -> None:
    other = {**STATEMENT, "claim": "3.2.1", "max_error": 1.0, "passed": False}
    found = one(tmp_path, {"theory": "3.2.2"}, theory={"checks": [STATEMENT, CONTROL, other]}).finding
    assert found.status == "holds"
    assert found.figure.startswith(
        "largest error 2e-09 over n = 500 random policies (bound 1e-07); wrong versions of it"
    )
    for broken in ({**STATEMENT, "passed": False}, {**CONTROL, "passed": False}):
        rows = [STATEMENT, CONTROL, broken]
        assert one(tmp_path, {"theory": "3.2.2"}, theory={"checks": rows}).finding.status == "fails"


def test_what_has_no_result_was_not_run(tmp_path: Path) -> None:
    ratio = {"ratio": ["demo_step", "AEM", "the step"]}
    checks = ({"theory": "3.2.1"}, {"dynamics": "rise"}, ratio, {"training": "aem_grpo"})
    assert {one(tmp_path, check).finding.status for check in checks} == {"not run"}


def test_nothing_is_confirmed_on_fewer_than_five(tmp_path: Path) -> None:
    claim = {"id": "rise", "verdict": "confirmed", "n": 4, "figure": "+1"}
    with pytest.raises(ConfigError, match="'rise' confirmed with n = 4; 5 policies are the fewest"):
        one(tmp_path, {"dynamics": "rise"}, dynamics={"claims": [claim]})
    kept = one(tmp_path, {"dynamics": "rise"}, dynamics={"claims": [{**claim, "n": 5}]})
    assert (kept.finding.status, kept.finding.figure) == ("confirmed", "+1")


@pytest.mark.parametrize(
    ("verdict", "paper", "n", "status"),
    [
        ("higher", "higher", 5, "confirmed"),
        ("lower", "higher", 5, "contradicted"),
        ("lower", "lower", 6, "confirmed"),
        ("lower", None, 5, "measured"),
        ("no detectable difference", "higher", 5, "undecided (no detectable difference)"),
        ("undecided (3 seeds, 5 needed)", "higher", 3, "undecided (3 seeds, 5 needed)"),
        ("not run", "higher", 0, "not run"),
    ],
)
def test_training_runs_are_judged_against_what_the_paper_says(
    tmp_path: Path, verdict: str, paper: str | None, n: int, status: str
) -> None:
    first = {"name": "aem", "paper": paper, "measure": "held_out", "n": n, "verdict": verdict, "figure": "+1"}
    second = {**first, "measure": "reward", "verdict": "higher", "paper": "lower", "n": 9}
    result = {"command": "x", "date": "2026-01-02", "contrasts": [first, second]}
    found = one(tmp_path, {"training": "aem"}, training=result).finding
    assert found.status == status
    assert (found.figure, found.command, found.date) == (("+1", "x", "2026-01-02") if n else ("", COMMAND, ""))


COMMAND = "aem-swe verify training"


def test_a_training_verdict_on_fewer_than_five_seeds_is_refused(tmp_path: Path) -> None:
    row = {"name": "aem", "paper": "higher", "measure": "held_out", "n": 4, "verdict": "higher", "figure": "+1"}
    with pytest.raises(ConfigError, match="'aem' higher with n = 4; 5 seeds are the fewest"):
        one(tmp_path, {"training": "aem"}, training={"command": "x", "date": "", "contrasts": [row]})


def test_every_training_check_is_a_contrast_of_the_plan() -> None:
    checks = [claim["check"]["training"] for claim in load_claims()["claims"] if "training" in claim["check"]]
    plan = read_plan(None)
    assert checks and all(plan.contrasts[name].paper for name in checks)


def test_gpu_hours_are_multiplied_not_typed(tmp_path: Path) -> None:
    needs = {"commands": ["a", "b"], "device": "H100", "devices": 64, "hours": 144, "runs": 6}
    found = one(tmp_path, {"hardware": needs}).finding
    assert "55,296 GPU hours" in found.figure and found.command == "a\nb"  # 64 * 144 * 6


def test_an_unknown_check_and_a_broken_file_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"check \{'hope': 1\} in eval/claims.yaml is not known"):
        one(tmp_path, {"hope": 1})
    (tmp_path / "theory.json").write_text("{")
    with pytest.raises(ConfigError, match=r"theory\.json is not JSON"):
        one(tmp_path, {"theory": "3.2.1"})
    with pytest.raises(ConfigError, match="is no folder"):
        Results(tmp_path / "nowhere")


def test_the_committed_page_is_what_the_committed_results_give() -> None:
    claims = load_claims()
    made = page(claims, make_ledger(claims, Results(REPOSITORY / "benchmarks" / "results")))
    assert (REPOSITORY / "docs" / "reproduction.md").read_text() == made
