"""The reference patch of an R2E-Gym row, rebuilt from the parsed form of its commit.

The row keeps each hunk as a list of lines (context, added, deleted, note). Its parser appended one empty context line
to the last hunk of a commit; the counts in the hunk's header tell which lines belong to it. Only Python files that are
no tests make the patch, as in R2E-Gym. Not covered: carriage returns that the row itself has lost.
"""

from collections.abc import Mapping
from typing import Any  # a parsed commit is JSON

from aem_swe.errors import TaskError

_SIGNS = {"context": " ", "added": "+", "deleted": "-"}
_TEST_FOLDERS = {"test", "Test", "tests", "Tests"}


def gold_patch(commit: Mapping[str, Any]) -> bytes:
    """The patch of the commit's Python files that are no tests. Raises TaskError where the commit is malformed."""
    try:
        files = [file for file in commit["file_diffs"] if _belongs(_path(file))]
        lines = "".join(line for file in files for line in _file(file))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TaskError(f"the fix cannot be rebuilt, its parsed commit lacks or garbles {error}") from error
    if not lines:
        raise TaskError("the fix cannot be rebuilt: its commit changes no Python file but tests")
    try:
        return lines.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise TaskError(f"the fix cannot be rebuilt: {error}") from error


def is_test(path: str) -> bool:
    """Whether R2E-Gym takes a file for a test by its name."""
    *folders, name = path.split("/")
    named = name.startswith("test_") or path.endswith("_test.py")
    return named or path.startswith("test_") or not _TEST_FOLDERS.isdisjoint([*folders, name])


def _belongs(path: str) -> bool:
    return path.endswith(".py") and not is_test(path)


def _path(file: Mapping[str, Any]) -> str:
    return str(file["header"]["file"]["path"])


def _file(file: Mapping[str, Any]) -> list[str]:
    path = _path(file)
    lines = [f"diff --git a/{path} b/{path}\n"]
    if mode := file["header"].get("misc_line"):
        lines.append(f"{mode}\n")
    if index := file.get("index_line"):
        ending = f" {index['mode']}" if index.get("mode") else ""
        lines.append(f"index {index['old_commit_hash']}..{index['new_commit_hash']}{ending}\n")
    if file.get("is_binary_file"):
        raise TaskError(f"the fix cannot be rebuilt: {path} is a binary file, whose contents the row does not have")
    if file.get("minus_file") and file.get("plus_file"):
        lines += [f"--- {file['minus_file']['path']}\n", f"+++ {file['plus_file']['path']}\n"]
    for hunk in file["hunks"]:
        lines += _hunk(path, hunk)
    return lines


def _hunk(path: str, hunk: Mapping[str, Any]) -> list[str]:
    """The header, and as many lines as it counts; a note belongs to the line before it."""
    old, new = hunk["descriptor"]["old_range"], hunk["descriptor"]["new_range"]
    section = hunk["descriptor"].get("section")
    lines = [f"@@ -{_range(old)} +{_range(new)} @@{' ' + section if section else ''}\n"]
    left = {"deleted": _length(old), "added": _length(new)}
    for line in hunk["line_group"]["all_lines"]:
        kind, content = line["type"], line["content"]
        if kind == "note":
            lines.append(f"\\ {content}\n")
            continue
        if not any(left.values()):
            break
        for side in ("deleted", "added") if kind == "context" else (kind,):
            left[side] -= 1
        lines.append(f"{_SIGNS[kind]}{content}\n")
    if any(left.values()):
        raise TaskError(f"the fix cannot be rebuilt: a hunk of {path} has not the lines that its header counts")
    return lines


def _range(side: Mapping[str, Any]) -> str:
    return f"{side['start']}" if side.get("length") is None else f"{side['start']},{side['length']}"


def _length(side: Mapping[str, Any]) -> int:
    return 1 if side.get("length") is None else int(side["length"])
