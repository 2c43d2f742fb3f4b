"""A file system to be, as a list of its members: what an image's tar is written from.

Every member belongs to root and has one fixed time, so that the same members always make the same tar. Libraries and
programs are given by their path on this machine and read only when the tar is written.
"""

import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_TIME = 1_700_000_000
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders of the root that are links into /usr, as on every current distribution."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file, link or folder of an image; exactly one of the first three is set, none for a folder."""

    source: Path | None = None
    content: bytes | None = None
    link: str = ""
    mode: int = 0o644

    def fingerprint(self) -> str:
        """Name the content without reading it: a file of this machine by its size and time."""
        if self.source is not None:
            seen = self.source.stat()
            return f"{self.mode:o} {seen.st_size} {seen.st_mtime_ns}"
        return f"{self.mode:o} {self.link} {hashlib.sha256(self.content or b'').hexdigest()}"


@dataclass(slots=True)
class Layer:
    """{path in the image: member}; a later member at the same path replaces the earlier one."""

    members: dict[str, Member] = field(default_factory=dict)

    def copy(self, source: Path, to: str = "", mode: int | None = None) -> None:
        """Put a file of this machine at `to`, by default at the path that it has here; links are followed."""
        real = source.resolve(strict=True)
        bits = real.stat().st_mode & 0o755 if mode is None else mode
        self.members[_placed(to or str(source))] = Member(source=real, mode=bits)

    def write(self, to: str, content: bytes, mode: int = 0o644) -> None:
        self.members[_placed(to)] = Member(content=content, mode=mode)

    def link(self, at: str, target: str) -> None:
        self.members[_placed(at)] = Member(link=target, mode=0o777)

    def folder(self, at: str, mode: int = 0o755) -> None:
        self.members[_placed(at)] = Member(mode=mode)

    def digest(self, *more: str) -> str:
        """Hash what the layer is made of, and `more`; equal digests mean equal layers."""
        lines = [f"{path} {member.fingerprint()}" for path, member in sorted(self.members.items())]
        return hashlib.sha256("\n".join([*more, *lines]).encode()).hexdigest()

    def save(self, to: IO[bytes]) -> None:
        """Write the tar: folders are made as needed, and files that are one file here are one file there."""
        with tarfile.open(fileobj=to, mode="w", format=tarfile.PAX_FORMAT) as tar:
            made: set[str] = set()
            first: dict[tuple[int, int], str] = {}
            for path, member in sorted(self.members.items()):
                for parent in reversed(Path(path).parents[:-1]):
                    if str(parent) not in made and str(parent) not in self.members:
                        tar.addfile(_header(str(parent), tarfile.DIRTYPE, 0o755))
                        made.add(str(parent))
                _add(tar, path, member, first)

    def links_into_usr(self) -> None:
        for name in _MERGED:
            self.members[name] = Member(link=f"usr/{name}", mode=0o777)
            self.members.setdefault(f"usr/{name}", Member(mode=0o755))


def _placed(path: str) -> str:
    """Return the path inside the tar: relative, /lib/x and /usr/lib/x being the same file."""
    name = path.strip("/")
    return f"usr/{name}" if name.split("/")[0] in _MERGED else name


def _header(path: str, kind: bytes, mode: int, size: int = 0, link: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type, header.mode, header.size, header.linkname, header.mtime = kind, mode, size, link, _TIME
    header.uname = header.gname = "root"
    return header


def _add(tar: tarfile.TarFile, path: str, member: Member, first: dict[tuple[int, int], str]) -> None:
    if member.source is not None:
        seen = member.source.stat()
        twin = first.setdefault((seen.st_dev, seen.st_ino), path)
        if twin != path:
            tar.addfile(_header(path, tarfile.LNKTYPE, member.mode, link=twin))
            return
        with member.source.open("rb") as content:
            tar.addfile(_header(path, tarfile.REGTYPE, member.mode, seen.st_size), content)
    elif member.content is not None:
        tar.addfile(_header(path, tarfile.REGTYPE, member.mode, len(member.content)), io.BytesIO(member.content))
    elif member.link:
        tar.addfile(_header(path, tarfile.SYMTYPE, 0o777, link=member.link))
    else:
        tar.addfile(_header(path, tarfile.DIRTYPE, member.mode))
