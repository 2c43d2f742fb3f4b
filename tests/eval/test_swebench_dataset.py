"""Rows in the form of swebench 5, and which instances are chosen."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import REPOSITORY

from aem_swe.errors import ConfigError, TaskError
from aem_swe.eval.swebench.dataset import Selection, dataset_sha256, load_rows, present_form, select
from aem_swe.eval.swebench.submission import NO_OP_PATCH, gold, no_op, read_submission
from aem_swe.tasks.swebench_grading import harness

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("swebench") is None, reason="needs swebench: pip install 'aem-swe[swebench]'"
)
LITE = REPOSITORY.parent / "shared/data/swe_bench_lite_dev.json"
TESTS = "diff --git a/tests/test_a.py b/tests/test_a.py\n--- a/tests/test_a.py\n+++ b/tests/test_a.py\n"
TESTS += "@@ -1 +1 @@\n-def test_a(): assert f(1) == 3\n+def test_a(): assert f(1) == 2\n"


def make_row(identity: str = "pvlib__pvlib-python-1", **changes: Any) -> dict[str, Any]:
    return {
        "instance_id": identity,
        "repo": "pvlib/pvlib-python",
        "base_commit": "0123456789abcdef0123456789abcdef01234567",
        "patch": "diff --git a/a.py b/a.py\n",
        "test_patch": TESTS,
        "problem_statement": "f(1) is 3",
        "version": "0.8",
        "FAIL_TO_PASS": '["tests/test_a.py::test_a"]',
        "PASS_TO_PASS": "[]",
        **changes,
    }


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- rows ---


def test_a_row_from_before_swebench_5_gets_what_swebench_5_reads() -> None:
    row = present_form(make_row())
    assert row["image"] == "swebench/sweb.eval.x86_64.pvlib_1776_pvlib-python-1:latest"
    assert (row["log_parser"], row["eval_type"]) == ("parse_log_pytest", "pass_and_fail")
    assert (row["FAIL_TO_PASS"], row["PASS_TO_PASS"]) == (["tests/test_a.py::test_a"], [])
    script = row["eval_script"].split("\n")
    base = "0123456789abcdef0123456789abcdef01234567"
    start = script.index(": '>>>>> Start Test Output'")
    assert script[start + 1 : start + 3] == ["pytest -rA tests/test_a.py", ": '>>>>> End Test Output'"]
    restore = f"git checkout {base} tests/test_a.py"
    assert script.count(restore) == 2 and script.index(restore) < start < len(script) - 1 - script[::-1].index(restore)
    assert TESTS.rstrip("\n") in row["eval_script"]


def test_the_harness_can_read_such_a_row() -> None:
    spec = harness("utils").make_test_spec(present_form(make_row()))
    assert "SWEBENCH_TEST_EXIT_CODE" in spec.eval_script or "EXIT_CODE" in spec.eval_script
    assert spec.FAIL_TO_PASS == ["tests/test_a.py::test_a"]


def test_a_row_of_swebench_5_keeps_its_own() -> None:
    own = {"image": "mine:1", "log_parser": "parse_log_pytest_v2", "eval_type": "pass_and_fail", "eval_script": "x\n"}
    row = present_form(make_row(**own, repo="django/django", difficulty="1-4 hours"))
    assert {key: row[key] for key in own} == own and row["difficulty"] == "1-4 hours"


def test_what_cannot_be_used_is_told_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    django = make_row("django__django-1", repo="django/django")
    rows = [make_row(), django, make_row(), make_row("../up"), [1]]
    loaded = load_rows(write(tmp_path / "rows.jsonl", *rows))
    assert [row["instance_id"] for row in loaded.rows] == ["pvlib__pvlib-python-1"]
    reasons = {bad.id: bad.reason for bad in loaded.bad}
    assert "the row was made for swebench < 5" in reasons["django__django-1"]
    assert reasons["pvlib__pvlib-python-1"] == "column 'instance_id' has the same value as an earlier row"
    assert "cannot be part of a file name" in reasons["../up"]
    assert reasons["rows.jsonl:5"] == "the line holds no JSON object"


def test_a_file_without_any_usable_row_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"holds no usable row of SWE-bench's form \(1 cannot be used; the first: x__x"
    ):
        load_rows(write(tmp_path / "rows.jsonl", {"instance_id": "x__x-1"}))
    with pytest.raises(TaskError):
        present_form({})


def test_a_split_is_the_files_that_begin_so(tmp_path: Path) -> None:
    write(tmp_path / "test-0.jsonl", make_row("pvlib__pvlib-python-1"))
    write(tmp_path / "dev-0.jsonl", make_row("pvlib__pvlib-python-2"))
    assert [row["instance_id"] for row in load_rows(tmp_path, "dev").rows] == ["pvlib__pvlib-python-2"]
    assert len(load_rows(tmp_path).rows) == 2
    with pytest.raises(ConfigError, match="--split 'train' fits no file"):
        load_rows(tmp_path, "train")


@pytest.mark.skipif(not LITE.is_file(), reason=f"needs {LITE}")
def test_the_23_rows_of_lites_dev_split_can_be_graded() -> None:
    loaded = load_rows(LITE)
    assert (len(loaded.rows), loaded.bad) == (23, [])
    for row in loaded.rows:
        assert harness("utils").make_test_spec(row).instance_id == row["instance_id"]


def test_the_hash_is_of_the_rows_and_not_of_their_file(tmp_path: Path) -> None:
    one = load_rows(write(tmp_path / "a.jsonl", make_row())).rows
    (tmp_path / "b.json").write_text(json.dumps([dict(reversed(make_row().items()))], indent=2))
    assert dataset_sha256(one) == dataset_sha256(load_rows(tmp_path / "b.json").rows)
    assert dataset_sha256(one) != dataset_sha256(load_rows(write(tmp_path / "c.jsonl", make_row(version="2"))).rows)


# --- which ---

ROWS = [{"instance_id": f"{name}__{name}-{number}"} for name in ("a", "b") for number in range(3)]


def ids(**wanted: Any) -> list[str]:
    return [row["instance_id"].partition("__")[2] for row in select(ROWS, Selection(**wanted))]


def test_filter_is_a_regular_expression_from_the_beginning_and_slice_comes_last() -> None:
    assert ids(filter_="b") == ["b-0", "b-1", "b-2"]
    assert ids(filter_=".*-[12]", slice_="1:3") == ["a-2", "b-1"]
    assert ids(slice_="-2:") == ["b-1", "b-2"] and ids(slice_="::2") == ["a-0", "a-2", "b-1"]


def test_a_shuffle_is_the_same_whatever_the_order_of_the_file() -> None:
    shuffled = ids(shuffle=True)
    assert shuffled != ids() and sorted(shuffled) == ids()
    again = select(list(reversed(ROWS)), Selection(shuffle=True))
    assert [row["instance_id"].partition("__")[2] for row in again] == shuffled


def test_a_subset_is_a_file_of_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("# mine\nb__b-1  # second\n\na__a-0\n")
    (tmp_path / "ids.json").write_text('["b__b-1", "a__a-0"]')
    assert ids(subset=tmp_path / "ids.txt") == ids(subset=tmp_path / "ids.json") == ["a-0", "b-1"]
    (tmp_path / "no.txt").write_text("c__c-1\n")
    with pytest.raises(ConfigError, match="names 1 instances that the data set lacks, the first 'c__c-1'"):
        ids(subset=tmp_path / "no.txt")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"slice_": "a"}, "--slice 'a' is no slice"),
        ({"slice_": "0:5:0"}, "has a step of 0"),
        ({"filter_": "("}, r"--filter '\(' is no regular expression"),
        ({"filter_": "z"}, "no instance of 6 is left"),
        ({"subset": Path("/nowhere")}, "cannot be read"),
    ],
)
def test_what_is_no_selection_gets_one_line(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ids(**wanted)


# --- predictions ---

ONE = {"instance_id": "a__a-0", "model_name_or_path": "org/m", "model_patch": "diff\n"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preds.json", json.dumps({"a__a-0": ONE})),
        ("preds.json", json.dumps([ONE])),
        ("preds.json", json.dumps(ONE)),
        ("all_preds.jsonl", json.dumps(ONE) + "\n\n"),
        ("x.json", json.dumps({"a__a-0": {"model_patch": "diff\n", "model_name_or_path": "org/m"}})),
    ],
)
def test_predictions_are_read_in_every_form_of_the_field(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    for path in (tmp_path / name, *[tmp_path] * (name != "x.json")):
        read = read_submission(path)
        assert (read.model, read.patches) == ("org/m", {"a__a-0": "diff\n"})


def test_no_patch_is_an_empty_one(tmp_path: Path) -> None:
    read = read_submission(write(tmp_path / "p.jsonl", {**ONE, "model_patch": None}))
    assert read.patches == {"a__a-0": ""}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["{"], "line 1 is no JSON"),
        (['{"model_patch": ""}'], "line 1 is no prediction; each is an object with instance_id"),
        (["[]"], "line 1 is no prediction"),
        (['{"instance_id": "a"}'], r"line 1 \(a\): model_patch is missing"),
        (['{"instance_id": "a", "model_patch": 3}'], r"line 1 \(a\): model_patch is a int; it has to be a text"),
        ([json.dumps(ONE)] * 2, "line 2: a__a-0 has a prediction already"),
        ([json.dumps(ONE), json.dumps({**ONE, "instance_id": "b", "model_name_or_path": "n"})], "are of 2 models"),
        ([], "are empty"),
    ],
)
def test_malformed_predictions_get_one_line(tmp_path: Path, lines: list[str], said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=said):
        read_submission(path)


def test_predictions_that_are_not_there_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"preds.json' are not there; name a file"):
        read_submission(tmp_path)


def test_gold_and_no_op_are_submissions() -> None:
    row = make_row()
    assert gold([row]).patches == {row["instance_id"]: row["patch"]} and gold([row]).model == "gold"
    assert no_op([row]).patches == {row["instance_id"]: NO_OP_PATCH}
