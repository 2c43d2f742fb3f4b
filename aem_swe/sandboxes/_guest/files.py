"""What PID 1 does with files for the host: write many at once, read one, and find what changed in a tree.

It runs as the sandbox's own user with the sandbox's own view, so a symbolic link leads nowhere that a command could not
go by itself. Nothing here blocks on what a command may have left (a FIFO, a folder without permissions).
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Entry = tuple[str, str, bytes]
"""(path relative to the tree, "file" | "exec" | "link" | "gone" | "folder", content or target of the link)."""

_MAX_ENTRIES = 20_000
_MAX_LISTING = 4 << 20
_MAX_PATH = 3_500  # bytes; a patch can hardly name more, and PATH_MAX is 4096


def write(root: str, entries: Iterable[Entry]) -> None:
    made: set[str] = set()
    for name, kind, content in entries:
        path = os.path.join(root, name)
        parent = os.path.dirname(path)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        if kind == "folder":
            os.makedirs(path, exist_ok=True)
            continue
        if kind == "link":
            os.symlink(os.fsencode(content), path)
            continue
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(path, flags, 0o755 if kind == "exec" else 0o644)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)


def read(path: str, max_bytes: int) -> bytes:
    """FileNotFoundError for whatever is no readable regular file of the sandbox's file system."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate in the path
        raise FileNotFoundError(errno.ENOENT, f"cannot be read ({error})") from error
    try:
        found = os.fstat(file)
        # /proc/self here is PID 1
        if not stat.S_ISREG(found.st_mode) or found.st_dev == os.stat("/proc").st_dev:
            raise FileNotFoundError(errno.ENOENT, "is not a regular file")
        return _read(file, max_bytes)
    finally:
        os.close(file)


def _read(file: int, max_bytes: int) -> bytes:
    content = bytearray()
    while len(content) < max_bytes and (chunk := os.read(file, max_bytes - len(content))):
        content += chunk
    return bytes(content)


@dataclass(frozen=True)
class Known:
    """What the host knows of a file that it wrote."""

    size: int
    digest: str


def changes(root: str, baseline: Mapping[str, Known], max_bytes: int) -> list[Entry]:
    """Every file of the tree that is not as the baseline has it, and every one that is missing.

    Left out: anything named .git (in any case), what is no file, folder or link, and paths that are too long to name.
    OSError EFBIG above `max_bytes` of content, 20,000 entries or 4 MiB of names (as JSON may write them). For use when
    no command runs.
    """
    found: list[Entry] = []
    seen: set[str] = set()
    total = listing = 0
    for name, status in _walk(root):
        seen.add(name)
        path = os.path.join(root, name)
        known = baseline.get(name)
        kind, content = "link", b""
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(os.readlink(path))
        else:
            kind = "exec" if status.st_mode & 0o100 else "file"
            if (known is None or known.size != status.st_size) and total + status.st_size > max_bytes:
                raise OSError(errno.EFBIG, f"the changed files hold more than {max_bytes} bytes")
            if not status.st_mode & 0o400:
                os.chmod(path, 0o600)
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                content = _read(file, status.st_size)
            finally:
                os.close(file)
            if known is not None and kind == "file" and known == Known(len(content), digest(content)):
                continue
        total += len(content)
        listing += 6 * len(name)
        found.append((name, kind, content))
        if total > max_bytes or len(found) > _MAX_ENTRIES or listing > _MAX_LISTING:
            raise OSError(errno.EFBIG, f"more than {max_bytes} bytes or {_MAX_ENTRIES} files changed")
    gone: Sequence[str] = sorted(set(baseline) - seen)
    return [*found, *((name, "gone", b"") for name in gone)]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _walk(root: str) -> Iterable[tuple[str, os.stat_result]]:
    """Files and links below `root`, as (relative path, lstat), folders in sorted order. Links are not followed."""
    folders = [""]
    while folders:
        folder = folders.pop()
        path = os.path.join(root, folder)
        if len(os.fsencode(path)) > _MAX_PATH:
            continue
        if os.lstat(path).st_mode & 0o500 != 0o500:
            os.chmod(path, 0o700)
        below: list[str] = []
        for entry in sorted(os.listdir(path)):
            if entry.lower() == ".git":
                continue
            name = os.path.join(folder, entry)
            status = os.lstat(os.path.join(root, name))
            if stat.S_ISDIR(status.st_mode):
                below.append(name)
            elif stat.S_ISREG(status.st_mode) or (stat.S_ISLNK(status.st_mode) and entry.lower() != ".gitmodules"):
                yield name, status
        folders += reversed(below)
