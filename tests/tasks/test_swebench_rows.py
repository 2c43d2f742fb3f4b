"""SWE-bench's rows as problems, graded in a folder with real pytest and the swebench package's own judgement."""

import dataclasses
import importlib.util
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from folder_sandbox import FolderSandbox
from r2e_rows import BUGGY, FIXED, GOLD, changed, new_file, open_project

from aem_swe.errors import ConfigError, TaskError
from aem_swe.tasks.rows import VERIFIED_REPOSITORIES, BadRow
from aem_swe.tasks.swebench_grading import HardenedSweBench, OfficialSweBench, changed_paths
from aem_swe.tasks.swebench_rows import default_image, load, make_problem, problems
from aem_swe.tasks.trusted_run import FixedCommand
from aem_swe.types import Graded, Task

LITE = Path(__file__).resolve().parents[3] / "shared/data/swe_bench_lite_dev.json"
needs_swebench = pytest.mark.skipif(
    importlib.util.find_spec("swebench") is None, reason="needs swebench: pip install 'aem-swe[swebench]'"
)
OLD_TESTS = "from tiny.core import double\n\n\ndef test_double():\n    assert double(1) == 3\n"
NEW_TESTS = "from tiny.core import double, triple\n\n\ndef test_double():\n    assert double(1) == 2\n\n\n"
NEW_TESTS += "def test_triple():\n    assert triple(1) == 3\n"
TEST_PATCH = changed("tests/test_core.py", OLD_TESTS, NEW_TESTS).decode()
BASE = "0123456789abcdef0123456789abcdef01234567"


def make_row(**changes: Any) -> dict[str, Any]:
    return {
        "instance_id": "sqlfluff__sqlfluff-1",
        "repo": "sqlfluff/sqlfluff",
        "base_commit": BASE,
        "patch": GOLD.decode(),
        "test_patch": TEST_PATCH,
        "problem_statement": "double(1) is 3\n",
        "hints_text": "look at line 2",
        "version": "1.0",
        "FAIL_TO_PASS": '["tests/test_core.py::test_double"]',
        "PASS_TO_PASS": '["tests/test_core.py::test_triple"]',
        **changes,
    }


def script(command: str) -> str:
    lines = ["#!/bin/bash", "set -uxo pipefail", f"git checkout {BASE} tests/test_core.py", "git apply - <<'EOF_1'"]
    lines += [TEST_PATCH.rstrip("\n"), "EOF_1", ": '>>>>> Start Test Output'", command, ": '>>>>> End Test Output'"]
    return "\n".join([*lines, f"git checkout {BASE} tests/test_core.py"])


# --- rows ---


def test_images_have_the_names_that_swe_bench_publishes() -> None:
    assert default_image("pylint-dev__Astroid-1978") == "swebench/sweb.eval.x86_64.pylint-dev_1776_astroid-1978:latest"


def test_files_of_a_patch() -> None:
    patch = b'diff --git a/x.py b/x.py\ndiff --git "a/\\303\\244.py" "b/\\303\\244.py"\n+diff --git a/no b/no\n'
    assert changed_paths(patch) == ["x.py", "\\303\\244.py"]


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "swebench", None)
    monkeypatch.setitem(sys.modules, "swebench.harness", None)
    monkeypatch.setitem(sys.modules, "swebench.harness.log_parsers", None)
    with pytest.raises(ConfigError, match=r"install it with: pip install 'aem-swe\[swebench\]'"):
        list(problems([make_row()]))


@needs_swebench
def test_a_row_from_before_swebench_5_becomes_a_problem() -> None:
    problem = make_problem(make_row())
    assert (problem.task.id, problem.task.text) == ("sqlfluff__sqlfluff-1", "double(1) is 3")
    assert problem.task.image == "swebench/sweb.eval.x86_64.sqlfluff_1776_sqlfluff-1:latest"
    assert problem.gold == GOLD and "test_double" not in repr(problem.task) and "line 2" not in repr(problem.task)
    assert problem.task.setup.startswith("#!/bin/bash")
    grader = problem.grader
    assert isinstance(grader, HardenedSweBench)
    assert grader.run == FixedCommand("/opt/miniconda3/envs/testbed/bin/python", ("-rA", "tests/test_core.py"))
    assert grader.oracle.log_parser == "parse_log_pytest"
    assert pickle.loads(pickle.dumps(problem)) == problem


PRESENT = {"image": "mine:1", "log_parser": "parse_log_pytest_v2", "eval_type": "pass_and_fail"}


@needs_swebench
def test_a_row_of_swebench_5_has_its_own_image_parser_and_command() -> None:
    activate = "source /opt/miniconda3/bin/activate\nconda activate testbed\n"
    row = make_row(**PRESENT, eval_script=activate + script("pytest -rA -vv --tb=no 'tests/test core.py'"))
    problem = make_problem(row)
    assert problem.task.image == "mine:1" and isinstance(problem.grader, HardenedSweBench)
    assert problem.grader.run.arguments == ("-rA", "-vv", "--tb=no", "tests/test core.py")
    assert problem.grader.oracle.log_parser == "parse_log_pytest_v2"
    assert isinstance(make_problem(row, reward="swebench").grader, OfficialSweBench)


@needs_swebench
@pytest.mark.parametrize(
    "command", ["./tests/runtests.py x", "pytest -rA x; true", "tox -- x", "pytest 'x", "A=1 pytest x"]
)
def test_what_is_no_plain_pytest_is_judged_by_the_rows_script(command: str) -> None:
    row = make_row(**PRESENT, eval_script="conda activate testbed\n" + script(command))
    assert isinstance(make_problem(row).grader, OfficialSweBench)


@needs_swebench
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"FAIL_TO_PASS": "[]"}, "column 'FAIL_TO_PASS' names no tests"),
        ({"FAIL_TO_PASS": "[1]"}, "column 'FAIL_TO_PASS' names no tests"),
        ({"PASS_TO_PASS": "{"}, "column 'PASS_TO_PASS' is no JSON"),
        ({"test_patch": ""}, "column 'test_patch' is empty or no text"),
        ({"test_patch": "diff --git a/x.sql b/x.sql\n"}, "column 'test_patch' changes no test file"),
        ({"patch": None}, "column 'patch' is missing"),
        ({"problem_statement": None}, "column 'problem_statement' is missing"),
        ({"repo": "django/django"}, "column 'eval_script' is missing: the row was made for swebench < 5"),
        ({"repo": "a/b"}, "column 'log_parser' is missing, and swebench knows no parser for a/b"),
        ({"log_parser": "parse_log_mine"}, "column 'log_parser' names 'parse_log_mine', which the installed"),
        ({"eval_type": "best"}, "column 'eval_type' is 'best'; swebench knows"),
    ],
)
def test_a_bad_row_is_reported_with_its_id(changes: dict[str, Any], reason: str) -> None:
    bad, good = problems([make_row(**changes), make_row()])
    assert isinstance(bad, BadRow) and bad.id == "sqlfluff__sqlfluff-1" and bad.reason.startswith(reason)
    assert not isinstance(good, BadRow)


@needs_swebench
@pytest.mark.skipif(not LITE.is_file(), reason=f"needs {LITE}")
def test_the_23_rows_of_lites_dev_split_are_problems() -> None:
    loaded = load(LITE, without=VERIFIED_REPOSITORIES)
    rows = json.loads(LITE.read_text())
    assert loaded.bad == () and [problem.task.id for problem in loaded.problems] == [row["instance_id"] for row in rows]
    assert all(isinstance(problem.grader, HardenedSweBench) for problem in loaded.problems)
    assert load(LITE, reward="swebench").problems == ()
    with pytest.raises(ConfigError, match="choose one of"):
        load(LITE, reward="r2e")  # type: ignore[arg-type]


# --- grading ---


@pytest.fixture
def sandbox(tmp_path: Path) -> FolderSandbox:
    made = open_project(tmp_path)
    made.environment.pop("PYTEST_ADDOPTS")
    made.write("tests/test_core.py", OLD_TESTS.encode())
    return made


def grade(sandbox: FolderSandbox, diff: bytes, **changes: Any) -> Graded:
    grader = make_problem(make_row(**changes)).grader
    assert isinstance(grader, HardenedSweBench)
    here = dataclasses.replace(grader.run, python=".venv/bin/python")
    return dataclasses.replace(grader, run=here).grade(Task("t", (), workdir=str(sandbox.workdir)), diff, sandbox)


@needs_swebench
def test_nothing_is_0_and_the_fix_is_1(sandbox: FolderSandbox) -> None:
    graded = grade(sandbox, b"")
    assert (graded.reward, graded.reason) == (0.0, "tests_failed")
    assert graded.output.startswith("1 of 2 tests did not pass, first 'tests/test_core.py::test_double'")


@needs_swebench
def test_the_fix_is_1_whatever_the_patch_does_to_the_tests(sandbox: FolderSandbox) -> None:
    patch = GOLD + changed("tests/test_core.py", OLD_TESTS, "def test_double(): assert False\n")
    graded = grade(sandbox, patch + new_file("tests/conftest.py", "x = 1 / 0\n"))
    assert (graded.reward, graded.reason) == (1.0, "tests_passed"), graded.output


@needs_swebench
def test_forgeries_are_0(sandbox: FolderSandbox) -> None:
    rows = [f"PASSED tests/test_core.py::test_{name}" for name in ("double", "triple")]
    log = "\\n".join(["=== short test summary info ===", *rows])
    code = f"import os\nfor n in range(20):\n    try:\n        os.write(n, b'{log}')\n    except OSError:\n"
    code += "        pass\nos._exit(0)\n"
    assert grade(sandbox, changed("tiny/core.py", BUGGY, code + BUGGY)).reason == "forged"


def official(sandbox: FolderSandbox, diff: bytes, command: str, timeout_s: float = 60.0) -> Graded:
    row = make_row(**{**PRESENT, "log_parser": "parse_log_pytest"}, eval_script=script(command))
    grader = make_problem(row, reward="swebench", timeout_s=timeout_s).grader
    for arguments in (["init", "-q"], ["add", "-A"], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"]):
        sandbox.run(["git", *arguments])
    return grader.grade(Task("t", (), workdir=str(sandbox.workdir)), diff, sandbox)


PYTEST = ".venv/bin/python -m pytest -rA tests/test_core.py"


@needs_swebench
def test_the_official_script_judges_by_the_harness(sandbox: FolderSandbox) -> None:
    graded = official(sandbox, GOLD, PYTEST)
    assert (graded.reward, graded.reason) == (1.0, "tests_passed"), graded.output


@needs_swebench
def test_the_official_script_resets_the_tests_from_the_one_commit(sandbox: FolderSandbox) -> None:
    patch = changed("tests/test_core.py", OLD_TESTS, "def test_double(): pass\n\n\ndef test_triple(): pass\n")
    graded = official(sandbox, patch, PYTEST)
    assert (graded.reward, graded.reason) == (0.0, "tests_failed")
    assert graded.output.startswith("1 of 2 tests did not pass")


@needs_swebench
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("sleep 30", "tests_timeout"),
        (f"{PYTEST}; echo '>>>>> End Test Output'", "forged"),
        ("true", "tests_failed"),
    ],
)
def test_other_ends_of_the_official_script(sandbox: FolderSandbox, command: str, reason: str) -> None:
    graded = official(sandbox, GOLD, command, timeout_s=5.0)
    assert (graded.reward, graded.reason) == (0.0, reason), graded.output


@needs_swebench
def test_a_patch_that_does_not_apply_is_0(sandbox: FolderSandbox) -> None:
    assert grade(sandbox, changed("tiny/core.py", FIXED, "x\n")).reason == "patch_does_not_apply"
    with pytest.raises(TaskError):
        make_problem({})
