"""The rebuilt fix: real git makes a diff, it is parsed as R2E-Gym parses it, rebuilt here, and real git applies it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aem_swe.errors import TaskError
from aem_swe.tasks.parsed_commit import gold_patch, is_test

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)", re.DOTALL)
KINDS = {" ": "context", "": "context", "+": "added", "-": "deleted", "\\": "note"}


def git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    command = ["git", "-c", "core.autocrlf=false", *arguments]
    return subprocess.run(command, cwd=folder, env=GIT, input=given, capture_output=True, check=True).stdout


def parsed(diff: bytes) -> dict[str, Any]:
    """The parsed form that R2E-Gym's rows have, its extra empty line at the end of the last hunk included."""
    files: list[dict[str, Any]] = []
    hunk: dict[str, Any] | None = None
    for line in diff.decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("diff --git "):
            path = line.split(" b/")[-1]
            files.append({"header": {"file": {"path": path}, "misc_line": None}, "hunks": [], "index_line": None})
            files[-1] |= {"minus_file": None, "plus_file": None, "is_binary_file": False}
            hunk = None
        elif match := HUNK.match(line):
            numbers = [None if word is None else int(word) for word in match.groups()[:4]]
            hunk = {"line_group": {"all_lines": []}}
            hunk["descriptor"] = {
                "old_range": {"start": numbers[0], "length": numbers[1]},
                "new_range": {"start": numbers[2], "length": numbers[3]},
                "section": match[5].lstrip(),
            }
            files[-1]["hunks"].append(hunk)
        elif hunk is not None:
            content = line[2:] if line.startswith("\\") else line[1:]
            hunk["line_group"]["all_lines"].append({"type": KINDS[line[:1]], "content": content})
        elif line.startswith("index "):
            old, _, new = line.split()[1].partition("..")
            mode = [*line.split(), ""][2]
            files[-1]["index_line"] = {"old_commit_hash": old, "new_commit_hash": new, "mode": mode}
        elif line.startswith(("--- ", "+++ ")):
            files[-1]["minus_file" if line[0] == "-" else "plus_file"] = {"path": line[4:]}
        elif line:
            header = files[-1]["header"]
            header["misc_line"] = f"{header['misc_line']}\n{line}" if header["misc_line"] else line
    return {"file_diffs": files, "old_commit_hash": "a^", "new_commit_hash": "a", "commit_message": ""}


LINES = st.sampled_from(
    ["", "x = 1", "    return x", "-- a", "++ b", "@@ -1 +1 @@", "\\ No newline", "é\r", "\r", "\x0c"]
)
CONTENTS = st.none() | st.builds(
    lambda lines, end: ("\n".join(lines) + ("\n" if end and lines else "")).encode(),
    st.lists(LINES, max_size=12),
    st.booleans(),
)
PATHS = ("a.py", "pkg/b.py", "pkg/sub/c.py")


def write(folder: Path, files: dict[str, bytes | None]) -> None:
    for path, content in files.items():
        if content is None:
            (folder / path).unlink(missing_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_rebuilt_fix_gives_the_files_that_the_commit_gave(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    before = {path: data.draw(CONTENTS, f"before {path}") for path in PATHS}
    after = {path: data.draw(CONTENTS, f"after {path}") for path in PATHS}
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "-q")
    write(folder, before)
    git(folder, "add", "-A")
    tree = git(folder, "write-tree").decode().strip()
    write(folder, after)
    git(folder, "add", "-A")
    diff = git(folder, "diff", "--cached", "-p", "--no-renames", tree)
    write(folder, before)
    if not diff:
        with pytest.raises(TaskError):
            gold_patch(parsed(diff))
        return
    git(folder, "apply", "--whitespace=nowarn", "-", given=gold_patch(parsed(diff)))
    assert {path: (folder / path).read_bytes() if (folder / path).exists() else None for path in PATHS} == after


def commit_of(*changes: tuple[str, bytes | None, bytes | None], folder: Path, mode: int = 0o644) -> dict[str, Any]:
    git(folder, "init", "-q")
    write(folder, {path: old for path, old, _ in changes if old is not None})
    git(folder, "add", "-A")
    tree = git(folder, "write-tree").decode().strip()
    write(folder, {path: new for path, _, new in changes})
    for path, _, new in changes:
        if new is not None:
            (folder / path).chmod(mode)
    git(folder, "add", "-A")
    return parsed(git(folder, "diff", "--cached", "-p", "--no-renames", tree))


def test_only_python_files_that_are_no_tests_make_the_fix(tmp_path: Path) -> None:
    changed = [
        (path, b"a\n", b"b\n") for path in ("pkg/a.py", "pkg/test_a.py", "tests/helper.py", "a_test.py", "README.md")
    ]
    patch = gold_patch(commit_of(*changed, folder=tmp_path))
    assert re.findall(rb"^diff --git a/(\S+)", patch, re.MULTILINE) == [b"pkg/a.py"]


def test_a_change_of_mode_alone_is_kept(tmp_path: Path) -> None:
    patch = gold_patch(commit_of(("a.py", b"a\n", b"a\n"), folder=tmp_path, mode=0o755))
    assert patch == b"diff --git a/a.py b/a.py\nold mode 100644\nnew mode 100755\n"


def test_the_rebuilt_text_is_gits_own(tmp_path: Path) -> None:
    commit = commit_of(("a.py", b"def f():\n    return 1", b"def f():\n    return 2"), folder=tmp_path)
    assert gold_patch(commit) == (
        b"diff --git a/a.py b/a.py\nindex "
        + "..".join(commit["file_diffs"][0]["index_line"][side + "_commit_hash"] for side in ("old", "new")).encode()
        + b" 100644\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n\\ No newline at end of file\n"
        b"+    return 2\n\\ No newline at end of file\n"
    )


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("pkg/a.py", False),
        ("test_a.py", True),
        ("pkg/test_a.py", True),
        ("pkg/a_test.py", True),
        ("pkg/tests/a.py", True),
        ("Tests/a.py", True),
        ("pkg/test/a.py", True),
        ("testing/a.py", False),
        ("pkg/latest.py", False),
        ("test_support/a.py", True),  # the whole path begins with test_
        ("pkg/test_support/a.py", False),
    ],
)
def test_what_r2e_gym_takes_for_a_test(path: str, answer: bool) -> None:
    assert is_test(path) is answer


@pytest.mark.parametrize(
    "spoil",
    [
        lambda commit: commit.clear(),
        lambda commit: commit.update(file_diffs=None),
        lambda commit: commit.update(file_diffs=[]),
        lambda commit: commit["file_diffs"][0].update(header={}),
        lambda commit: commit["file_diffs"][0].update(is_binary_file=True),
        lambda commit: commit["file_diffs"][0]["hunks"][0]["line_group"].update(all_lines=[]),
        lambda commit: commit["file_diffs"][0]["hunks"][0].pop("descriptor"),
        lambda commit: commit["file_diffs"][0]["hunks"][0]["line_group"]["all_lines"][0].update(type="?"),
        lambda commit: commit["file_diffs"][0]["hunks"][0]["line_group"]["all_lines"][0].update(content="\ud800"),
    ],
)
def test_a_malformed_commit_says_that_the_fix_cannot_be_rebuilt(tmp_path: Path, spoil: Any) -> None:
    commit = commit_of(("a.py", b"a\n", b"b\n"), folder=tmp_path)
    spoil(commit)
    with pytest.raises(TaskError, match="the fix cannot be rebuilt"):
        gold_patch(commit)
