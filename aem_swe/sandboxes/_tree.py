"""Names and contents of files that cross the border of a sandbox, in either direction, checked on the host."""

from collections.abc import Iterable
from dataclasses import dataclass

from aem_swe.errors import SandboxGone, TaskError
from aem_swe.sandboxes._channel import Reply
from aem_swe.types import Task

_KINDS = ("file", "exec", "link", "gone")
_RESERVED = frozenset({"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "dev", "proc", "tmp", "opt"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: `kind` in file, exec, link (content is its target), gone; folder only towards a sandbox."""

    path: str
    kind: str
    content: bytes


def is_plain(path: str) -> bool:
    """Whether a path names something below its folder without tricks."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def check_task(task: Task) -> None:
    """Raise TaskError unless the task's files and workdir can be made in a sandbox."""
    first, _, _ = task.workdir.removeprefix("/").partition("/")
    if not task.workdir.startswith("/") or not is_plain(task.workdir[1:]) or first in _RESERVED:
        raise TaskError(f"{task.id}: workdir {task.workdir!r} cannot be made; choose one like '/testbed'")
    seen: set[str] = set()
    for path, content in task.files:
        if not is_plain(path):
            raise TaskError(f"{task.id}: file {path!r} must be relative to the workdir, without '..'")
        if path in seen:
            raise TaskError(f"{task.id}: file {path!r} is listed twice")
        if not isinstance(content, bytes):
            raise TaskError(f"{task.id}: the content of {path!r} must be bytes, not {type(content).__name__}")
        seen.add(path)


def pack(entries: Iterable[Entry]) -> tuple[list[tuple[str, str, int]], bytes]:
    listed = list(entries)
    return [(entry.path, entry.kind, len(entry.content)) for entry in listed], b"".join(e.content for e in listed)


def unpack_changes(reply: Reply) -> list[Entry]:
    """Check a sandbox's list of changed files as the hostile input that it is; SandboxGone where it is malformed."""
    entries: list[Entry] = []
    start = 0
    seen: set[str] = set()
    for item in reply.field("entries", list):
        match item:
            case [str(path), str(kind), int(size)] if is_plain(path) and kind in _KINDS and size >= 0:
                if path in seen or start + size > len(reply.body):
                    break
                seen.add(path)
                entries.append(Entry(path, kind, reply.body[start : start + size]))
                start += size
            case _:
                break
    if start != len(reply.body) or len(entries) != len(reply.field("entries", list)):
        raise SandboxGone("the sandbox sent a malformed list of changes")
    return entries
