"""A tiny project in R2E-Gym's form, made in a folder, and its row."""

import json
import sys
from pathlib import Path
from typing import Any

from folder_sandbox import FolderSandbox, make_environment

from aem_swe.tasks.hardened import grading_programs

BUGGY = "def double(x):\n    return x + x + 1\n\n\ndef triple(x):\n    return 3 * x\n"
FIXED = BUGGY.replace("x + x + 1", "x + x")
TESTS = """import pytest
from tiny.core import double, triple


@pytest.mark.parametrize("x", [1, 2])
def test_double(x):
    assert double(x) == 2 * x


class TestTriple:
    def test_triple(self):
        assert triple(2) == 6

    def test_not_yet(self):
        assert triple("a") == 6
"""
EXPECTED = {
    "test_double[1]": "PASSED",
    "test_double[2]": "PASSED",
    "TestTriple.test_triple": "PASSED",
    "TestTriple.test_not_yet": "FAILED",
}
RUN_TESTS = (
    "PYTHONWARNINGS='ignore::UserWarning,ignore::SyntaxWarning' .venv/bin/python -W ignore -m pytest -rA r2e_tests"
)


def parsed_commit(path: str = "tiny/core.py") -> dict[str, Any]:
    lines = [("context", "def double(x):"), ("deleted", "    return x + x + 1"), ("added", "    return x + x")]
    lines += [("context", ""), ("context", ""), ("context", "def triple(x):"), ("context", "")]
    hunk = {
        "descriptor": {
            "old_range": {"start": 1, "length": 5},
            "new_range": {"start": 1, "length": 5},
            "section": "",
        },
        "line_group": {"all_lines": [{"type": kind, "content": content} for kind, content in lines]},
    }
    header = {"file": {"path": path}, "misc_line": None}
    sides = {"minus_file": {"path": f"a/{path}"}, "plus_file": {"path": f"b/{path}"}}
    return {"file_diffs": [{"header": header, "index_line": None, "hunks": [hunk], **sides}]}


def make_row(**changes: Any) -> dict[str, Any]:
    return {
        "repo_name": "tiny",
        "docker_image": "namanjain12/tiny_final:0123456789abcdef",
        "commit_hash": "0123456789abcdef",
        "parsed_commit_content": json.dumps(parsed_commit()),
        "execution_result_content": json.dumps({"test_file_names": ["test_1.py"], "test_file_codes": [TESTS]}),
        "expected_output_json": json.dumps(EXPECTED),
        "problem_statement": "Some words.\n[ISSUE]\n**double(1) is 3**\n\nIt should be 2.\n[/ISSUE]\n",
        "prompt": "not for agents",
        **changes,
    }


def make_project(folder: Path) -> Path:
    """The tree of a prepared image, at folder/testbed."""
    repo = folder / "testbed"
    (repo / "tiny").mkdir(parents=True)
    (repo / "tiny/__init__.py").write_text("")
    (repo / "tiny/core.py").write_text(BUGGY)
    (repo / "setup.cfg").write_text("[metadata]\nname = tiny\n\n[tool:pytest]\naddopts = -ra\n")
    (repo / "setup.py").write_text("from setuptools import setup\nsetup()\n")
    (repo / "conftest.py").write_text("import pytest\n\n\n@pytest.fixture\ndef unused():\n    return 1\n")
    make_environment(repo)
    return repo


def open_project(folder: Path) -> FolderSandbox:
    return FolderSandbox(
        make_project(folder), grading_programs(), {"PYTEST_ADDOPTS": "--collect-only", "FROM_IMAGE": "1"}
    )


def new_file(path: str, content: str) -> bytes:
    """A patch that adds a text file."""
    lines = content.splitlines()
    body = "".join(f"+{line}\n" for line in lines)
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n{body}".encode()


def changed(path: str, before: str, after: str) -> bytes:
    """A patch that replaces all lines of a text file."""
    old, new = before.splitlines(), after.splitlines()
    body = "".join(f"-{line}\n" for line in old) + "".join(f"+{line}\n" for line in new)
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
    return f"{head}@@ -1,{len(old)} +1,{len(new)} @@\n{body}".encode()


def new_link(path: str, target: str) -> bytes:
    head = f"diff --git a/{path} b/{path}\nnew file mode 120000\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n".encode()


GOLD = changed("tiny/core.py", BUGGY, FIXED)
assert sys.version_info >= (3, 11)
