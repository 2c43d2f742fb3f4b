"""The Python of a base image: this machine's interpreter moved to /usr/local, its standard library, and pytest.

An interpreter finds its library from where it lies itself, so a pyenv build, a distribution's and the base of a virtual
environment all work at /usr/local as they are. Byte code is compiled here and marked `unchecked-hash`: it stays valid
whatever times the files get, and the first test run in an image is more than twice as fast.
"""

import hashlib
import importlib.util
import json
import marshal
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from aem_swe.errors import SandboxUnavailable
from aem_swe.resources import resource
from aem_swe.sandboxes._image_layer import Layer

PREFIX = "/usr/local"
_LEFT_OUT = {
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idle_test",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}
"""Folders of the standard library that an image does without, wherever they are."""
_LEFT_OUT_FILES = ("_tkinter.", "_test", "_ctypes_test.", "_xxtestfuzz.", "turtle.py", "sitecustomize.py")
_RARELY_USED = re.compile(r"/pygments/lexers/(?!__init__|_mapping|python|diff)")
"""Not compiled in advance: hundreds of languages that pytest never shows."""
_ASK = """
import json, os, site, sys, sysconfig
base = os.path.realpath(sys.base_prefix)
print(json.dumps({
    "executable": os.path.realpath(sys.executable), "prefix": base,
    "stdlib": os.path.realpath(sysconfig.get_path("stdlib")),
    "packages": site.getsitepackages(["/usr/local"])[-1],
    "version": "%d.%d" % sys.version_info[:2], "tag": sys.implementation.cache_tag,
}))
"""


@dataclass(frozen=True, slots=True)
class HostPython:
    """The interpreter that runs us, without any virtual environment around it."""

    executable: Path
    prefix: Path
    stdlib: Path
    packages: str
    """Where packages go in the image."""
    version: str
    tag: str

    def extensions(self) -> list[Path]:
        """Everything compiled that an image gets."""
        loaded = [path for path in self.files() if path.suffix == ".so"]
        return [self.executable, *loaded]

    def files(self) -> list[Path]:
        """The files of the standard library that an image gets."""
        found = []
        for folder, folders, names in os.walk(self.stdlib):
            folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
            found += [Path(folder, name) for name in names if not name.startswith(_LEFT_OUT_FILES)]
        return sorted(path for path in found if path.is_file() and path.suffix not in (".a", ".o"))

    def own_libraries(self) -> dict[Path, str]:
        """Return {folder here: folder in the image} of libraries that move with the interpreter."""
        shared = self.prefix in (Path("/usr"), Path("/usr/local"))  # a distribution's: they are everyone's
        return {} if shared else {self.prefix: PREFIX}

    def add(self, layer: Layer) -> None:
        """Add interpreter and standard library, without byte code."""
        binary = f"{PREFIX}/bin/python{self.version}"
        layer.copy(self.executable, binary, 0o755)
        for at in (f"{PREFIX}/bin/python3", f"{PREFIX}/bin/python", "/usr/bin/python3"):
            layer.link(at, binary)
        for path in self.files():
            layer.copy(path, f"{PREFIX}/{path.relative_to(self.prefix)}")


def host_python() -> HostPython:
    """Ask the interpreter below any virtual environment where its parts are."""
    executable = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([executable, "-I", "-c", _ASK], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    paths = {name: Path(said[name]) for name in ("executable", "prefix", "stdlib")}
    return HostPython(**paths, packages=said["packages"], version=said["version"], tag=said["tag"])


def requirements() -> str:
    return resource("sandboxes", "requirements-pytest.txt").read_text()


def add_pytest(layer: Layer, python: HostPython) -> None:
    """Add the pinned pytest from our cache, which pip fills first if need be."""
    root = _installed_pytest(python)
    for path in sorted(root.rglob("*")):
        kept = path.is_file() and "__pycache__" not in path.parts and path.relative_to(root).parts[0] != "bin"
        if kept:
            layer.copy(path, f"{python.packages}/{path.relative_to(root)}", 0o644)


def add_byte_code(layer: Layer, python: HostPython) -> None:
    """Compile every module that the layer has, for the path that it gets."""
    for at, member in sorted(layer.members.items()):
        if member.source is None or not at.endswith(".py") or _RARELY_USED.search(at):
            continue
        source = member.source.read_bytes()
        with warnings.catch_warnings(action="ignore"):  # escapes in old modules are not our business
            code = compile(source, f"/{at}", "exec", dont_inherit=True, optimize=0)
        # PEP 552: magic, flags (1: the hash is not checked), hash of the source
        head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
        folder, _, name = at.rpartition("/")
        layer.write(f"{folder}/__pycache__/{name[:-3]}.{python.tag}.pyc", head + marshal.dumps(code))


def cache_folder() -> Path:
    """Return where downloads are kept; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aem-swe"


def _installed_pytest(python: HostPython) -> Path:
    digest = hashlib.sha256(requirements().encode()).hexdigest()[:16]
    place = cache_folder() / f"pytest-{digest}-{python.tag}"
    if place.is_dir():
        return place
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        file = str(resource("sandboxes", "requirements-pytest.txt"))
        run_pip("install", "--no-compile", "--no-deps", "--require-hashes", "--target", f"{folder}/new", "-r", file)
        try:
            os.rename(f"{folder}/new", place)
        except OSError:  # another process was faster
            if not place.is_dir():
                raise
    return place


def download_wheel(package: str, version: str, sha256: str) -> Path:
    """Return one release from our cache, which pip fills first if need be; its hash is checked."""
    place = cache_folder() / "wheels" / f"{package}-{version}-{sha256[:16]}.whl"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            pinned = Path(folder, "requirements.txt")
            pinned.write_text(f"{package}=={version} --hash=sha256:{sha256}\n")
            only = ("--no-deps", "--only-binary", ":all:", "--require-hashes")
            run_pip("download", *only, "--dest", f"{folder}/new", "-r", str(pinned))
            [made] = Path(folder, "new").iterdir()
            os.replace(made, place)
    found = hashlib.sha256(place.read_bytes()).hexdigest()
    if found != sha256:
        raise SandboxUnavailable(f"{place} has the hash {found[:16]}, not {sha256[:16]}: remove it and try again")
    return place


def run_pip(*arguments: str) -> None:
    """Run our interpreter's pip as the user configured it. Raises SandboxUnavailable with its last line."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
        raise SandboxUnavailable(
            f"pip {arguments[0]} failed, and an offline image needs it once: {errors[-1]}; "
            "check that this Python has pip and that pip's configured package index answers"
        )
