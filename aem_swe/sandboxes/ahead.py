"""A sandbox that another thread opens before it is wanted: while a policy generates, nobody waits for it."""

from concurrent.futures import Executor, Future

from aem_swe.sandboxes import Sandboxes
from aem_swe.sandboxes.base import Sandbox
from aem_swe.types import Task


class SandboxAhead:
    """Being opened since it was made. Whoever makes it takes it or closes it."""

    def __init__(self, workers: Executor, sandboxes: Sandboxes, task: Task) -> None:
        self._opened = workers.submit(sandboxes.open, task, purpose="agent")
        self._given_up = False

    def take(self) -> Sandbox:
        """Wait for it. Raises what opening it raised. A thread of `workers` may call this: it was handed in before."""
        return self._opened.result()

    def close(self) -> None:
        """Close it as soon as it is there. More than once is once; not after `take`."""
        if not self._given_up and not self._opened.cancel():
            self._opened.add_done_callback(_close)
        self._given_up = True


def _close(opened: "Future[Sandbox]") -> None:
    if opened.exception() is None:
        opened.result().close()
