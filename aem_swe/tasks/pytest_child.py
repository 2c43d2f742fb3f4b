"""Run tests so that the code under test cannot easily speak for them. Runs in the image's own Python, 3.6 or newer.

Started by pytest_parent.py as `python -I -S -B -c SOURCE SETTINGS HAND BACK OUT`: SETTINGS is JSON, the others are
descriptors. With -S nothing but the standard library can be imported, so that is preloaded first; then the site's
packages; pytest and its plugins are imported before the code under test can be found at all. What the repository's top
folder offered before the patch is found first in it, as `python -m pytest` does; anything new there comes last.

When pytest.main has returned, and only then, the nonce that waits in HAND goes back with pytest's exit code and counts.
"""

import contextlib
import importlib
import importlib.machinery
import json
import os
import runpy
import sys
from typing import Any

STANDARD = """
    ast asyncio base64 bdb bisect calendar cgitb code codecs collections collections.abc contextlib copy csv
    ctypes datetime decimal difflib dis doctest email enum errno faulthandler fnmatch fractions functools gc
    getpass gettext glob hashlib heapq html http importlib.abc importlib.util inspect io itertools json
    linecache locale logging math mimetypes multiprocessing numbers operator optparse os pathlib pdb pickle
    pkgutil platform pprint py_compile queue random re reprlib selectors shlex shutil signal site socket sqlite3
    string struct subprocess sysconfig tempfile textwrap threading time timeit token tokenize traceback types
    typing unittest unittest.mock urllib uuid warnings weakref xml xml.etree.ElementTree zipfile zlib
    dataclasses contextvars importlib.metadata importlib.resources graphlib tomllib zoneinfo
"""


class BaselineFirst:
    """Finds the names that the top folder had before the patch there, before packages of the site."""

    def __init__(self, folder: str, names: "list[str]") -> None:
        stems = {name.split(".")[0] for name in names if name.endswith((".py", ".so")) or "." not in name}
        self.folder, self.names = folder, stems - set(sys.builtin_module_names)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if path is not None or name not in self.names:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, [self.folder])
        return spec if spec is not None and spec.has_location else None  # a folder alone takes nobody's place


class Gate:
    """Lets the repository be imported; as a plugin, when pytest has loaded all others."""

    def __init__(self, settings: "dict[str, Any]") -> None:
        self.folder, self.names = os.getcwd(), settings["names"]
        roots = [os.path.realpath(root) for root in (sys.prefix, sys.exec_prefix, sys.base_prefix)]
        self.held = [
            entry
            for entry in sys.path
            if below(entry, self.folder) and not any(below(entry, root) for root in roots if root != "/")
        ]
        sys.path[:] = [entry for entry in sys.path if entry not in self.held]
        self.is_open = False
        self.counts = None  # type: Any

    def open(self) -> None:
        if not self.is_open:
            self.is_open = True
            sys.path.extend(self.held + [self.folder] * (self.folder not in self.held))
            place = sys.meta_path.index(importlib.machinery.PathFinder)
            sys.meta_path.insert(place, BaselineFirst(self.folder, self.names))
            importlib.invalidate_caches()

    def pytest_load_initial_conftests(self) -> None:
        self.open()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        stats = terminalreporter.stats
        self.counts = {name: len(stats.get(name, ())) for name in ("passed", "failed", "error")}


def below(path: str, folder: str) -> bool:
    path = os.path.realpath(path)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def preload(names: "list[str]") -> None:
    for name in names:
        with contextlib.suppress(ImportError):  # another version of Python, or one built without it
            importlib.import_module(name)


def start_site() -> None:
    """What the interpreter does without -S, but nothing named sitecustomize is imported."""
    for name in ("sitecustomize", "usercustomize"):
        sys.modules[name] = type(sys)(name)
    importlib.import_module("site").main()


def import_pytest(gate: Gate) -> Any:
    """pytest as the site has it; the repository is let in only where pytest needs it (to test attrs, say)."""
    try:
        return importlib.import_module("pytest")
    except ImportError as error:
        if error.name == "pytest":
            raise
        gate.open()
        return importlib.import_module("pytest")


def run_pytest(settings: "dict[str, Any]", gate: Gate) -> int:
    pytest = import_pytest(gate)
    first = pytest.hookimpl(tryfirst=True)(lambda: gate.open())
    gate.pytest_load_initial_conftests = first  # type: ignore[method-assign]  # only now there is a pytest to ask
    version = int(pytest.__version__.split(".")[0])
    names = [name for name in settings["configurations"] if version >= 6 or not name.endswith(".toml")]
    fixed = ["-c", names[0], "--rootdir", gate.folder, "--import-mode=append", "--color=no", "--tb=short"]
    fixed += ["--show-capture=no", "-o", "cache_dir=" + settings["cache"]]
    arguments = settings["arguments"] + fixed
    sys.argv = [os.path.join(os.path.dirname(pytest.__file__), "__main__.py")] + settings["arguments"]
    code = 3
    with contextlib.suppress(*(() if gate.is_open else (ImportError,))):
        code = int(pytest.main(arguments, plugins=[gate]))
    if not gate.is_open:  # a plugin of the site could not be loaded without the repository (pytest-cov needs coverage)
        gate.open()
        code = int(pytest.main(arguments, plugins=[gate]))
    return code


def run_script(settings: "dict[str, Any]", gate: Gate) -> int:
    """Run a test program of the grader's as python would: its folder first on the path."""
    gate.open()
    script = os.path.join(gate.folder, settings["script"])
    sys.path.insert(0, os.path.dirname(script))
    sys.argv = [settings["script"]] + settings["arguments"]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        return int(stop.code or 0) if isinstance(stop.code, (int, type(None))) else 1
    return 0


def main() -> None:
    settings = json.loads(sys.argv[1])
    hand, back, out = (int(word) for word in sys.argv[2:5])
    owner = os.getpid()
    os.dup2(out, 1)
    os.close(out)
    for descriptor in (hand, back):
        os.set_inheritable(descriptor, False)
    preload(STANDARD.split())
    start_site()
    gate = Gate(settings)
    code = (run_script if settings["script"] else run_pytest)(settings, gate)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            code = code or 1
    if os.getpid() == owner:  # a fork that a test forgot to end has nothing to say
        nonce = os.read(hand, 64)
        os.write(back, nonce + b" " + json.dumps({"code": code, "counts": gate.counts}).encode())
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
