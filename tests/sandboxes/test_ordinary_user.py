"""All the other tests of this folder once more as a user without any privilege, when root runs them.

The package is copied to where that user can read it, and a Python that it can start is looked for: root's own often
lies in a home folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def readable() -> Iterator[Path]:
    """A copy of the package and of these tests that everybody can read."""
    folder = Path(tempfile.mkdtemp(prefix="aem-swe-tests-"))
    try:
        folder.chmod(0o755)
        ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(REPOSITORY / "aem_swe", folder / "aem_swe", ignore=ignored)
        shutil.copytree(REPOSITORY / "tests" / "sandboxes", folder / "tests" / "sandboxes", ignore=ignored)
        shutil.copy(REPOSITORY / "pyproject.toml", folder)
        (folder / "scratch").mkdir()
        os.chown(folder / "scratch", NOBODY, NOBODY)
        yield folder
    finally:
        shutil.rmtree(folder)


FILES = [f"tests/sandboxes/test_{name}.py" for name in ("contract", "pool", "reaper")] + [
    f"tests/sandboxes/test_local_{name}.py" for name in ("attacks", "forgeries", "lifecycle", "limits", "programs")
]
"""What needs no container engine and no other tests' helpers."""


def run_as_nobody(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    packages = Path(pytest.__file__).parents[1]
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{folder}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "scratch"),
    }
    return subprocess.run(
        arguments,
        env=environment,
        cwd=folder,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
    )


def find_interpreter(folder: Path) -> str:
    for candidate in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        try:
            code = "import sys, pytest; sys.exit(sys.version_info < (3, 11))"
            if run_as_nobody([candidate, "-c", code], folder).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip("no Python 3.11 with pytest that the user nobody can start; install one below /usr")


def test_everything_holds_for_an_ordinary_user(readable: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this run is an ordinary user's already; run as root for the other half")
    command = [find_interpreter(readable), "-m", "pytest", "-p", "no:cacheprovider", *FILES, "-rs"]
    result = run_as_nobody([*command, f"--basetemp={readable / 'scratch' / 'pytest'}"], readable)
    assert result.returncode == 0, result.stdout[-8000:].decode(errors="replace")
