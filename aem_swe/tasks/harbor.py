"""Harbor's task folders as tasks: task.toml, instruction.md, environment/, tests/test.sh and solution/solve.sh.

    client = docker.from_env()
    for problem in read_harbor("tasks"):
        build_image(client, Path("tasks") / problem.task.id)

Where this differs from Harbor, so that a result can be trusted and repeated: the tests run in a fresh container after
the agent's patch of the working folder was applied there (what it changed elsewhere is lost), without a network, as
root; a reward below 1 is 0. What a patch may not bring is dropped as for other tasks (tasks/patch_policy.py), unless
`whole_patch=True`. Nothing comes from this machine's environment.

What can still be forged: code under test runs beside test.sh as the same user and can write the reward file that
test.sh writes, after it. A reward file that the test script does not know counts as forged.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from aem_swe.errors import ConfigError, SandboxUnavailable, TaskError
from aem_swe.sandboxes.base import Sandbox
from aem_swe.sandboxes.reaper import LABEL
from aem_swe.tasks._harbor_grader import HarborGrader, grading_programs, tail
from aem_swe.tasks._harbor_settings import HarborSettings, files_below, read_settings
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.rows import BadRow
from aem_swe.types import Part, Task

if TYPE_CHECKING:  # the SDK is slow to import, and reading needs none
    from docker import DockerClient

__all__ = ["HarborGrader", "HarborSettings", "build_image", "grading_programs", "read_harbor", "read_settings", "solve"]

_SOLVE_S = 3600.0
_CANARY = re.compile(r"(<!--.*canary.*-->|#.*canary.*)", re.IGNORECASE)


def read_harbor(folder: Path | str, *, whole_patch: bool = False) -> Iterator[Problem | BadRow]:
    """Yield the tasks of a folder of task folders (or of one task folder), in the order of their names, or why not.

    whole_patch: keep everything that a patch brings, as Harbor does. Raises ConfigError where there is no task at all.
    """
    folder = Path(folder)
    found = [folder] if (folder / "task.toml").is_file() else _task_folders(folder)
    if not found:
        raise ConfigError(f"folder {str(folder)!r} holds no task; a task is a folder in it with a task.toml")
    for path in found:
        try:
            yield _problem(path, whole_patch)
        except TaskError as error:
            yield BadRow(path.resolve().name, str(error))


def build_image(client: "DockerClient", folder: Path | str) -> str:
    """Build the image of a task folder unless the engine has it; return its name. A docker_image is never built.

    Raises TaskError where the Dockerfile fails, SandboxUnavailable where the engine does.
    """
    from docker.errors import DockerException

    folder = Path(folder)
    name = folder.resolve().name
    try:
        settings = read_settings(folder)
    except TaskError as error:
        raise TaskError(f"{name}: {error}") from error
    try:
        if not settings.built or client.images.list(settings.image):
            return settings.image
        said = client.api.build(
            path=str(folder / "environment"), tag=settings.image, rm=True, forcerm=True, decode=True,
            timeout=int(settings.build_timeout_s), labels={LABEL: "image"},
        )  # fmt: skip
        for line in said:
            if "error" in line:
                raise TaskError(f"{name}: its image cannot be built: {' '.join(str(line['error']).split())}")
    except (DockerException, OSError) as error:
        raise SandboxUnavailable(f"{name}: the engine could not build its image: {error}") from error
    return settings.image


def solve(folder: Path | str, sandbox: Sandbox) -> bytes:
    """Run solution/solve.sh in a sandbox that was made from the task; return the patch of what it did.

    Its exit code does not count, as in Harbor: the tests tell. Raises TaskError where it did nothing, or has no end.
    """
    folder = Path(folder)
    name, settings = folder.resolve().name, read_settings(folder)
    files = files_below(folder / "solution")
    if "solve.sh" not in files:
        raise TaskError(f"{name}: has no solution/solve.sh")
    for path, content in files.items():
        sandbox.write(f"/solution/{path}", content)
    env = {"DEBIAN_FRONTEND": "noninteractive", **dict(settings.solution_env)}
    limit = settings.agent_timeout_s or _SOLVE_S
    script = "chmod -R a+rx /solution && exec /solution/solve.sh"
    result = sandbox.run(["bash", "-c", script], cwd=settings.workdir, env=env, timeout=limit)
    if result.timed_out:
        raise TaskError(f"{name}: solution/solve.sh reached its time limit of {limit:g} s")
    patch = sandbox.diff()
    if not patch:
        raise TaskError(f"{name}: solution/solve.sh changed nothing (exit code {result.exit_code}): {tail(result)}")
    return patch


def _task_folders(folder: Path) -> list[Path]:
    marks = ("task.toml", "instruction.md", "tests")
    below = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in below if path.is_dir() and any((path / mark).exists() for mark in marks)]


def _problem(folder: Path, whole_patch: bool) -> Problem:
    settings = read_settings(folder)
    tests = files_below(folder / "tests")
    if "test.sh" not in tests:
        raise TaskError("has no tests/test.sh")
    task = Task(
        id=folder.resolve().name,
        statement=(Part("text", _instruction(folder / "instruction.md")),),
        image=settings.image,
        workdir=settings.workdir,
        env=settings.env,
    )
    grader = HarborGrader(
        str(folder.resolve()), tuple(tests.items()), settings.verifier_timeout_s, settings.verifier_env, whole_patch
    )
    solution = sorted(files_below(folder / "solution").items()) if (folder / "solution").is_dir() else []
    version = hashlib.sha256(repr(solution).encode()).hexdigest()
    return Problem(task, grader, _patch_of_solution(folder / "solution"), version)


def _instruction(path: Path) -> str:
    """What the agent reads, without the leading lines that mark a benchmark's files."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise TaskError(f"instruction.md cannot be read: {error}") from error
    while lines and (_CANARY.fullmatch(lines[0].strip()) or not lines[0].strip()):
        lines.pop(0)
    text = "\n".join(lines).rstrip()
    if not text:
        raise TaskError("instruction.md is empty")
    return text


def _patch_of_solution(folder: Path) -> bytes:
    """The reference patch, where the solution is a single patch and no script."""
    patches = [*folder.glob("*.patch"), *folder.glob("*.diff")]
    return patches[0].read_bytes() if len(patches) == 1 and not (folder / "solve.sh").exists() else b""
