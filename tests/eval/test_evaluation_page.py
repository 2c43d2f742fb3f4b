"""The page about an evaluation: what it says, what it leaves out, and how large it becomes."""

import json
import re
from pathlib import Path

import evaluation_folders as folders
import pytest
from page_outline import Outline, outline

from aem_swe.errors import RunError
from aem_swe.eval.swebench.hack_survey import survey
from aem_swe.eval.swebench.measures import summarise
from aem_swe.eval.swebench.page import reading_order, write_evaluation_page
from aem_swe.eval.swebench.page_data import MOST_FACTS, facts, instances_of
from aem_swe.eval.swebench.results import Evaluation, Status, load_evaluation, result_line

NAMES = folders.names(12)


def page_of(evaluation: Evaluation, out: Path, most_bytes: int = 25_000_000) -> Outline:
    write_evaluation_page(evaluation, out, most_bytes=most_bytes)
    return outline(out)


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    """Two runs of twelve: one cheat, one error, one infrastructure failure, one empty patch, one result missing."""
    changes = {(1, NAMES[5]): Status.ERROR, (2, NAMES[6]): Status.INFRASTRUCTURE, (2, NAMES[7]): Status.EMPTY}
    made = folders.write_evaluation(
        tmp_path / "a",
        changes=changes,
        trajectories={(1, NAMES[0]): folders.cheat(NAMES[0]), (2, NAMES[6]): None},
    )
    folders.write_logs(tmp_path / "a/run_1", NAMES[1], ["tests/test_x.py::test_it"], "E  assert 1 == 2")
    return made


def test_the_page_is_whole_and_asks_nothing(tmp_path: Path, evaluation: Evaluation) -> None:
    page = page_of(evaluation, tmp_path / "a.html")
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "link", "base"} and page.handlers == []
    addresses = [address for address in page.addresses if address != "#instances"]
    assert addresses and all(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in (tmp_path / "a.html").read_text()


def test_the_headline_is_pass_at_1_with_its_interval(tmp_path: Path, evaluation: Evaluation) -> None:
    found = summarise(evaluation).pass_at_1
    assert found is not None
    said = (
        f"deepswe: pass@1 {found.value:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}] over 2 runs of 12 instances"
    )
    page = page_of(evaluation, tmp_path / "a.html")
    assert said in page.text
    assert "1 infrastructure: excluded, in no mean" in page.text and "1 empty patch" in page.text
    assert "1 result lost to the infrastructure, in no mean" in page.text


def test_the_page_says_what_an_evaluation_is(tmp_path: Path, evaluation: Evaluation) -> None:
    text = page_of(evaluation, tmp_path / "a.html").text
    for part in (
        "play.agent r2egym",
        "play.soft_steps not set",
        "Grading containers: they had no network.",
        "The harness: swebench 5.0.2, memory_mb 8192, timeout_s 1800.",
        "pass@k",
        "django/django (4)",
        "15 min - 1 hour (",
        "Prompt tokens 86,400",
        "Cost 6.00",
        "git_history: looks for the fix in git's history 1 1 1",
        "git_history turn 1: names a commit, branch or tag that may lie after the base commit (other_commit)",
        "FAIL_TO_PASS: 1 failed tests/test_x.py::test_it",
        "E assert 1 == 2",
        "I look at the file.",
        "entropy 0.412 alpha 1.031",
        "+return n // 7",
        "The issue is thus.",
        "No turns: no trajectory is recorded.",
        "All 24 recorded results can be read here.",
    ):
        assert part in text, part


def test_only_what_lies_between_the_marks_of_the_harness_is_test_output(tmp_path: Path, evaluation: Evaluation) -> None:
    text = page_of(evaluation, tmp_path / "a.html").text
    assert "E assert 1 == 2" in text
    assert "HARNESS" not in text and "Test Output" not in text


def test_a_score_is_shown_with_and_without_hits(tmp_path: Path, evaluation: Evaluation) -> None:
    page = page_of(evaluation, tmp_path / "a.html")
    found = re.search(
        r"pass@1: ([\d.]+)% as graded; ([\d.]+)% where the 1 resolved result with a strong hit", page.text
    )
    assert found is not None
    # The cheat resolved one of two runs of one of twelve instances.
    assert float(found[1]) - float(found[2]) == pytest.approx(100 / 24, abs=0.11)


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path, evaluation: Evaluation) -> None:
    for name in ("1.html", "2.html"):
        write_evaluation_page(evaluation, tmp_path / name)
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_an_evaluation_that_was_just_begun_has_a_page(tmp_path: Path, evaluation: Evaluation) -> None:
    (evaluation.folder / "results.jsonl").unlink()
    page = page_of(load_evaluation(evaluation.folder), tmp_path / "a.html")
    assert "deepswe: nothing graded yet in 2 runs of 12 instances" in page.text
    assert "24 results not there" in page.text and "24 not finished" in page.text


def test_a_network_of_the_grading_containers_is_said_loudly(tmp_path: Path) -> None:
    made = folders.write_evaluation(tmp_path / "a", about={"harness": {"network": "bridge"}})
    assert "they had a network (bridge)" in page_of(made, tmp_path / "a.html").text
    silent = folders.write_evaluation(tmp_path / "b", about={"harness": None, "protocol": None})
    page = page_of(silent, tmp_path / "b.html")
    assert "whether they had a network is not recorded" in page.text and "Protocol: not recorded" in page.text


def test_rows_carry_what_filters_ask_for(tmp_path: Path, evaluation: Evaluation) -> None:
    rows = {row.id: row for row in instances_of(evaluation, survey(evaluation)).rows}
    first, second, third = (rows[name] for name in NAMES[:3])
    assert (first.resolved, first.graded, first.strong, first.differs) == (2, 2, True, False)
    assert (second.resolved, second.hits, second.differs) == (0, 0, False)
    assert third.differs and third.statuses == ("resolved", "unresolved")
    assert rows[NAMES[6]].graded == 1
    page_of(evaluation, tmp_path / "a.html")
    found = re.findall(r'<li class="(i s [^"]*)">', (tmp_path / "a.html").read_text())
    assert found[0] == "i s r0 d2 s-resolved hit strong always"
    assert found[2].endswith("s-resolved s-unresolved differs")


def test_what_is_worth_reading_comes_first(evaluation: Evaluation) -> None:
    order = reading_order(evaluation, survey(evaluation))
    assert order[0] == (1, NAMES[0]) and len(order) == len(set(order)) == 24
    flips = {name for name in NAMES if len({evaluation.results[run, name].score for run in (1, 2)}) == 2} - {NAMES[6]}
    assert {name for _, name in order[1 : 1 + 2 * len(flips)]} == flips
    rest = order[1 + 2 * len(flips) :]
    troubled = [evaluation.results[key].status not in (Status.RESOLVED, Status.UNRESOLVED) for key in rest]
    assert troubled == sorted(troubled, reverse=True)


@pytest.mark.parametrize("most_bytes", [0, 120_000, 180_000])
def test_a_page_has_a_limit_and_says_what_it_leaves_out(tmp_path: Path, most_bytes: int) -> None:
    long = folders.turn("A" * 1_500, "execute_bash", "B" * 1_500, cmd="C" * 1_500)
    made = {(run, name): folders.trajectory(name, *[long] * 4) for run in (1, 2) for name in NAMES}
    made[2, NAMES[9]] = folders.cheat(NAMES[9])
    evaluation = folders.write_evaluation(tmp_path / "a", trajectories=made)
    write_evaluation_page(evaluation, tmp_path / "empty.html", most_bytes=0)
    tables = (tmp_path / "empty.html").stat().st_size
    page = page_of(evaluation, tmp_path / "a.html", most_bytes)
    assert (tmp_path / "a.html").stat().st_size <= max(tables, most_bytes) + 300  # the sentence about it
    found = re.search(r"(\d+) of 24 recorded results can be read here.* The other (\d+) are left out", page.text)
    assert found is not None and int(found[1]) + int(found[2]) == 24
    assert (int(found[1]) > 0) == (most_bytes > tables)
    assert page.text.count("run_") >= int(found[2])
    assert ("I look for the fix." in page.text) == (most_bytes > tables)  # the hit is the first to be shown


def test_long_texts_are_clipped_and_turns_in_the_middle_left_out(tmp_path: Path) -> None:
    turns = [folders.turn(f"turn-{number:03d}.", "execute_bash", "x" * 9_000, cmd="ls") for number in range(1, 101)]
    turns[40] = folders.turn("turn-041 cheats.", "execute_bash", "", cmd="git reflog")
    made = {(1, NAMES[0]): folders.trajectory(NAMES[0], *turns, patch="+" + "y" * 99_999)}
    page = page_of(folders.write_evaluation(tmp_path / "a", trajectories=made), tmp_path / "a.html")
    assert (
        "[clipped here: 7,000 more characters]" in page.text and "[clipped here: 92,000 more characters]" in page.text
    )
    assert "turn-030." in page.text and "turn-031." not in page.text and "turn-081." in page.text
    assert "turn-041 cheats." in page.text and "10 turns are not shown." in page.text


def test_a_long_test_output_keeps_its_end(tmp_path: Path, evaluation: Evaluation) -> None:
    output = "\n".join(f"line {number}" for number in range(200_000))
    folders.write_logs(evaluation.run_folder(2), NAMES[1], [f"test_{number}" for number in range(50)], output)
    page = page_of(evaluation, tmp_path / "a.html")
    assert "line 199999" in page.text and "line 150000" not in page.text
    assert "FAIL_TO_PASS: 50 failed" in page.text and "and 30 more" in page.text


def test_settings_are_flattened_and_bounded() -> None:
    value = {"a": {"b": [1, 2], "c": {}}, "d": True, "e": None}
    assert [(fact.name, fact.value) for fact in facts(value)] == [
        ("a.b", "1, 2"),
        ("a.c", "{}"),
        ("d", "true"),
        ("e", "not set"),
    ]
    many = list(facts({str(number): number for number in range(10_000)}))
    assert len(many) == MOST_FACTS + 1 and many[-1].value == "more is in evaluation.json"


def test_predictions_stand_in_for_trajectories(tmp_path: Path) -> None:
    nothing = {(run, name): None for run in (1, 2) for name in NAMES}
    made = folders.write_evaluation(tmp_path / "a", trajectories=nothing)
    patch = folders.PATCH.replace("x.py", "conftest.py")
    made.run_folder(2).mkdir(exist_ok=True)
    row = {"instance_id": NAMES[3], "model_name_or_path": "m", "model_patch": patch}
    (made.run_folder(2) / "preds.jsonl").write_text(json.dumps(row) + "\nnot json\n")
    page = page_of(made, tmp_path / "a.html")
    assert list(survey(made)) == [(2, NAMES[3])]
    assert "in the patch: decides how tests are run (test_configuration) modified conftest.py" in page.text


def test_runs_beyond_reason_are_refused(tmp_path: Path, evaluation: Evaluation) -> None:
    path = evaluation.folder / "evaluation.json"
    for damaged in (10**9, 0, "x", None):
        path.write_text(json.dumps({**evaluation.about, "runs": damaged}))
        with pytest.raises(RunError, match="it must be 1 to 10000: restore it"):
            load_evaluation(evaluation.folder)


@pytest.mark.parametrize(
    "damage",
    [
        {"turns": "x"},
        {"run": 0},
        {"run": None},
        {"cost": "nan"},
        {"seconds": 3},
        {"seconds": {"a": "b"}},
        {"status": "?"},
    ],
)
def test_a_line_that_is_no_result_is_counted_and_left_out(evaluation: Evaluation, damage: dict[str, object]) -> None:
    before = load_evaluation(evaluation.folder)
    row = json.loads(result_line(next(iter(before.results.values())))) | damage
    with (evaluation.folder / "results.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    after = load_evaluation(evaluation.folder)
    assert after.results == before.results and after.unreadable_lines == before.unreadable_lines + 1


def test_a_page_that_cannot_be_written_is_one_clear_line(tmp_path: Path, evaluation: Evaluation) -> None:
    with pytest.raises(RunError, match=r"cannot be written .*; choose another --out"):
        write_evaluation_page(evaluation, evaluation.folder)


def test_the_style_is_one_sheet_without_addresses(tmp_path: Path, evaluation: Evaluation) -> None:
    write_evaluation_page(evaluation, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    style = text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"url\(|@import|expression\(", style)
