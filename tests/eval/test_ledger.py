"""The ledger of claims: verdicts come from result files, by rules, and the committed page is what they give."""

import json
from pathlib import Path
from typing import Any  # JSON values

import pytest
from command_line import REPOSITORY

from aem_swe.errors import ConfigError
from aem_swe.eval.ledger import Entry, Results, load_claims, make_ledger
from aem_swe.eval.reproduction import page

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
    checks = ({"theory": "3.2.1"}, {"dynamics": "rise"}, {"ratio": ["demo_step", "AEM", "the step"]}, {"demo_seeds": 1})
    assert {one(tmp_path, check).finding.status for check in checks} == {"not run"}


def test_nothing_is_confirmed_on_fewer_than_five(tmp_path: Path) -> None:
    claim = {"id": "rise", "verdict": "confirmed", "n": 4, "figure": "+1"}
    with pytest.raises(ConfigError, match="'rise' confirmed with n = 4; 5 policies are the fewest"):
        one(tmp_path, {"dynamics": "rise"}, dynamics={"claims": [claim]})
    kept = one(tmp_path, {"dynamics": "rise"}, dynamics={"claims": [{**claim, "n": 5}]})
    assert (kept.finding.status, kept.finding.figure) == ("confirmed", "+1")


@pytest.mark.parametrize(
    ("seeds", "verdict", "status"),
    [
        (3, "demo_aem is ahead", "undecided (3 seeds)"),
        (5, "No detectable difference at this scale", "undecided (5 seeds)"),
        (5, "demo_aem is ahead", "measured"),
    ],
)
def test_training_runs_need_five_seeds_and_a_difference(tmp_path: Path, seeds: int, verdict: str, status: str) -> None:
    arms = {name: {"runs": [{}] * count} for name, count in (("a", seeds), ("b", 9))}
    result = {"command": "x", "arms": arms, "contrast": [{"verdict": verdict, "numbers": "+1"}]}
    assert one(tmp_path, {"demo_seeds": True}, demo_seeds=result).finding.status == status


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
