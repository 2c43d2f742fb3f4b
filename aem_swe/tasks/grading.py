"""What a grader is, and how a patch gets into the fresh sandbox that it is judged in.

The reward table is DESIGN's: 1 if the trusted tests ran and met their oracle, 0 if they did not, 0 with the reason
`forged` if the result cannot be trusted, `tests_timeout` if they ran into their limit. A sandbox that fails raises
SandboxError, and whoever drives the episode retries it; it never becomes a 0 here.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from aem_swe.sandboxes.base import GIT_APPLY, Sandbox
from aem_swe.types import Graded, Task, Termination


class Grader(Protocol):
    """Turns a patch into a verdict with tests that the agent never saw. Implementations are picklable."""

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        """Judge `diff` in a sandbox that was freshly made from `task`. Raises SandboxError if the sandbox failed."""


@runtime_checkable
class PatchGrader(Grader, Protocol):
    """A grader that has containers of its own, so that nobody has to make it a sandbox."""

    def grade_patch(self, task: Task, diff: bytes) -> Graded:
        """Judge `diff`. Raises SandboxError if it cannot."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A task for the agent and, apart from it, its grader and the reference fix."""

    task: Task
    grader: Grader
    gold: bytes = b""
    """The fix that upstream made, as a git diff; empty where none is known."""
    version: str = ""
    """Differs between two versions of a task that nothing else here tells apart."""


def apply_patch(task: Task, diff: bytes, sandbox: Sandbox) -> Graded | None:
    """Apply `diff`; return a reward of 0 with its reason where that cannot be done, else None."""
    if not diff:
        return None
    result = sandbox.run(GIT_APPLY, cwd=task.workdir, stdin=diff)
    return (
        None
        if result.exit_code == 0
        else Graded(0.0, "patch_does_not_apply", output=result.stderr.decode("utf-8", "replace"))
    )


def conclude(termination: Termination, graded: Graded | None) -> tuple[Termination, float | None, str]:
    """Return how an episode has ended, its reward and the reason. A grader that could not judge is a failure of the
    infrastructure."""
    if graded is not None and graded.reward is None:
        termination = Termination.INFRASTRUCTURE_ERROR
    if termination is Termination.INFRASTRUCTURE_ERROR:
        return termination, None, graded.reason if graded else "infrastructure_error"
    return (termination, graded.reward, graded.reason) if graded else (termination, 0.0, "not_graded")
