"""A hostile policy harms nothing, leaks nothing, gets its reward from the trusted tests only, and the step completes.

Once in this process, and where that is root's once more as an ordinary user.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hostile_step
import pytest

from aem_swe.sandboxes import unavailable_reason

REPOSITORY = Path(__file__).resolve().parents[1]
NOBODY = 65534


def _as_nobody(folder: Path) -> dict[str, Any]:  # JSON values
    """Run the step as nobody, with a Python that nobody can start (root's own often lies in a home folder)."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"]
    packages = Path(pytest.__file__).parents[1]
    copy = folder / "checkout"
    subprocess.run(
        [
            "cp",
            "-r",
            *(str(REPOSITORY / name) for name in ("aem_swe", "agents", "configs", "tests")),
            "--target-directory",
            str(copy),
        ],
        check=True,
    )
    subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": f"{copy}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MPLCONFIGDIR": str(folder),
    }  # fmt: skip
    for python in candidates:
        try:
            probe = subprocess.run(
                [python, "-c", "import torch"], user=NOBODY, group=NOBODY, env=environment, cwd=folder
            )
        except OSError:
            continue
        if probe.returncode == 0:
            command = [python, str(copy / "tests" / "hostile_step.py"), str(folder)]
            ended = subprocess.run(command, user=NOBODY, group=NOBODY, env=environment, cwd=folder, capture_output=True)
            assert ended.returncode == 0, ended.stderr.decode()
            found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
            return found
    pytest.skip(f"no {version} that an ordinary user can start and that finds torch; install one below /usr")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that an ordinary user can be given (pytest's own belong to the user who runs it)."""
    with tempfile.TemporaryDirectory(prefix="aem-swe-hostile-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module", params=["this user", "ordinary user"])
def step(request: pytest.FixtureRequest, folder: Path) -> tuple[dict[str, Any], Path]:  # JSON values
    """What the step gave, and its folder."""
    reason = unavailable_reason("local")
    if reason is not None:
        pytest.skip(reason)
    place = folder / str(request.param).replace(" ", "_")
    place.mkdir()
    if request.param == "this user":
        return hostile_step.hostile_step(place), place
    if os.geteuid() != 0:
        pytest.skip("this user is an ordinary one already")
    (place / "checkout").mkdir()
    folder.chmod(0o755)
    os.chown(place, NOBODY, NOBODY)
    return _as_nobody(place), place


def test_only_the_fix_is_rewarded(step: tuple[dict[str, Any], Path]) -> None:
    got = step[0]["got"]
    assert got["fix"] == [1.0, "tests_passed", "finished"]
    rewarded = {name for name, (reward, _, _) in got.items() if reward != 0.0}
    assert rewarded <= {"fix", "1 GB file"}  # with the disk full, the edit after it may or may not find room
    assert got["nothing"][1] == "tests_failed"
    assert got["exit at import"][1] == "forged"
    assert got["always equal"][1] == "tests_failed"


def test_the_step_completes_and_no_attack_counts_as_a_broken_sandbox(step: tuple[dict[str, Any], Path]) -> None:
    row = step[0]["row"]
    assert row["filter/infrastructure_error"] == 0
    assert row["filter/kept"] == row["rollout/trajectories"] == len(step[0]["got"])
    assert row["actor/updates"] == 1


def test_nothing_of_the_trainer_s_secrets_is_left_anywhere(step: tuple[dict[str, Any], Path]) -> None:
    files = [path for path in step[1].rglob("*") if path.is_file() and "checkout" not in path.parts]
    assert len(files) > 5
    assert [path for path in files if hostile_step.CANARY.encode() in path.read_bytes()] == []


def test_no_network_and_no_process_got_out(step: tuple[dict[str, Any], Path]) -> None:
    assert step[0]["connected"] is False
    assert "CONNECTED" not in step[0]["observations"]["network"]
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(hostile_step.DAEMON.encode() in line for line in lines)


def test_the_trusted_cases_cannot_be_read(step: tuple[dict[str, Any], Path]) -> None:
    seen = step[0]["observations"]["read tests"]
    assert "encode" in seen  # the runner's source is no secret
    for hidden in ("hostile_step", "expected=", "aem_swe/tasks"):
        assert hidden not in seen


def test_escape_codes_and_scripts_do_nothing(step: tuple[dict[str, Any], Path]) -> None:
    report = (step[1] / "report.html").read_text()
    assert "<script" not in report.lower()
    for path in step[1].rglob("*.jsonl"):
        assert b"\x1b" not in path.read_bytes()
        assert b"\\u001b" not in path.read_bytes()
