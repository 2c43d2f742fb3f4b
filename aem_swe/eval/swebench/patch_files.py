"""What a patch does to which file, read from its text alone. The text is a policy's: anything, of any size."""

import re
from dataclasses import dataclass, field
from typing import Literal

LONGEST = 4_000_000
"""Characters of a patch that are read."""
Change = Literal["added", "deleted", "renamed", "modified"]
_HUNK = re.compile(r"@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
_OCTAL = re.compile(r"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


@dataclass(slots=True)
class PatchedFile:
    """One file of a patch."""

    path: str = ""
    """As it is afterwards; of a deleted file as it was."""
    old_path: str = ""
    change: Change = "modified"
    link: bool = False
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    around: list[str] = field(default_factory=list)
    """Lines that stay, and what git writes behind @@ (often the section or function that a hunk is in)."""

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if self.old_path in ("", self.path) else (self.old_path, self.path)


def patched_files(patch: str) -> list[PatchedFile]:
    """The files of a unified diff, with or without git's own lines, in its order."""
    found: list[PatchedFile] = []
    old = new = 0  # lines that the hunk still has, as its head says
    for line in patch[:LONGEST].split("\n"):
        line = line.removesuffix("\r")
        if line.startswith("diff --git "):  # no line of a hunk begins like this
            found.append(_from_header(line))
            old = new = 0
        elif (old > 0 or new > 0) and line[:1] in ("+", "-", " ", ""):
            old -= line[:1] != "+"
            new -= line[:1] != "-"
            _body(found[-1], line)
        elif found and (head := _HUNK.match(line)):
            old, new = (1 if count is None else int(count) for count in head.groups())
            found[-1].around.append(line[head.end() :].strip())
        else:
            _head(found, line)
    return [one for one in found if one.path]


def _body(one: PatchedFile, line: str) -> None:
    kind = {"+": one.added, "-": one.removed, " ": one.around}.get(line[:1])
    if kind is not None:
        kind.append(line[1:])


def _head(found: list[PatchedFile], line: str) -> None:
    """A line between the files."""
    if line.startswith("--- "):
        if not found or found[-1].around:
            found.append(PatchedFile())
        found[-1].old_path = _path(line[4:]) or found[-1].old_path
        if not _path(line[4:]):
            found[-1].change = "added"
    elif not found:
        return
    elif line.startswith("+++ "):
        found[-1].path = _path(line[4:]) or found[-1].path or found[-1].old_path
        if not _path(line[4:]):
            found[-1].change = "deleted"
    elif line.startswith("new file mode"):
        found[-1].change, found[-1].link = "added", line.endswith("120000")
    elif line.startswith("deleted file mode"):
        found[-1].change = "deleted"
    elif line.startswith("new mode"):
        found[-1].link = line.endswith("120000")
    elif line.startswith("rename from "):
        found[-1].change, found[-1].old_path = "renamed", _unquoted(line[12:])
    elif line.startswith("rename to "):
        found[-1].path = _unquoted(line[10:])


def _from_header(line: str) -> PatchedFile:
    """`diff --git a/x b/x`: the second half, which is the whole truth where the file has no hunk."""
    names = line[len("diff --git ") :]
    if names.endswith('"'):
        start = names.rfind(' "', 0, -1)
        new = names[start + 1 :] if start >= 0 else names
    else:
        middle = len(names) // 2
        same = names[:middle].removeprefix("a/") == names[middle + 1 :].removeprefix("b/")
        new = names[middle + 1 :] if same else names[names.rfind(" b/") + 1 :]
    path = _unquoted(new).removeprefix("b/")
    return PatchedFile(path, path)


def _path(text: str) -> str:
    """A path behind --- or +++; empty for /dev/null."""
    name = _unquoted(text.split("\t", 1)[0].strip())
    return "" if name == "/dev/null" else re.sub(r"\A[abciow]/", "", name)


def _unquoted(name: str) -> str:
    """A name as git quotes it, "\\303\\251" for bytes beyond ASCII."""
    name = name.strip()
    if len(name) < 2 or name[0] != '"' or name[-1] != '"':
        return name

    def plain(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code, 8) & 0xFF) if code[0].isdigit() and len(code) == 3 else _ESCAPES.get(code, code)

    return _OCTAL.sub(plain, name[1:-1]).encode("latin-1", "replace").decode("utf-8", "replace")
