"""What our half of a container consists of: an interpreter of our own, the guest program, and the preloaded programs.

An image may hold any Python, an old one or none, so containers bring theirs: this host's interpreter with its standard
library and the shared libraries that it was linked to, its own dynamic loader included. It runs in every image of the
same processor, whatever its C library. One read-only volume per engine holds it; its name is the hash of its contents.
"""

import hashlib
import io
import json
import marshal
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aem_swe.errors import SandboxUnavailable
from aem_swe.sandboxes._guest.programs import compiled
from aem_swe.sandboxes._programs import standard_modules

MOUNTED_AT = "/opt/aem"
VOLUME_PREFIX = "aem-swe-"
_PYTHON_AT = "/opt/aem-python"
_GUEST = Path(__file__).parent / "_guest"
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LEFT_OUT = re.compile(
    r"(^|/)(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|site-packages|dist-packages|config-[^/]*)(/|$)"
    r"|(^|/)(_tkinter|_test[a-z]*|_ctypes_test|_sqlite3|_curses[a-z_]*|_dbm|_gdbm|readline|nis|xx[a-z]*|_crypt|ossaudiodev)\.[^/]*so$"
    r"|\.(a|opt-1\.pyc|opt-2\.pyc)$"
)


@dataclass(frozen=True, slots=True)
class Pack:
    """The contents of one read-only volume."""

    volume: str
    """Its name, which holds the hash of the archive."""
    mounted_at: str
    archive: bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """Two volumes (the interpreter; the guest and its programs), and the command that makes PID 1 of them."""

    packs: tuple[Pack, ...]
    command: tuple[str, ...]
    """Followed by the limits of memory (bytes), processes, and a file (bytes)."""
    machine: str
    """Of the interpreter inside, as `uname -m` prints it."""


def make_bundle(programs: Mapping[str, str]) -> Bundle:
    """Pack this host's interpreter with `programs` (path -> source). SandboxUnavailable where it cannot be copied."""
    shared_at = f"{_PYTHON_AT}/shared"
    return Bundle(
        packs=(_interpreter(), _guest(programs)),
        command=(
            f"{shared_at}/ld.so", "--library-path", shared_at, f"{_PYTHON_AT}/bin/{_VERSION}",
            "-I", "-S", "-B", "-X", "utf8", f"{MOUNTED_AT}/guest", "container",
        ),
        machine=platform.machine(),
    )  # fmt: skip


@cache
def _interpreter() -> Pack:
    interpreter = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix})).resolve()
    shared = [path for path in sorted((library / "lib-dynload").glob("*.so")) if not _LEFT_OUT.search(path.name)]
    loader, needed = _libraries([interpreter, *shared])
    files = {f"lib/{_VERSION}/{target}": source for source, target in _standard_library(library)}
    files |= {f"shared/{name}": path for name, path in needed.items()}
    return _pack("python", _PYTHON_AT, files | {f"bin/{_VERSION}": interpreter, "shared/ld.so": loader})


def _guest(programs: Mapping[str, str]) -> Pack:
    inside = {path: text for path, text in programs.items() if path.startswith(MOUNTED_AT + "/")}
    return _pack(
        "guest",
        MOUNTED_AT,
        {f"guest/{path.name}": path for path in _GUEST.glob("*.py")},
        {
            "settings.json": json.dumps({"modules": standard_modules(programs.values())}).encode(),
            "programs.marshal": marshal.dumps(compiled(programs)),
            **{path.removeprefix(MOUNTED_AT + "/"): text.encode() for path, text in inside.items()},
        },
    )


def _pack(name: str, mounted_at: str, files: Mapping[str, Path], texts: Mapping[str, bytes] | None = None) -> Pack:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for target, source in sorted(files.items()):
            executable = 0o755 if os.access(source, os.X_OK) else 0o644
            _add(tar, target, source.read_bytes(), mode=executable, mtime=int(source.stat().st_mtime))
        for target, text in sorted((texts or {}).items()):
            _add(tar, target, text)
    archive = out.getvalue()
    return Pack(f"{VOLUME_PREFIX}{name}-{hashlib.sha256(archive).hexdigest()[:16]}", mounted_at, archive)


def _standard_library(folder: Path) -> Iterator[tuple[Path, str]]:
    """Sources and the compiled files beside them, whose time stamps the archive keeps."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not _LEFT_OUT.search(name):
            yield path, name


def _add(tar: tarfile.TarFile, target: str, data: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
    """mtime: a compiled file names the time of its source."""
    info = tarfile.TarInfo(target)
    info.size, info.mode, info.mtime = len(data), mode, mtime
    tar.addfile(info, io.BytesIO(data))


def _libraries(binaries: list[Path]) -> tuple[Path, dict[str, Path]]:
    """(dynamic loader, name -> shared library) of everything that the binaries are linked to."""
    try:
        listed = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SandboxUnavailable(
            "containers get a copy of this Python, which needs ldd; install it (libc-bin)"
        ) from error
    loader: Path | None = None
    found: dict[str, Path] = {}
    for line in listed.stdout.splitlines():
        match line.split():
            case [name, "=>", path, *_] if path.startswith("/"):
                found[name] = Path(path).resolve()
            case [path, address] if path.startswith("/") and address.startswith("("):
                loader = Path(path).resolve()
    if loader is None:
        raise SandboxUnavailable(
            f"containers get a copy of this Python, but {binaries[0]} is linked statically; use another one"
        )
    return loader, found
