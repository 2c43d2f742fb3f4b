"""The ledger of claims: verdicts come from result files, by rules, and the committed page is what they give."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any  # JSON values

import pytest
from ablations_scene import three_policies
from command_line import REPOSITORY, Ended
from dynamics_scene import confirmation, write
from training_scene import result_of

from aem_swe.errors import ConfigError
from aem_swe.eval.dynamics import CLAIMS
from aem_swe.eval.ledger import Entry, Finding, Results, counts, load_claims, make_ledger
from aem_swe.eval.reproduction import page
from aem_swe.eval.training_plan import read_plan
from aem_swe.eval.training_result import Result, to_text

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
    checks = ({"theory": "3.2.1"}, {"dynamics": "masks"}, ratio, {"training": "aem_grpo"})
    assert {one(tmp_path, check).finding.status for check in checks} == {"not run"}


def test_dynamics_are_judged_from_their_batches(tmp_path: Path) -> None:
    for sign, status in ((1.0, "confirmed"), (-1.0, "contradicted")):
        result = confirmation(sign)
        write(tmp_path / "dynamics.json", result, claims=[])
        found = [one(tmp_path, {"dynamics": name}) for name in ("early", "late", "masks", "inverted", "lambda")]
        assert [entry.finding.status for entry in found] == [status] * 5
        assert [entry.finding.figure for entry in found] == [claim["figure"] for claim in result["claims"]]
        assert (found[0].finding.command, found[0].finding.date) == (result["command"], result["date"])


def test_a_verdict_written_into_dynamics_json_changes_nothing(tmp_path: Path) -> None:
    result = three_policies()
    claims = [{**claim, "verdict": "confirmed", "n": 5, "figure": "+1"} for claim in result["claims"]]
    write(tmp_path / "dynamics.json", result, claims=claims)
    found = one(tmp_path, {"dynamics": "early"}).finding
    assert found.status == "undecided (3 policies, 5 needed)" and "n = 3 policies" in found.figure
    write(tmp_path / "dynamics.json", result, confirmatory="no")
    with pytest.raises(ConfigError, match=r"--results .*dynamics\.json' is no result of `aem-swe verify dynamics`"):
        one(tmp_path, {"dynamics": "early"})


PLAIN = (0.30, 0.32, 0.34, 0.36, 0.38)
MORE = (0.41, 0.42, 0.45, 0.46, 0.49)  # 0.11, 0.10, 0.11, 0.10, 0.11 above
SCATTERED = (0.30, 0.30, 0.36, 0.36, 0.38)  # 0, -0.02, +0.02, 0, 0


def scene(arm: str, against: str, plus: Sequence[float], minus: Sequence[float], **other: float) -> Result:
    """Held-out success of two arms of the shipped plan by seed; `other` is of every run of `arm`."""
    values = {
        arm: {seed: {"held_out": value, **other} for seed, value in enumerate(plus, 1)},
        against: {seed: {"held_out": value} for seed, value in enumerate(minus, 1)},
    }
    return result_of(read_plan(None), values)


@pytest.mark.parametrize(
    ("plus", "minus", "status"),
    [
        (MORE, PLAIN, "agrees with the paper"),
        (PLAIN, MORE, "disagrees with the paper"),
        (SCATTERED, PLAIN, "undecided (no detectable difference)"),
        (MORE[:3], PLAIN, "undecided (3 seeds, 5 needed)"),
        (MORE[:4], PLAIN[:4], "undecided (4 seeds, 5 needed)"),
        (MORE, (), "not run"),
    ],
)
def test_training_runs_are_judged_against_what_the_paper_says_of_the_first_measure(
    tmp_path: Path, plus: Sequence[float], minus: Sequence[float], status: str
) -> None:
    result = scene("demo_grpo_aem", "demo_grpo", plus, minus, reward=0.125)
    content = json.loads(to_text(result))
    content["contrasts"] = [{**row, "verdict": "higher", "n": 9, "figure": "+1"} for row in content["contrasts"]]
    found = one(tmp_path, {"training": "aem_grpo"}, training=content).finding
    assert found.status == status
    judged = next(row for row in result.judgements if row.name == "aem_grpo")
    assert judged.measure == "held_out" and found.figure == judged.figure
    assert (found.command, found.date) == ("aem-swe verify training", "2026-01-02" if minus else "")
    assert one(tmp_path, {"training": "aem_dapo"}).finding.status == "not run"


def test_what_no_paper_speaks_of_is_measured_and_counted(tmp_path: Path) -> None:
    content = json.loads(to_text(scene("tight_drop", "tight_off", PLAIN, MORE)))
    drop = one(tmp_path, {"training": "filter_drop"}, training=content)
    assert drop.finding.status == "measured"
    agrees = Entry("c", "s", Finding("agrees with the paper", "", ""))
    assert counts([agrees, drop, agrees]) == ["2 agrees with the paper", "1 measured"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"overrides": ["trainer.steps=24", "trainer.eval_every=24"]}, "overrides"),
        ({"seeds": [1, 2, 3, 4, 5, 6]}, "seeds"),
        ({"family": {"held_out": 12, "reward": 6, "truncation": 2, "entropy": 5}}, "numbers of contrasts"),
    ],
)
def test_a_result_of_another_plan_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    content = json.loads(to_text(scene("demo_aem", "demo", MORE, PLAIN)))
    assert one(tmp_path, {"training": "aem_leave_one_out"}, training=content).finding.status == "agrees with the paper"
    said = rf"training\.json was made with another plan than eval/training\.yaml \({named} differ\); make it again"
    with pytest.raises(ConfigError, match=said):
        one(tmp_path, {"training": "aem_leave_one_out"}, training={**content, **changes})


def test_a_result_with_other_arms_or_contrasts_is_refused(tmp_path: Path) -> None:
    content = json.loads(to_text(scene("demo_aem", "demo", MORE, PLAIN)))
    content["arms"]["demo_gspo"]["overrides"] = ["optimizer.lr=0.5"]
    with pytest.raises(ConfigError, match=r"\(arms differ\)"):
        one(tmp_path, {"training": "aem_leave_one_out"}, training=content)
    plan = read_plan(None).restricted(["demo", "demo_aem"], [])
    part = result_of(plan, {"demo": {1: {}}})
    with pytest.raises(ConfigError, match=r"\(arms, contrasts, numbers of contrasts differ\)"):
        one(tmp_path, {"training": "aem_leave_one_out"}, training=json.loads(to_text(part)))


def test_every_dynamics_check_is_a_claim_that_is_tested(tmp_path: Path) -> None:
    checks = [claim["check"]["dynamics"] for claim in load_claims()["claims"] if "dynamics" in claim["check"]]
    assert sorted(checks) == sorted(claim.name for claim in CLAIMS)
    with pytest.raises(ConfigError, match=r"'dynamics': 'rise'.* is no claim of verify dynamics"):
        one(tmp_path, {"dynamics": "rise"})
    content = json.loads(to_text(scene("demo_aem", "demo", MORE, PLAIN)))
    with pytest.raises(ConfigError, match=r"'training': 'mask_rise'.* is no contrast of eval/training\.yaml"):
        one(tmp_path, {"training": "mask_rise"}, training=content)


def test_every_training_check_is_a_contrast_of_the_plan() -> None:
    checks = [claim["check"]["training"] for claim in load_claims()["claims"] if "training" in claim["check"]]
    plan = read_plan(None)
    assert checks and all(plan.contrasts[name].paper for name in checks)


def test_gpu_hours_are_multiplied_not_typed(tmp_path: Path) -> None:
    needs = {"commands": ["a", "b"], "device": "H100", "devices": 64, "hours": 144, "runs": 6}
    found = one(tmp_path, {"hardware": needs}).finding
    assert "55,296 GPU hours" in found.figure and found.command == "a\nb"  # 64 * 144 * 6
    unknown = one(tmp_path, {"hardware": {**needs, "hours": None}}).finding
    assert unknown.figure == "needs 64 H100, 6 times; nobody has timed a run"
    absent = one(tmp_path, {"absent": "no data"}).finding
    assert (absent.status, absent.figure, absent.command) == ("not run", "no data", "")


def test_an_unknown_check_and_a_broken_file_are_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"check \{'hope': 1\} in eval/claims.yaml is not known"):
        one(tmp_path, {"hope": 1})
    (tmp_path / "theory.json").write_text("{")
    with pytest.raises(ConfigError, match=r"is no result of `verify or of a benchmark`"):
        one(tmp_path, {"theory": "3.2.1"})
    with pytest.raises(ConfigError, match="is no folder"):
        Results(tmp_path / "nowhere")


@pytest.mark.parametrize("ratios", ["[{}]", "[5]", "5", '[{"name": "AEM", "reference": "the step", "value": "x"}]'])
def test_a_result_of_another_form_is_one_line(tmp_path: Path, ratios: str) -> None:
    (tmp_path / "demo_step.json").write_text(f'{{"ratios": {ratios}}}')
    with pytest.raises(
        ConfigError, match=r"^the result file of check \{'ratio': .*\} cannot be used \(.*\); make it again$"
    ):
        one(tmp_path, {"ratio": ["demo_step", "AEM", "the step"]})


def test_a_page_does_not_replace_a_result(invoke: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "dynamics.json").write_text("kept")
    ended = invoke("verify", "all", "--results", ".", "--report", "dynamics.json")
    assert ended.code == 2 and "choose a name that ends in .md" in ended.err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_the_committed_page_is_what_the_committed_results_give() -> None:
    claims = load_claims()
    made = page(claims, make_ledger(claims, Results(REPOSITORY / "benchmarks" / "results")))
    assert (REPOSITORY / "docs" / "reproduction.md").read_text() == made
