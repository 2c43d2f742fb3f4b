"""Offline tasks in R2E-Gym's form: the content folders, the rows, and on an engine that gold and bug are told apart."""

import ast
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException

from aem_swe.errors import ConfigError, SandboxUnavailable, TaskError
from aem_swe.resources import resource
from aem_swe.sandboxes.images import Client, Project
from aem_swe.tasks import r2e_build
from aem_swe.tasks.demo import make_problem
from aem_swe.tasks.r2e_build import HiddenRun, build, make_row
from aem_swe.tasks.r2e_build_commit import Commit
from aem_swe.tasks.r2e_build_sources import load_source, package_names, read_package, source_names

FOLDERS = [resource("sandboxes", "packages") / name for name in package_names()]
COLUMNS = {
    "repo_name": str,
    "docker_image": str,
    "commit_hash": str,
    "parsed_commit_content": str,
    "execution_result_content": str,
    "modified_files": list,
    "modified_entity_summaries": list,
    "relevant_files": list,
    "num_non_test_files": int,
    "num_non_test_func_methods": int,
    "num_non_test_lines": int,
    "prompt": str,
    "problem_statement": str,
    "expected_output_json": str,
}
DIFF = """\
diff --git a/pkg/new.txt b/pkg/new.txt
new file mode 100644
index 000000000000..3f9a2c1d0e4b
--- /dev/null
+++ b/pkg/new.txt
@@ -0,0 +1 @@
+kept
\\ No newline at end of file
diff --git a/pkg/sums.py b/pkg/sums.py
index 1234567..89abcde 100644
--- a/pkg/sums.py
+++ b/pkg/sums.py
@@ -2,4 +2,5 @@ import math
BLANK
 class Sum:
     def total(self):
-        return 0
+        # all of them
+        return 1
""".replace("BLANK", " ")
AFTER = """\
import math

class Sum:
    def total(self):
        # all of them
        return 1

def other():
    return 2
"""


def rebuilt(parsed: dict[str, Any]) -> str:
    """The patch as R2E rebuilds it from a parsed commit, written from its format, not with our parser."""
    lines = []
    for diff in parsed["file_diffs"]:
        path, index = diff["header"]["file"]["path"], diff["index_line"]
        lines.append(f"diff --git a/{path} b/{path}")
        lines += [diff["header"]["misc_line"]] if diff["header"]["misc_line"] else []
        lines.append(f"index {index['old_commit_hash']}..{index['new_commit_hash']} {index['mode']}".rstrip())
        lines += [f"--- {diff['minus_file']['path']}", f"+++ {diff['plus_file']['path']}"]
        for hunk in diff["hunks"]:
            ranges = [hunk["descriptor"]["old_range"], hunk["descriptor"]["new_range"]]
            old, new = (str(r["start"]) + ("" if r["length"] is None else f",{r['length']}") for r in ranges)
            lines.append(f"@@ -{old} +{new} @@ {hunk['descriptor']['section']}".rstrip())
            marks = {"context": " ", "added": "+", "deleted": "-", "note": "\\ "}
            lines += [marks[line["type"]] + line["content"] for line in hunk["line_group"]["all_lines"]]
    return "\n".join(lines) + "\n"


def commit() -> Commit:
    after = {"pkg/new.txt": "kept", "pkg/sums.py": AFTER}
    return Commit("c" * 40, "Count", DIFF, {"pkg/sums.py": "old\n"}, after)


def test_a_patch_survives_its_way_through_a_parsed_commit() -> None:
    assert rebuilt(commit().parsed()) == DIFF


def test_a_parsed_commit_holds_both_states_of_each_file() -> None:
    new, old = commit().parsed()["file_diffs"]
    assert (new["old_file_content"], new["new_file_content"]) == ("", "kept")
    assert (old["old_file_content"], old["new_file_content"]) == ("old\n", AFTER)
    assert new["header"]["misc_line"] == "new file mode 100644" and new["index_line"]["mode"] == ""


def test_counts_and_entities_of_a_commit() -> None:
    made = commit()
    assert made.paths == ["pkg/new.txt", "pkg/sums.py"] and made.edited_lines == 4
    assert [(e["name"], e["type"], e["start_lineno"]) for e in made.edited_entities()] == [
        ("Sum.total", "method", 4),
        ("Sum", "class", 3),
    ]


@pytest.mark.parametrize("line", ["rename from a", "GIT binary patch"])
def test_what_rows_cannot_say_is_refused(line: str) -> None:
    with pytest.raises(TaskError, match=line):
        Commit("c" * 40, "x", f"diff --git a/x b/x\n{line}\n", {}, {}).parsed()


def test_a_status_map_has_dotted_names_without_the_file() -> None:
    lines = [
        "FAILED r2e_tests/test_1.py::test_x",
        "== short test summary info ==",
        "PASSED r2e_tests/test_1.py::A::test_a",
        "FAILED r2e_tests/test_1.py::test_b[1-2] - assert 1 - 2",
        "ERROR r2e_tests/test_1.py::test_c - ValueError",
        "== 1 failed ==",
    ]
    expected = {"A.test_a": "PASSED", "test_b[1-2]": "FAILED", "test_c": "ERROR"}
    assert HiddenRun(1, "\n".join(lines)).statuses() == expected


def printed(**statuses: str) -> HiddenRun:
    lines = [f"{status} r2e_tests/test_1.py::{name}" for name, status in statuses.items()]
    return HiddenRun("FAILED" in statuses.values(), "= short test summary info =\n" + "\n".join(lines) + "\n")


def test_a_row_has_exactly_the_columns_of_r2e_gym() -> None:
    source = load_source("demo-train-0")
    row = make_row(source, "image:tag", printed(test_a="FAILED"), printed(test_a="PASSED"))
    assert {name: type(value) for name, value in row.items()} == COLUMNS
    assert json.loads(row["expected_output_json"]) == {"test_a": "PASSED"}
    parsed, execution = json.loads(row["parsed_commit_content"]), json.loads(row["execution_result_content"])
    assert parsed["new_commit_hash"] == execution["new_commit_hash"] == row["commit_hash"]
    assert execution["test_file_names"] == ["test_1.py"] and "def test_" in execution["test_file_codes"][0]
    assert (execution["old_commit_res_code"], execution["new_commit_res_code"]) == (1, 0)
    assert row["modified_files"] == row["relevant_files"] and row["num_non_test_lines"] == 2
    assert row["problem_statement"] == f"[ISSUE]{make_problem('train', 0).issue}[/ISSUE]"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (printed(a="PASSED"), printed(a="PASSED")),
        (printed(a="FAILED"), printed(a="FAILED")),
        (printed(a="FAILED", b="PASSED"), printed(a="PASSED", b="FAILED")),
        (HiddenRun(2, "no tests ran"), HiddenRun(2, "no tests ran")),
    ],
)
def test_tests_that_do_not_tell_the_fix_from_the_bug_are_refused(before: HiddenRun, after: HiddenRun) -> None:
    with pytest.raises(TaskError, match="demo-train-0: the hidden tests say"):
        make_row(load_source("demo-train-0"), "image:tag", before, after)


def outcome_of(project: Project, files: str, folder: Path) -> int:
    for path, content in (*getattr(project, files), *project.tests):
        (folder / path).write_bytes(content)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "."]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=alone, capture_output=True, check=False).returncode


@pytest.mark.parametrize("seed", [0, 5])
def test_hidden_tests_of_a_demo_task_fail_with_its_bug_only(seed: int, tmp_path: Path) -> None:
    project = load_source(f"demo-train-{seed}").project
    (tmp_path / "buggy").mkdir()
    (tmp_path / "fixed").mkdir()
    assert outcome_of(project, "buggy", tmp_path / "buggy") == 1
    assert outcome_of(project, "fixed", tmp_path / "fixed") == 0


def test_the_visible_tests_of_a_demo_task_are_the_demos_own() -> None:
    [(path, content)] = load_source("demo-train-0").project.programs
    assert path == "/usr/local/bin/run_tests.sh"
    assert content == dict(make_problem("train", 0).task().files)["run_tests.sh"]


def test_an_unknown_name_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="task 'nothing' is unknown; choose one of"):
        load_source("nothing")


def test_names_and_commits_are_distinct() -> None:
    packages = [read_package(folder) for folder in FOLDERS]
    assert len(source_names()) == len(set(source_names())) >= len(packages) + 8
    assert len({package.commit_hash[:12] for package in packages}) == len(packages) >= 8


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_content_folder_is_complete(folder: Path) -> None:
    package = read_package(folder)
    assert package.licence in {"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0"}
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "bug.patch", "issue.md", "r2e_tests", "task.toml"
    ]  # fmt: skip
    patch = (folder / "bug.patch").read_text()
    changed = [line for line in patch.splitlines() if re.match(r"[-+](?!--|\+\+)", line)]
    assert 1 <= len(changed) <= 8 and "test" not in "".join(re.findall(r"^diff .*", patch, re.MULTILINE))
    issue = (folder / "issue.md").read_text()
    assert len(issue) > 200 and "```" in issue and package.package in issue
    assert not [line for line in changed if line[1:].strip() in issue], "an issue does not quote the fix"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_hidden_tests_are_six_to_twenty_with_names_of_their_own(folder: Path) -> None:
    [file] = (folder / "r2e_tests").glob("*.py")
    names = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    tests = [name for name in names if name.startswith("test_")]
    assert file.name == "test_1.py" and 6 <= len(tests) <= 20 and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('version = "', 'edition = "'), r"lacks \['version'\] and has unknown \['edition'\]"),
        (('sha256 = "', 'sha256 = "x'), "sha256 in task.toml must be 64 hexadecimal digits"),
        (('commit_hash = "', 'commit_hash = "0'), "commit_hash in task.toml must be 40"),
    ],
)
def test_a_broken_task_file_is_reported_with_its_task(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    copied = tmp_path / "mine"
    shutil.copytree(FOLDERS[0], copied)
    text = (copied / "task.toml").read_text()
    (copied / "task.toml").write_text(text.replace(*change))
    with pytest.raises(TaskError, match=f"^mine: .*{said}"):
        read_package(copied)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    try:
        opened = docker.from_env(timeout=120)
    except DockerException as error:
        pytest.skip(f"no container engine: {str(error)[:200]}; start one (dockerd) to run these tests")
    with contextlib.closing(opened):
        yield opened


@pytest.mark.docker
def test_building_again_runs_nothing_and_keeps_other_rows(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(client, tmp_path, ["demo-train-0"]).read_text()
    both = build(client, tmp_path, ["demo-train-1"]).read_text()
    assert both.startswith(first) and len(both.splitlines()) == 2
    monkeypatch.setattr(r2e_build, "run_once", None)
    said: list[str] = []
    again = build(client, tmp_path, ["demo-train-1", "demo-train-0"], said.append)
    assert again.read_text() == both and [line.rpartition(" ")[2] for line in said] == ["kept", "kept"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def check(rows: Path, number: int) -> None:
    made = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(made) == number
    for row in made:
        run = json.loads(row["execution_result_content"])
        before = HiddenRun(run["old_commit_res_code"], run["old_commit_res_stdout"]).statuses()
        after = HiddenRun(run["new_commit_res_code"], run["new_commit_res_stdout"]).statuses()
        assert after == json.loads(row["expected_output_json"]) and set(after.values()) == {"PASSED"}
        assert before.keys() == after.keys() and (run["old_commit_res_code"], run["new_commit_res_code"]) == (1, 0)
        assert 1 <= list(before.values()).count("FAILED") <= len(before) / 2
        assert rebuilt(json.loads(row["parsed_commit_content"])) in row["prompt"]


def build_or_skip(client: Client, out: Path, names: list[str]) -> Path:
    try:
        return build(client, out, names)
    except SandboxUnavailable as error:
        if "pip download failed" in str(error):
            pytest.skip(f"{error}")
        raise


@pytest.mark.docker
def test_a_released_package_becomes_a_task(client: Client, tmp_path: Path) -> None:
    check(build_or_skip(client, tmp_path, ["inflection"]), 1)


@pytest.mark.docker
@pytest.mark.slow
def test_all_tasks_can_be_built_and_judged(client: Client, tmp_path: Path) -> None:
    check(build_or_skip(client, tmp_path, source_names()), len(source_names()))
