"""A project in the form that SWE-bench's images have: what its harness, its rows and our sandboxes expect to find.

- /testbed is a git repository whose HEAD is the base commit; neither the fix nor the new tests are in its history.
- /opt/miniconda3 has what a conda installation is asked for: `activate`, the environment `testbed`, its Python, which
  is a link to the base's. The project can be imported from anywhere, as after `pip install -e`.
- No entry point, and the plain programs of the base: the harness brings its own PID 1 (`tail -f /dev/null`).

The repository is made here, with fixed names and dates: equal projects get equal commits.
"""

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aem_swe.sandboxes._image_layer import Layer
from aem_swe.sandboxes._image_r2e import Files, run_git, write_files

CONDA = "/opt/miniconda3"
ENVIRONMENT = f"{CONDA}/envs/testbed"
_FORMAT = "1"
"""Raise it when the same project shall make another image."""
_ACTIVATE = f"""\
# what `source {CONDA}/bin/activate` gives a shell, as far as the scripts of SWE-bench's rows need it
conda() {{
    [ "${{1:-}}" = activate ] || return 0
    export CONDA_DEFAULT_ENV="${{2:-base}}" CONDA_PREFIX="{CONDA}/envs/${{2:-base}}"
    export PATH="$CONDA_PREFIX/bin:$PATH"
}}
""".encode()
_PYTEST = f"""\
#!{ENVIRONMENT}/bin/python
import sys

from pytest import console_main

sys.exit(console_main())
""".encode()


@dataclass(frozen=True, slots=True)
class Repository:
    """One project at the commit before a fix, with the tests that it has there, and what comes after it."""

    name: str
    """Part of the image's name: lower case letters, digits and dashes."""
    base: Files
    """All files at the base commit, tests included."""
    fixed: Files
    """The files that the fix changes or adds, as they are after it."""
    removed: tuple[str, ...]
    """Paths that the fix removes."""
    tests: Files
    """The test files as they are after the change of the tests."""
    programs: Files = ()
    """Executable files elsewhere in the image, by absolute path."""

    def digest(self) -> str:
        """Hash all that the image is made of."""
        named = {"base": self.base, "programs": self.programs}
        files = [(kind, path, hashlib.sha256(data).hexdigest()) for kind, all_ in named.items() for path, data in all_]
        return hashlib.sha256(json.dumps([_FORMAT, self.name, sorted(files)]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Commits:
    """What a row says about a repository, and its .git folder."""

    base: str
    fix: bytes
    """The fix as git writes it."""
    tests: bytes
    """The change of the tests as git writes it."""
    git: Files


def make_commits(repository: Repository) -> Commits:
    """Commit the base, and let git write the two patches; they leave no trace in what is returned."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_git(folder, "init", "--quiet", "--initial-branch=main")
        write_files(folder, repository.base)
        run_git(folder, "add", "--all", "--force")
        run_git(folder, "commit", "--quiet", "-m", f"Import {repository.name}")
        commit = run_git(folder, "rev-parse", "HEAD").decode().strip()
        git = folder / ".git"
        kept = tuple(
            (str(path.relative_to(git)), path.read_bytes()) for path in sorted(git.rglob("*")) if path.is_file()
        )
        for path in repository.removed:
            (folder / path).unlink()
        fix = _change(folder, repository.fixed)
        tests = _change(folder, repository.tests)
        return Commits(commit, fix, tests, kept)


def swebench_layer(repository: Repository, packages: str) -> Layer:
    """Return all files of the image. packages: where the base's Python looks for packages."""
    layer = Layer()
    for path, content in repository.base:
        layer.write(f"testbed/{path}", content)
    for path, content in make_commits(repository).git:
        layer.write(f"testbed/.git/{path}", content)
    for path, content in repository.programs:
        layer.write(path, content, 0o755)
    layer.folder("testbed/.git/refs/tags")
    layer.write(f"{CONDA}/bin/activate", _ACTIVATE)
    for program in ("python", "python3"):
        layer.link(f"{ENVIRONMENT}/bin/{program}", "/usr/local/bin/python3")
    layer.write(f"{ENVIRONMENT}/bin/pytest", _PYTEST, 0o755)
    layer.write(f"{packages}/testbed.pth", b"/testbed\n")
    return layer


def _change(folder: Path, files: Files) -> bytes:
    """What git says about the tree with these files in it; they are in the index then."""
    write_files(folder, files)
    before = run_git(folder, "write-tree").decode().strip()
    run_git(folder, "add", "--all", "--force")
    return run_git(folder, "diff", "--cached", "--no-renames", before)
