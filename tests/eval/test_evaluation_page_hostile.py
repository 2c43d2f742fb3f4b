"""An evaluation's folder was written by a policy, or by code that it ran: it may not act, hide or lead out."""

import json
import os
from pathlib import Path

import evaluation_folders as folders
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aem_swe.eval.swebench.arms import parse_arms
from aem_swe.eval.swebench.contrast import compare_arms
from aem_swe.eval.swebench.hack_survey import survey
from aem_swe.eval.swebench.page import write_comparison_page, write_evaluation_page
from aem_swe.eval.swebench.records import is_file_name, read_record
from aem_swe.eval.swebench.results import Evaluation, Instance, Result, Status

NAMES = folders.names(4)


def check(page: str) -> None:
    lowered = page.lower()
    for tag in ("<script", "<img src=x", "<a href=javascript", "</title><"):
        assert tag not in lowered
    assert lowered.count("</style>") == 1
    assert "&lt;script&gt;document.title=" in page and "{{ 7*7 }}" in page
    assert "\x1b" not in page and "\u202e" not in page
    assert "\u241b[31m&lt;U+202E&gt;&lt;U+D800&gt;" in page


def test_markup_in_every_field_of_an_evaluation_stays_text(tmp_path: Path) -> None:
    evaluation = folders.attacked(tmp_path / "a")
    write_evaluation_page(evaluation, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    check(page)
    assert "git log --all" in page and "FAIL_TO_PASS: 2 failed" in page


def test_markup_in_every_field_of_a_comparison_stays_text(tmp_path: Path) -> None:
    folders.attacked(tmp_path / "a")
    changes = {(run, NAMES[0]): Status.UNRESOLVED for run in (1, 2)}
    folders.write_evaluation(tmp_path / "b", count=4, changes=changes, about={"protocol": {folders.ATTACK: 1}})
    comparison = compare_arms(parse_arms([str(tmp_path / "a"), "vs", str(tmp_path / "b")]))
    write_comparison_page(comparison, tmp_path / "c.html")
    check((tmp_path / "c.html").read_text())


ODD = [
    {},
    [],
    "text",
    3,
    {"messages": None, "info": None, "aem_swe": None},
    {"messages": {"a": 1}, "info": {"submission": 5}, "aem_swe": {"retries": "x"}},
    {"messages": [1, None, [], {"role": "assistant"}, {"role": "assistant", "content": 7, "extra": 3}]},
    {
        "messages": [
            {"role": "user", "content": ["x"]},
            {"role": "assistant", "content": {"a": 1}, "extra": {"action": {"name": ["x"], "arguments": "all"}}},
            {"role": "assistant", "extra": {"action": {"error": 5}, "entropy": "x", "prompt_tokens": True}},
            {"role": "assistant", "extra": {"observation": [1], "alpha": 1e999, "completion_tokens": 10**400}},
            {"role": "assistant", "extra": {"action": {"name": "x", "arguments": {"cmd": 5, "path": None}}}},
        ],
        "info": {"submission": ["x"]},
    },
]


@pytest.mark.parametrize("document", ODD, ids=range(len(ODD)))
def test_trajectories_of_any_shape_are_shown_or_left_out(tmp_path: Path, document: object) -> None:
    made = folders.write_evaluation(tmp_path / "a", count=4, trajectories={(1, NAMES[0]): json.dumps(document)})
    write_evaluation_page(made, tmp_path / "a.html")
    assert "All 8 recorded results can be read here." in (tmp_path / "a.html").read_text()
    assert survey(made) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "role", "extra", "action", "arguments", "name", "content", "info", "aem_swe"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=JSON, message=JSON)
def test_any_json_is_a_record(tmp_path: Path, document: object, message: object) -> None:
    evaluation = Evaluation(tmp_path, {}, (Instance("a", "r", ""),), {})
    path = evaluation.trajectory_file(1, "a")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [message, {"role": "assistant", "extra": message, "content": message}]
    for content in (document, {"messages": rows, "info": document, "aem_swe": message}):
        path.write_text(json.dumps(content))
        record = read_record(evaluation, 1, "a", None, ())
        assert record.all_turns >= len(record.turns) and bool(record.trouble) == (not record.turns)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "its trajectory file is no JSON"),
        ("[" * 100_000, "its trajectory file is no JSON"),
        ("[1]", "its trajectory file holds no object"),
        ('{"messages": []}', "its trajectory file has no turns"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    made = folders.write_evaluation(tmp_path / "a", count=4, trajectories={(1, NAMES[0]): content})
    assert read_record(made, 1, NAMES[0], None, ()).trouble == said


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    made = folders.write_evaluation(tmp_path / "a", count=4)
    os.truncate(made.trajectory_file(1, NAMES[0]), 65 << 20)
    assert read_record(made, 1, NAMES[0], None, ()).trouble == "its trajectory file is larger than 64 MB"


@pytest.mark.parametrize("name", ["../secret", "..", ".", "", "a/b", "/etc/passwd", "a\0b", "a\nb", "x" * 300])
def test_an_id_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    assert not is_file_name(name)
    secret = folders.trajectory("secret", folders.turn("SECRET", "finish"))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/secret.traj.json").write_text(json.dumps(secret))
    evaluation = Evaluation(tmp_path / "a", {}, (Instance(name, "r", ""),), {(1, name): Result(name, 1, Status.EMPTY)})
    write_evaluation_page(evaluation, tmp_path / "a.html")
    assert "SECRET" not in (tmp_path / "a.html").read_text()


def test_links_are_not_followed_out_of_the_folder_and_pipes_not_read(tmp_path: Path) -> None:
    secret = folders.trajectory("secret", folders.turn("SECRET", "finish"), patch="SECRET")
    (tmp_path / "secret.json").write_text(json.dumps(secret))
    made = folders.write_evaluation(tmp_path / "a", count=4)
    folders.write_logs(made.run_folder(1), NAMES[0], [], "fine")
    output = next(made.run_folder(1).rglob("test_output.txt"))
    targets = [made.trajectory_file(1, NAMES[0]), output, made.run_folder(1) / "preds.jsonl"]
    for target in targets:
        target.unlink(missing_ok=True)
        target.symlink_to(tmp_path / "secret.json")
    for run, name in ((2, NAMES[0]), (2, NAMES[1])):
        made.trajectory_file(run, name).unlink()
    os.mkfifo(made.trajectory_file(2, NAMES[0]))
    made.trajectory_file(2, NAMES[1]).mkdir()
    write_evaluation_page(made, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "SECRET" not in page and page.count("no trajectory is recorded") == 3


@pytest.mark.parametrize(
    "report", ["{", "[]", '{"NAME": 3}', '{"NAME": {"tests_status": {"FAIL_TO_PASS": {"failure": 3}}}}']
)
def test_reports_of_any_shape_are_shown_or_left_out(tmp_path: Path, report: str) -> None:
    made = folders.write_evaluation(tmp_path / "a", count=4)
    folders.write_logs(made.run_folder(1), NAMES[0], [], "printed")
    next(made.run_folder(1).rglob("report.json")).write_text(report.replace("NAME", NAMES[0]))
    record = read_record(made, 1, NAMES[0], None, ())
    assert record.tests is not None and record.tests.failed == () and record.tests.output == "printed"


def test_a_page_full_of_hits_stays_small(tmp_path: Path) -> None:
    cheats = folders.trajectory(NAMES[0], *[folders.turn("x", "execute_bash", cmd="git fetch\n" * 500)] * 30)
    made = folders.write_evaluation(tmp_path / "a", count=4, trajectories={(1, NAMES[0]): cheats})
    write_evaluation_page(made, tmp_path / "a.html", most_bytes=400_000)
    assert (tmp_path / "a.html").stat().st_size < 500_000
    assert survey(made)[1, NAMES[0]].count == 30  # one line of the same text counts once a turn
