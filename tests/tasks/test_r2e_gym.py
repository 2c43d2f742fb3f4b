"""Rows of R2E-Gym as problems, and the original reward `r2e`."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from r2e_rows import BUGGY, EXPECTED, GOLD, RUN_TESTS, TESTS, changed, make_row, new_file, open_project, parsed_commit

from aem_swe.errors import ConfigError, TaskError
from aem_swe.tasks.hardened import HardenedGrader
from aem_swe.tasks.r2e_gym import OriginalGrader, load, make_problem, problems
from aem_swe.tasks.rows import VERIFIED_REPOSITORIES, BadRow
from aem_swe.types import Graded, Task


def test_a_row_becomes_a_problem() -> None:
    problem = make_problem(make_row())
    task = problem.task
    assert (task.id, task.image) == ("tiny__0123456789ab", "namanjain12/tiny_final:0123456789abcdef")
    assert task.text == "**double(1) is 3**\n\nIt should be 2."
    assert (task.workdir, task.files) == ("/testbed", ())
    assert dict(task.env)["PATH"].startswith("/root/.venv/bin:/root/.local/bin:")
    assert problem.gold.decode().splitlines() == [
        "diff --git a/tiny/core.py b/tiny/core.py",
        "--- a/tiny/core.py",
        "+++ b/tiny/core.py",
        "@@ -1,5 +1,5 @@",
        " def double(x):",
        "-    return x + x + 1",
        "+    return x + x",
        " ",
        " ",
        " def triple(x):",
    ]
    grader = problem.grader
    assert isinstance(grader, HardenedGrader) and dict(grader.expected) == EXPECTED
    assert dict(grader.tests.files) == {"r2e_tests/__init__.py": b"", "r2e_tests/test_1.py": TESTS.encode()}
    assert grader.run.arguments == ("-rA", "r2e_tests") and grader.timeout_s == 300.0


def test_nothing_of_the_tests_is_in_the_task() -> None:
    problem = make_problem(make_row())
    shown = repr(problem.task)
    assert "test_double" not in shown and "not for agents" not in shown and "x + x" not in shown
    assert problem.task.setup.startswith("AEM_R2E=1\nAEM_SEAL=")
    assert problem.task.setup != make_problem(make_row(execution_result_content=other_tests())).task.setup


def other_tests() -> str:
    return json.dumps({"test_file_names": ["test_1.py"], "test_file_codes": ["def test_other(): pass\n"]})


def test_problems_travel_between_processes() -> None:
    for reward in ("hardened", "r2e"):
        problem = make_problem(make_row(), reward=reward)  # type: ignore[arg-type]
        assert pickle.loads(pickle.dumps(problem)) == problem


def test_a_statement_without_tags_is_taken_whole() -> None:
    assert make_problem(make_row(problem_statement=" It fails.\n")).task.text == "It fails."


BAD: list[tuple[dict[str, Any], str]] = [
    ({"docker_image": None}, "column 'docker_image' is missing"),
    ({"docker_image": ""}, "column 'docker_image' is empty or no text"),
    ({"problem_statement": None}, "column 'problem_statement' is missing"),
    ({"problem_statement": "[ISSUE]\n[/ISSUE]"}, "column 'problem_statement' holds no text between its tags"),
    ({"repo_name": 3}, "column 'repo_name' is empty or no text"),
    ({"execution_result_content": "{"}, "column 'execution_result_content' is no JSON"),
    ({"execution_result_content": "{}"}, "column 'execution_result_content' holds no hidden tests"),
    (
        {"execution_result_content": '{"test_file_names": ["../x.py"], "test_file_codes": ["x"]}'},
        "column 'execution_result_content' names a test file '../x.py'",
    ),
    ({"expected_output_json": "{}"}, "column 'expected_output_json' expects no test at all"),
    ({"expected_output_json": "[1]"}, "column 'expected_output_json' should hold a JSON dict and is a list"),
    ({"expected_output_json": '{"a": "MAYBE"}'}, "column 'expected_output_json' holds 'MAYBE'"),
    ({"parsed_commit_content": '{"file_diffs": []}'}, "the fix cannot be rebuilt: its commit changes no Python file"),
    ({"parsed_commit_content": "null"}, "column 'parsed_commit_content' should hold a JSON dict"),
]


@pytest.mark.parametrize(("changes", "reason"), BAD)
def test_a_bad_row_is_reported_with_its_id(changes: dict[str, Any], reason: str) -> None:
    (bad,) = problems([make_row(**changes)])
    assert isinstance(bad, BadRow) and bad.reason.startswith(reason) and "\n" not in bad.reason
    assert bad.id == f"{changes.get('repo_name', 'tiny')}__0123456789ab"


def test_bad_rows_do_not_stop_the_others(tmp_path: Path) -> None:
    rows = [make_row(commit_hash=f"{number:012d}beef") for number in range(4)]
    lines = [rows[0], {**rows[1], **BAD[0][0]}, rows[2], rows[2], {}, make_row(repo_name="sympy")]
    text = "\n".join(map(json.dumps, lines)) + "\n{\n"
    (tmp_path / "rows.jsonl").write_text(text)
    loaded = load(tmp_path / "rows.jsonl", without=VERIFIED_REPOSITORIES)
    assert [problem.task.id for problem in loaded.problems] == ["tiny__000000000000", "tiny__000000000002"]
    assert [bad.id for bad in loaded.bad] == ["tiny__000000000001", "tiny__000000000002", "row 4", "rows.jsonl:7"]
    assert [bad.reason for bad in loaded.bad][:2] == [BAD[0][1], "another row before it has the same id"]


def test_an_unknown_reward_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match=r"reward 'best' is unknown for R2E-Gym's tasks; choose one of"):
        list(problems([make_row()], reward="best"))  # type: ignore[arg-type]


# --- the original reward ---


def grade(tmp_path: Path, diff: bytes, *, command: str | None = RUN_TESTS, timeout_s: float = 60.0) -> Graded:
    sandbox = open_project(tmp_path)
    sandbox.environment.pop("PYTEST_ADDOPTS")
    problem = make_problem(make_row(), reward="r2e", timeout_s=timeout_s)
    grader = problem.grader
    assert isinstance(grader, OriginalGrader)
    files = (*grader.tests.files, *((("run_tests.sh", command.encode()),) if command else ()))
    tests = type(grader.tests)(files, grader.tests.key, sealed_at="nowhere")
    task = Task("tiny", (), workdir=str(sandbox.workdir))
    home = tmp_path / "home"
    return OriginalGrader(tests, grader.expected, grader.timeout_s, home=str(home)).grade(task, diff, sandbox)


def test_the_original_gives_0_to_nothing_and_1_to_the_fix(tmp_path: Path) -> None:
    assert grade(tmp_path / "a", b"").reason == "tests_failed"
    graded = grade(tmp_path / "b", GOLD)
    assert (graded.reward, graded.reason) == (1.0, "tests_passed"), graded.output


def test_the_original_believes_what_a_patch_prints(tmp_path: Path) -> None:
    """That is what `hardened` is for."""
    rows = [f"{status} r2e_tests/test_1.py::{name.replace('.', '::')}" for name, status in EXPECTED.items()]
    log = "\\n".join(["", "=== short test summary info ===", *rows, ""])
    code = (
        f"import os\nfor number in range(1, 20):\n    try:\n        os.write(number, b'{log}')\n    except OSError:\n"
    )
    forged = changed("tiny/core.py", BUGGY, f"{code}        pass\nos._exit(0)\n{BUGGY}")
    assert grade(tmp_path, forged).reward == 1.0


def test_the_original_obeys_a_conftest_that_the_patch_brings(tmp_path: Path) -> None:
    hook = "import pytest\n\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
    hook += "    report = (yield).get_result()\n    if 'not_yet' not in item.name:\n        report.outcome = 'passed'\n"
    assert grade(tmp_path, new_file("tiny/conftest.py", hook)).reward == 0.0  # not above the tests: nobody reads it
    before = (tmp_path / "testbed/conftest.py").read_text()
    assert grade(tmp_path / "again", changed("conftest.py", before, hook)).reward == 1.0


def test_the_original_refuses_a_patch_that_does_not_apply(tmp_path: Path) -> None:
    assert grade(tmp_path, changed("tiny/core.py", "other\n", "x\n")).reason == "patch_does_not_apply"


def test_the_original_needs_the_images_command_and_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"tiny: its image has no run_tests.sh, which the reward 'r2e' runs"):
        grade(tmp_path / "a", b"", command=None)
    assert grade(tmp_path / "b", GOLD, command="sleep 60", timeout_s=0.5).reason == "tests_timeout"


def test_a_parsed_commit_of_another_file_is_another_fix() -> None:
    row = make_row(parsed_commit_content=parsed_commit("tiny/other.py"))
    assert b"tiny/other.py" in make_problem(row).gold
