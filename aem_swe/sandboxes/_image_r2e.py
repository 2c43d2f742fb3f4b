"""A project in the form that R2E-Gym's images have, flaws included, so that what guards against them has work to do.

- /testbed is a git repository at the commit before the fix; a branch and a tag that hold the fix are there too.
- Its tree is dirty: a tracked file (install.sh) differs from HEAD, run_tests.sh and .venv are not tracked.
- The hidden tests lie at /r2e_tests; run_tests.sh runs them as r2e_tests once somebody has linked them into /testbed.
- /testbed/.venv/bin/python is what runs them. R2E installs everything there; here it is a link to the base's Python.

The repository is made here, with fixed names and dates: equal projects get equal commits.
"""

import functools
import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aem_swe.errors import TaskError
from aem_swe.sandboxes._image_layer import Layer

Files = tuple[tuple[str, bytes], ...]
"""((path, content), ...)"""
TEST_COMMAND = (
    "PYTHONWARNINGS='ignore::UserWarning,ignore::SyntaxWarning' .venv/bin/python -W ignore -m pytest -rA r2e_tests"
)
"""What run_tests.sh says in every R2E image."""
VENV = "/testbed/.venv"
_FORMAT = "1"
"""Raise it when the same project shall make another image."""
_DATE = "2024-01-01T00:00:00+00:00"
_INSTALL = b"#!/bin/bash\npython -m pip install -e .\n"
_INSTALL_HERE = b"#!/bin/bash\n# nothing to install: .venv sees what the image has\ntrue\n"
_PYVENV = b"home = /usr/local/bin\ninclude-system-site-packages = true\n"


@dataclass(frozen=True, slots=True)
class Project:
    """One project with a bug, and what fixes and tests it."""

    name: str
    """Part of the image's name: lower case letters, digits and dashes."""
    fixed: Files
    buggy: Files
    tests: Files
    """The hidden tests by file name."""
    fix: str
    """Subject of the commit that repairs it."""
    programs: Files = ()
    """Executable files elsewhere in the image, by absolute path."""

    def digest(self) -> str:
        """Hash all that the image is made of."""
        files = [(kind, path, hashlib.sha256(content).hexdigest()) for kind, path, content in self._all()]
        said = json.dumps([_FORMAT, TEST_COMMAND, self.name, self.fix, sorted(files)])
        return hashlib.sha256(said.encode()).hexdigest()

    def _all(self) -> list[tuple[str, str, bytes]]:
        groups = {"fixed": self.fixed, "buggy": self.buggy, "tests": self.tests, "programs": self.programs}
        return [(kind, path, content) for kind, files in groups.items() for path, content in files]


@dataclass(frozen=True, slots=True)
class History:
    """The repository of a project: what is in .git, and the fix as git writes it."""

    files: Files
    diff: bytes


def environment() -> dict[str, str]:
    """What an image of this form sets."""
    path = f"{VENV}/bin:/root/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"VIRTUAL_ENV": VENV, "PATH": path}


def project_layer(project: Project) -> Layer:
    """Return all files of the image, repository included."""
    layer = Layer()
    for path, content in project.buggy:
        layer.write(f"testbed/{path}", content)
    for path, content in make_history(project).files:
        layer.write(f"testbed/.git/{path}", content)
    for path, content in project.tests:
        layer.write(f"r2e_tests/{path}", content)
    for path, content in project.programs:
        layer.write(path, content, 0o755)
    layer.write("testbed/install.sh", _INSTALL_HERE, 0o755)
    layer.write("testbed/run_tests.sh", f"{TEST_COMMAND}\n".encode(), 0o755)
    layer.write(f"{VENV}/pyvenv.cfg", _PYVENV)
    layer.link(f"{VENV}/bin/python", "/usr/local/bin/python3")
    layer.link(f"{VENV}/bin/python3", "python")
    layer.folder("root/.local/bin")  # where R2E's own set-up puts links
    layer.folder("testbed/.git/refs/heads")
    return layer


@functools.lru_cache(maxsize=2)  # a build asks for the image, for the patch and for the row
def make_history(project: Project) -> History:
    """Commit the project before and after the fix; HEAD is detached before it, the branch main is after it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_git(folder, "init", "--quiet", "--initial-branch=main")
        write_files(folder, (*project.buggy, ("install.sh", _INSTALL)))
        (folder / "install.sh").chmod(0o755)
        run_git(folder, "add", "--all", "--force")
        run_git(folder, "commit", "--quiet", "-m", f"Import {project.name}")
        for path in {path for path, _ in project.buggy} - {path for path, _ in project.fixed}:
            (folder / path).unlink()
        write_files(folder, project.fixed)
        run_git(folder, "add", "--all", "--force")
        run_git(folder, "commit", "--quiet", "-m", project.fix)
        run_git(folder, "tag", "fixed")
        diff = run_git(folder, "diff", "--no-renames", "HEAD~1", "HEAD")
        run_git(folder, "checkout", "--quiet", "--detach", "HEAD~1")
        git = folder / ".git"
        paths = sorted(path for path in git.rglob("*") if path.is_file())
        return History(tuple((str(path.relative_to(git)), path.read_bytes()) for path in paths), diff)


def apply_patch(files: Files, patch: bytes, name: str) -> Files:
    """Return the files with a patch applied to them. Raises TaskError where it does not apply."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(folder, files)
        try:
            run_git(folder, "apply", "--whitespace=nowarn", "-", given=patch)
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode("utf-8", "replace").strip()
            raise TaskError(f"{name}: bug.patch does not apply to the released sources: {said}") from error
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return tuple((str(path.relative_to(folder)), path.read_bytes()) for path in paths)


def write_files(folder: Path, files: Files) -> None:
    for path, content in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def run_git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    """Run this machine's git, deaf to its configuration and to repositories around the folder."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _AUTHOR.items()}
    alone = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TEMPLATE_DIR": "",
        "GIT_CEILING_DIRECTORIES": str(folder.parent),
    }
    command = ["git", "-c", "core.autocrlf=false", *arguments]
    done = subprocess.run(command, cwd=folder, env=who | alone, input=given, capture_output=True, check=True)
    return done.stdout


_AUTHOR = {"NAME": "upstream", "EMAIL": "upstream@example.org", "DATE": _DATE}
