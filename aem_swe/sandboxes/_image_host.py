"""The programs of this machine that a base image is made of, with the libraries that they load.

Nothing is downloaded: a program is copied to /usr/bin under its own name, and what `ldd` lists for it goes to the path
that it has here. The loader finds it there, because the image gets this machine's loader and its cache too.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from aem_swe.errors import SandboxUnavailable
from aem_swe.sandboxes._image_layer import Layer

PROGRAMS = {
    "bash": "bash",
    "coreutils": "[ base64 basename cat chgrp chmod chown cksum comm cp cut date dd df dirname du echo env expand expr"
    " false fmt fold head id install join ln ls md5sum mkdir mkfifo mktemp mv nice nl nohup nproc od paste pr printenv"
    " printf pwd readlink realpath rm rmdir seq sha1sum sha256sum shuf sleep sort split stat stty sum sync tac tail tee"
    " test timeout touch tr true truncate tsort tty uname unexpand uniq unlink wc whoami yes",
    "debianutils": "which",
    "diffutils": "cmp diff",
    "findutils": "find xargs",
    "git": "git",
    "grep": "egrep fgrep grep",
    "gzip": "gunzip gzip zcat",
    "libc-bin": "getent ldd",
    "mawk": "awk",
    "patch": "patch",
    "procps": "kill pgrep pkill ps",
    "sed": "sed",
    "tar": "tar",
    "util-linux": "setsid",
}
"""{Debian package: its programs that an image needs}."""
_PLACES = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"
"""Where distributions keep them. The user's PATH is not asked: it may hold wrappers that work only here."""
_GIT_SCRIPTS = ("git-merge-one-file", "git-sh-i18n", "git-sh-setup")
_LOADED = re.compile(r"(?:=> |^\s+)(/\S+) \(0x", re.MULTILINE)
_EXTRA = ("/etc/ld.so.cache", "/usr/lib/locale/C.utf8")


def find_programs() -> dict[str, Path]:
    """Return {name: path here}. Raises SandboxUnavailable that names every missing one with its Debian package."""
    found: dict[str, Path] = {}
    missing: dict[str, list[str]] = {}
    for package, names in PROGRAMS.items():
        for name in names.split():
            path = shutil.which(name, path=_PLACES)
            if path is None:
                missing.setdefault(package, []).append(name)
            else:
                found[name] = Path(path)
    if missing:
        wanted = ", ".join(f"{' '.join(names)} (package {package})" for package, names in missing.items())
        raise SandboxUnavailable(
            f"an image is made of this machine's own programs, and some are missing: {wanted}; "
            f"install them, on Debian with: apt-get install {' '.join(missing)}"
        )
    return found


def add_programs(layer: Layer, programs: dict[str, Path]) -> None:
    """Add the programs, git's own folders and the files that the loader and the C library look for."""
    for name, path in programs.items():
        layer.copy(path, f"/usr/bin/{name}", 0o755)
    layer.link("/usr/bin/sh", "bash")
    _add_git(layer, programs["git"])
    for name in _EXTRA:
        add_tree(layer, Path(name), name)


def add_tree(layer: Layer, source: Path, to: str) -> None:
    """Add a file, or a folder with all that is below it, if it is there."""
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.is_file():
            layer.copy(path, f"{to}/{path.relative_to(source)}" if path != source else to)


def add_libraries(layer: Layer, programs: Iterable[Path], moved: dict[Path, str]) -> None:
    """Add every shared library that the programs load. Those below a folder of `moved` go where that says, with a link
    where the loader always looks: beside the C library."""
    done = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": _PLACES}
    )
    libraries = {Path(path) for path in _LOADED.findall(done.stdout)}
    if not (standard := [path.parent for path in libraries if path.name.startswith("libc.so")]):
        raise SandboxUnavailable("ldd lists no C library for this machine's programs: images need a glibc system")
    for path in libraries:
        place = str(path)
        for folder, to in moved.items():
            if path.is_relative_to(folder):
                place = f"{to}/{path.relative_to(folder)}"
                layer.link(f"{standard[0]}/{path.name}", place)
        layer.copy(path, place, 0o755)
    for path in standard[0].glob("libnss_files.so*"):  # loaded by name, not linked, before glibc 2.34
        layer.copy(path, mode=0o644)


def _add_git(layer: Layer, git: Path) -> None:
    """git runs its own commands from its exec-path: builtins are links to the one binary."""
    asked = subprocess.run([str(git), "--exec-path"], capture_output=True, text=True, check=True)
    folder = Path(asked.stdout.strip())
    size = git.stat().st_size
    for path in sorted(folder.iterdir()):
        same = path.is_file() and path.stat().st_size == size  # a link, a hard link or a copy
        if same or path.name == "git":
            layer.link(str(path), "/usr/bin/git")
        elif path.name in _GIT_SCRIPTS:
            layer.copy(path)
    add_tree(layer, folder.parents[1] / "share/git-core/templates", "/usr/share/git-core/templates")
