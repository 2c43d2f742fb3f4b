"""A fix in the form in which R2E-Gym's rows keep it: the JSON of their `ParsedCommit`, made from a real git diff.

Written: everything that a patch can be rebuilt from. The entities (functions, classes) of a hunk stay empty there; what
rows say about them stands in `modified_entity_summaries`, from `edited_entities`.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aem_swe.errors import TaskError

Json = dict[str, Any]  # a row's JSON: nested, and only ever written
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@(.*)")
_KINDS = {" ": "context", "+": "added", "-": "deleted", "\\": "note"}
_MODES = ("old mode", "new mode", "deleted file mode", "new file mode")
_DATE = "2024-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Commit:
    """One fix: the diff from the state before it to the state after it, and both states of the files."""

    hash: str
    subject: str
    diff: str
    before: Mapping[str, str]
    after: Mapping[str, str]

    def parsed(self) -> Json:
        """Return `parsed_commit_content` as a dictionary."""
        return {
            "file_diffs": _file_diffs(self),
            "old_commit_hash": f"{self.hash}^",
            "new_commit_hash": self.hash,
            "commit_message": self.subject,
            "commit_date": _DATE,
            "metadata": {},
        }

    @property
    def paths(self) -> list[str]:
        """The files that it changes."""
        return [diff["header"]["file"]["path"] for diff in _file_diffs(self)]

    @property
    def edited_lines(self) -> int:
        lines = [line for diff in _file_diffs(self) for line in _lines_of(diff)]
        return sum(line["type"] in ("added", "deleted") for line in lines)

    def edited_entities(self) -> list[Json]:
        """Return R2E's summaries of the functions, classes and methods whose lines the fix adds or surrounds."""
        found: list[Json] = []
        for diff in _file_diffs(self):
            path = diff["header"]["file"]["path"]
            numbers = {number for hunk in diff["hunks"] for number in _added_at(hunk)}
            for entity in _entities(path, self.after.get(path, "")):
                if numbers & set(range(entity["start_lineno"], entity["end_lineno"] + 1)):
                    found.append(entity)
        return found


def _file_diffs(commit: Commit) -> list[Json]:
    diffs: list[Json] = []
    for line in commit.diff.split("\n")[:-1]:
        if line.startswith("diff --git "):
            diffs.append(_new_file_diff(line, commit))
        elif not diffs:
            raise TaskError(f"{commit.hash[:12]}: a git diff cannot begin with {line!r}")
        elif match := _HUNK.fullmatch(line):
            diffs[-1]["hunks"].append(_new_hunk(match))
        elif diffs[-1]["hunks"]:
            content = line[2:] if line.startswith("\\") else line[1:]
            diffs[-1]["hunks"][-1]["line_group"]["all_lines"].append({"content": content, "type": _KINDS[line[0]]})
        else:
            _read_header(diffs[-1], line, commit)
    return diffs


def _new_file_diff(line: str, commit: Commit) -> Json:
    old, _, new = line.removeprefix("diff --git a/").partition(" b/")
    if old != new:
        raise TaskError(f"{commit.hash[:12]}: R2E's rows know no renamed file: {line!r}")
    return {
        "old_file_content": commit.before.get(old, ""),
        "new_file_content": commit.after.get(old, ""),
        "header": {"file": {"path": old}, "misc_line": None},
        "index_line": None,
        "is_binary_file": False,
        "binary_line": None,
        "minus_file": None,
        "plus_file": None,
        "hunks": [],
    }


def _read_header(diff: Json, line: str, commit: Commit) -> None:
    """Take in one line between `diff --git` and the first hunk."""
    if line.startswith("index "):
        hashes, _, mode = line.removeprefix("index ").partition(" ")
        old, _, new = hashes.partition("..")
        diff["index_line"] = {"old_commit_hash": old, "new_commit_hash": new, "mode": mode}
    elif line.startswith(_MODES):
        said = diff["header"]["misc_line"]
        diff["header"]["misc_line"] = f"{said}\n{line}" if said else line
    elif line.startswith("--- "):
        diff["minus_file"] = {"path": line[4:]}
    elif line.startswith("+++ "):
        diff["plus_file"] = {"path": line[4:]}
    elif line.startswith("Binary files "):
        diff["is_binary_file"], diff["binary_line"] = True, line
    else:
        raise TaskError(f"{commit.hash[:12]}: R2E's rows have no place for {line!r}")


def _new_hunk(match: re.Match[str]) -> Json:
    old, old_length, new, new_length, section = match.groups()

    def span(start: str, length: str | None) -> Json:
        return {"start": int(start), "length": None if length is None else int(length)}

    return {
        "descriptor": {
            "old_range": span(old, old_length), "new_range": span(new, new_length), "section": section.lstrip()
        },
        "line_group": {"all_lines": []},
        "modified_entities": [],
        "added_entities": [],
        "deleted_entities": [],
    }  # fmt: skip


def _lines_of(diff: Json) -> list[Json]:
    return [line for hunk in diff["hunks"] for line in hunk["line_group"]["all_lines"]]


def _added_at(hunk: Json) -> set[int]:
    """Line numbers after the fix of what it adds, and of the places where it only removes."""
    number, numbers = hunk["descriptor"]["new_range"]["start"], set()
    for line in hunk["line_group"]["all_lines"]:
        if line["type"] in ("added", "deleted"):
            numbers.add(number)
        number += line["type"] in ("added", "context")
    return numbers


def _entities(path: str, source: str) -> list[Json]:
    """Top-level functions and classes, and the methods of those classes."""
    if not path.endswith(".py"):
        return []
    found: list[Json] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(_summary(path, "function", node.name, node))
        elif isinstance(node, ast.ClassDef):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            found += [_summary(path, "method", f"{node.name}.{part.name}", part) for part in methods]
            found.append(_summary(path, "class", node.name, node))
    return found


def _summary(path: str, kind: str, name: str, node: ast.stmt) -> Json:
    return {
        "file_name": path,
        "type": kind,
        "name": name,
        "ast_type_str": type(node).__name__,
        "start_lineno": node.lineno,
        "end_lineno": node.end_lineno,
    }
