"""The reward `hardened` of R2E-Gym's tasks: the original's oracle, reached by a run that a patch cannot easily forge.

In a fresh sandbox: pytest's configuration is copied, the patch is applied without what docs/grading.md drops, hidden
tests and test configuration come from the trusted copies, a fixed command runs under a trusted parent, and what it
printed is checked before it is compared with the expected results.
"""

import secrets
from dataclasses import dataclass, replace

from aem_swe.sandboxes.base import Sandbox
from aem_swe.tasks import trusted_run
from aem_swe.tasks.hidden_tests import FOLDER, HiddenTests
from aem_swe.tasks.patch_policy import Patch, excluded, prepare
from aem_swe.tasks.status_map import difference, listed_statuses
from aem_swe.tasks.trusted_run import FixedCommand, run_tests
from aem_swe.types import Graded, Task

TIMEOUT_S = 300.0
PYTHON = ".venv/bin/python"
_DISPLAY = {"orange3": ("xvfb-run", "--auto-servernum")}
"""Repositories whose tests need an X server, and the command that R2E-Gym gives them."""
_ENVIRONMENT = {"orange3": (("QT_QPA_PLATFORM", "minimal"),)}
_RUNNERS = ("unittest_custom_runner.py", "tornado_unittest_runner.py")
"""Test programs that rows of Pillow and Tornado bring, to be run instead of pytest."""


def fixed_command(repository: str, names: tuple[str, ...]) -> FixedCommand:
    """The fixed command of a row, from its repository and the names of its test files."""
    for runner in _RUNNERS:
        if runner in names:
            return FixedCommand(PYTHON, script=f"{FOLDER}/{runner}")
    wrapper, environment = _DISPLAY.get(repository, ()), _ENVIRONMENT.get(repository, ())
    return FixedCommand(PYTHON, arguments=("-rA", FOLDER), wrapper=wrapper, environment=environment)


@dataclass(frozen=True, slots=True)
class HardenedGrader:
    """Judges a patch for one R2E-Gym row."""

    tests: HiddenTests
    expected: tuple[tuple[str, str], ...]
    """(test, status), as the row has them."""
    run: FixedCommand
    timeout_s: float = TIMEOUT_S

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        files = self.tests.collect(task, sandbox)
        command = files.pop("run_tests.sh", b"")
        prepared = prepare(
            task,
            sandbox,
            [Patch(diff, tuple(excluded(["run_tests.sh"])))],
            files={**files, **({"run_tests.sh": command} if command else {})},
            clear=[FOLDER],
            stem=f".aem-{secrets.token_hex(8)}-",
        )
        if isinstance(prepared, Graded):
            return prepared
        prepared = replace(prepared, names=(*prepared.names, FOLDER))  # no other package of that name comes first
        summary = run_tests(task, sandbox, self.run, prepared, self.timeout_s)
        if isinstance(summary, Graded):
            return summary
        differs = difference(listed_statuses(summary.text), dict(self.expected))
        if differs is None:
            return Graded(1.0, "tests_passed")
        return Graded(0.0, "tests_failed", output=f"{differs}\n{summary.shown}")


def grading_programs() -> dict[str, str]:
    """{path in a sandbox: source} of the programs that have to be preloaded for this grader."""
    return trusted_run.programs()
