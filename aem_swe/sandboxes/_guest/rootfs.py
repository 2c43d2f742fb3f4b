"""The file system that sandboxes see: the host's programs read-only, everything else made here, in memory.

`build` runs once, in the zygote's own mount namespace; `enter` once per sandbox, in a copy of it. The host's home
folders, /tmp, /var, /run, /sys and the rest are not hidden but absent: the old root is unmounted. Installed
packages are covered, so that nothing inside can read aem_swe and its task generator. The host's /proc stays mounted
beneath each sandbox's own, because the kernel lets an ordinary user mount a new proc only where one is visible.
"""

import errno
import glob
import os
import sys

from . import linux

_OLD = "/.host"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_OF_PREFIX = ("bin", "lib", "lib64")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
_ETC = {
    "passwd": "root:x:0:0::/root:/bin/false\nagent:x:1000:1000::/tmp:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
    "group": "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_SAFE = linux.ATTR_RDONLY | linux.ATTR_NOSUID | linux.ATTR_NODEV
_COVERED = (
    "lib*/python*/site-packages",
    "lib*/python*/dist-packages",
    "src",
    "local/src",
    "local/lib*/python*/*-packages",
)
_WRITABLE = "/.writable"


def build(prefix: str, hidden: list[str], programs: dict[str, str]) -> None:
    """Make the root of this mount namespace the one that sandboxes copy.

    prefix: where the interpreter lives. hidden: folders of the trainer that must not be readable even where they lie
    inside the programs' folders. programs: path -> source, written as read-only files.
    """
    if prefix.startswith(("/tmp/", "/dev/", "/proc/")):
        raise OSError(errno.EINVAL, f"Python lies in {prefix}, which sandboxes replace by a folder of their own")
    linux.mount("", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", "/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=64m")
    os.chdir("/tmp")
    os.mkdir(_OLD[1:], 0o700)
    linux.pivot_root(".", _OLD[1:])
    os.chdir("/")
    shown = [path for path in _SYSTEM if _show(path)]
    if not prefix.startswith("/usr/") and prefix != "/usr":
        shown += [path for name in _OF_PREFIX if _show(path := os.path.join(prefix, name))]
    _make_etc()
    _make_dev()
    os.mkdir("/proc")
    linux.bind(_OLD + "/proc", "/proc", recursive=True)
    for path in ("/tmp", "/dev/shm", _WRITABLE):
        os.mkdir(path)
    linux.unmount(_OLD)
    os.rmdir(_OLD)
    if not os.path.isfile(os.__file__):
        raise OSError(errno.EACCES, f"Python's folder {prefix} is closed to other users; use a Python below /usr")
    for path, source in programs.items():
        _write(path, source, 0o755)
    real = [path for path in shown if not os.path.islink(path)]
    for path in real:
        linux.set_mount_attributes(path, _SAFE, recursive=True)
    _cover(real, prefix, hidden)


def _show(path: str) -> bool:
    """Bind a folder of the host to its own path, or repeat the symbolic link that it is (merged /usr)."""
    host = _OLD + path
    if os.path.islink(host):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(os.readlink(host), path)
    elif os.path.isdir(host):
        os.makedirs(path)
        linux.bind(host, path, recursive=True)
    else:
        return False
    return True


def _make_etc() -> None:
    for name, text in _ETC.items():
        _write("/etc/" + name, text)
    if os.path.isdir(_OLD + "/etc/alternatives"):
        os.mkdir("/etc/alternatives")
        linux.bind(_OLD + "/etc/alternatives", "/etc/alternatives")
        linux.set_mount_attributes("/etc/alternatives", _SAFE)
    if os.path.exists(_OLD + "/etc/ld.so.cache"):
        with open(_OLD + "/etc/ld.so.cache", "rb") as source, open("/etc/ld.so.cache", "wb") as target:
            target.write(source.read())


def _make_dev() -> None:
    os.mkdir("/dev")
    for name in _DEVICES:
        _write("/dev/" + name, "")
        linux.bind(f"{_OLD}/dev/{name}", "/dev/" + name)
    for name, target in _LINKS.items():
        os.symlink(target, "/dev/" + name)


def _write(path: str, text: str, mode: int = 0o644) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


def _cover(shown: list[str], prefix: str, hidden: list[str]) -> None:
    """Put an empty read-only folder over every place in `shown` where Python packages or the trainer's code may lie."""
    folders = {path for root in ("/usr", prefix) for pattern in _COVERED for path in glob.glob(f"{root}/{pattern}")}
    folders |= {os.path.realpath(path) for path in hidden}
    needed = [os.path.realpath(path) for path in (*sys.path, prefix, "/usr")]  # sys.path here: the standard library
    for path in sorted(folders, reverse=True):
        inside = any(path.startswith(root + "/") for root in shown)
        if inside and os.path.isdir(path) and not any(f"{place}/".startswith(path + "/") for place in needed):
            linux.mount("tmpfs", path, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=4k")
            linux.set_mount_attributes(path, _SAFE)


def make_workdir(path: str) -> None:
    """Make the mount point of a workdir. Called by the zygote: inside a sandbox the root is read-only."""
    os.makedirs(path, exist_ok=True)


def enter(workdir: str, disk_bytes: int, uid: int) -> None:
    """Give this mount namespace its own /proc and its writable folders, which share one size limit."""
    flags = linux.MS_NOSUID | linux.MS_NODEV
    options = f"size={disk_bytes},nr_inodes={max(1024, disk_bytes >> 12)},mode=0755,uid={uid},gid={uid}"
    linux.mount("tmpfs", _WRITABLE, "tmpfs", flags, options)
    for name, target in (("work", workdir), ("tmp", "/tmp"), ("shm", "/dev/shm")):
        path = f"{_WRITABLE}/{name}"
        os.mkdir(path)
        os.chown(path, uid, uid)
        os.chmod(path, 0o755 if name == "work" else 0o1777)
        linux.bind(path, target)
    linux.unmount(_WRITABLE)
    linux.mount("proc", "/proc", "proc", flags | linux.MS_NOEXEC)
    linux.set_mount_attributes("/", _SAFE)
