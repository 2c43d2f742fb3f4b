"""`aem-swe verify ablations` as a user runs it: both results, one of them, and mistakes in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ablations_scene import CONTRASTS, FILTERS, three_policies, training_of
from command_line import REPOSITORY, Ended
from training_scene import make_plan

from aem_swe.eval.ablations_table import MARKS
from aem_swe.eval.dynamics_result import to_text as dynamics_text
from aem_swe.eval.pages import read_page
from aem_swe.eval.training_result import RunName, make_result, to_text

Invoke = Callable[..., Ended]
RESULTS = Path("benchmarks") / "results"
MADE = ("--json", "a.json", "--plot", "a.svg", "--markdown", "page.md")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Both files, where the command looks for them."""
    folder = tmp_path / RESULTS
    folder.mkdir(parents=True)
    (folder / "dynamics.json").write_text(dynamics_text(three_policies()))
    (folder / "training.json").write_text(to_text(training_of(tmp_path / "runs")))
    (tmp_path / "page.md").write_text(f"before\n{MARKS.begin}\n{MARKS.end}\nafter\n")
    return folder


@pytest.fixture(autouse=True)
def _runs_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "more").mkdir()


def test_both_results_are_one_page_one_figure_and_one_file(invoke: Invoke, tmp_path: Path, results: Path) -> None:
    ended = invoke("verify", "ablations", *MADE)
    assert (ended.code, ended.err) == (0, "")
    assert "+4.00 (-0.97 to +8.97)" in ended.out  # AEM's alignment
    assert (
        "80.0% (55.2 to 104.8)" in ended.out
        and "12 runs of the arms that differ in lambda or in the filter" in ended.out
    )
    assert "Missing" not in ended.out
    page = (tmp_path / "page.md").read_text()
    assert page.startswith(f"before\n{MARKS.begin}\n") and page.endswith(f"{MARKS.end}\nafter\n")
    assert "| lambda | 0 (the base algorithm) | 0, exactly |  |  |  |" in page and "(ablations.svg)" in page
    data = json.loads((tmp_path / "a.json").read_text())
    surprisal = next(one for one in data["dynamics"]["choices"] if one["rule"] == "surprisal")
    assert surprisal["effects"]["early"]["minus_aem"]["mean"] == pytest.approx(2.0)
    settings = {name: (one["lambda"], one["filter"]) for name, one in data["training"]["settings"].items()}
    filters = {"masked": (0.0, "mask"), "dropped": (0.0, "drop")}
    assert settings == {"off": (0.0, "off"), "aem": (1.0, "off"), "strong": (2.0, "off"), **filters}
    named = [one["name"] for one in data["training"]["contrasts"]]
    assert named == ["aem_plain", "lambda_0", "lambda_2", "lambda_2"] + ["filter_mask"] * 2 + ["filter_drop"] * 2
    files = {name: (tmp_path / name).read_bytes() for name in MADE[1::2]}
    assert invoke("verify", "ablations", *MADE).out == ended.out
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


def test_a_run_that_failed_is_said(invoke: Invoke, tmp_path: Path, results: Path) -> None:
    whole = training_of(tmp_path / "more", seeds=(1, 2))
    failed = [RunName(arm="dropped", seed=3), RunName(arm="aem", seed=1)]
    (results / "training.json").write_text(
        to_text(make_result(whole.about, whole.plan, whole.arms, whole.family, failed))
    )
    ended = invoke("verify", "ablations", *MADE)
    assert ended.code == 0, ended.err
    said = "8 runs of the arms that differ in lambda or in the filter, 2 FAILED: dropped seed 3, aem seed 1."
    assert said in ended.out and said in (tmp_path / "page.md").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["training"]["failed"] == [one.model_dump() for one in failed]


@pytest.mark.parametrize(
    ("absent", "said", "shown", "not_shown"),
    [
        ("dynamics", "`aem-swe verify dynamics --confirm --json {}` makes it.", "filter_drop", "sampled surprisal"),
        ("training", "`aem-swe verify training --json {}` makes it.", "sampled surprisal", "filter_drop"),
    ],
)
def test_one_result_is_shown_and_the_other_is_said_to_be_missing(
    invoke: Invoke, tmp_path: Path, results: Path, absent: str, said: str, shown: str, not_shown: str
) -> None:
    (results / f"{absent}.json").unlink()
    ended = invoke("verify", "ablations", *MADE)
    assert (ended.code, ended.err) == (0, "")
    path = RESULTS / f"{absent}.json"
    sentence = f"Missing: {path}; {said.format(path)}"
    data = json.loads((tmp_path / "a.json").read_text())
    assert data[absent] is None and data["notes"][-1] == sentence
    for text in (ended.out, (tmp_path / "page.md").read_text()):
        assert sentence in text and shown in text and not_shown not in text


def test_without_any_result_both_commands_are_named(invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("verify", "ablations", "--json", "a.json")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "`aem-swe verify dynamics --confirm --json benchmarks/results/dynamics.json` makes it" in ended.err
    assert "`aem-swe verify training --json benchmarks/results/training.json` makes it" in ended.err
    assert "name files by --dynamics and --training" in ended.err and not (tmp_path / "a.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--dynamics", "none.json"),
            "--dynamics 'none.json' is no file; `aem-swe verify dynamics --confirm --json none",
        ),
        (("--training", "none.json"), "--training 'none.json' is no file; `aem-swe verify training --json none.json`"),
        (("--training", "x" * 300), "is no file; `aem-swe verify training --json x"),
        (("--dynamics", "page.md"), "--dynamics 'page.md' is no result of `aem-swe verify dynamics`"),
        (("--training", "page.md"), "--training 'page.md' is no result of `aem-swe verify training`"),
        (("--training", "other.json"), "--training 'other.json' has no contrast of truncation"),
        (("--json", str(RESULTS / "dynamics.json")), "is --dynamics's file as well; choose another --json"),
        (("--plot", "a.svg", "--json", "a.svg"), "choose another --plot"),
        (("--plot", "a.pdf"), "--plot 'a.pdf' is neither .png nor .svg"),
        (("--markdown", "none.md"), "--markdown 'none.md' cannot be read"),
        (("--markdown", "other.json"), f"--markdown 'other.json' lacks the lines {MARKS.begin} and {MARKS.end}"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    invoke: Invoke, tmp_path: Path, results: Path, arguments: tuple[str, ...], message: str
) -> None:
    plan = make_plan(tmp_path, arms=FILTERS, contrasts={"aem_plain": CONTRASTS["aem_plain"]})
    about = training_of(tmp_path / "runs", seeds=()).about
    arms = training_of(tmp_path / "runs", seeds=()).arms
    (tmp_path / "other.json").write_text(to_text(make_result(about, plan, arms, plan.family())))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ended = invoke("verify", "ablations", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert message in ended.err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_committed_page_is_what_the_command_makes_of_the_committed_results(invoke: Invoke, tmp_path: Path) -> None:
    page = REPOSITORY / MARKS.document
    text = read_page(page, MARKS)  # the marks are there in any case
    files = [REPOSITORY / RESULTS / f"{name}.json" for name in ("dynamics", "training")]
    tables = "|---|" in text.partition(MARKS.begin)[2].partition(MARKS.end)[0]
    if not tables and not any(file.is_file() for file in files):
        pytest.skip("no result is there yet; aem-swe verify dynamics --confirm and verify training make them")
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / RESULTS).symlink_to(REPOSITORY / RESULTS)
    (tmp_path / "page.md").write_text(text)
    ended = invoke("verify", "ablations", "--markdown", "page.md")
    assert ended.code == 0, ended.err
    assert (tmp_path / "page.md").read_text() == text
    assert (page.parent / "ablations.svg").is_file()
