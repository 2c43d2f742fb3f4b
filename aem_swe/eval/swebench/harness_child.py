"""The official SWE-bench harness in a process of its own, fed with instances over a pipe.

    python -P -m aem_swe.eval.swebench.harness_child SETTINGS      # cwd: where logs/ and the summary go

Requests and answers are JSON lines on standard input and output; what the harness prints goes to standard error. The
grading is swebench's `run_instance` and `make_run_report` as they are. Changed around them:

- containers come from sandboxes/grading_engine.py (no network, limits, labels) and are removed at once, where the
  harness would wait 15 s for `docker stop`;
- a test log ends after 64 MB, because the harness keeps it in memory;
- what went wrong is kept, not only logged, so that the parent can tell a bad patch from a bad machine.

When standard input ends (the parent is gone, or done) all containers are removed and the process ends. It never lowers
RLIMIT_NOFILE, which the harness's own main() does.
"""

import functools
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO  # Any: JSON, and swebench has no types

from aem_swe.errors import AemSweError, SandboxError
from aem_swe.sandboxes._connect import connected
from aem_swe.sandboxes.grading_engine import ContainerLimits, GradingClient, State, capped
from aem_swe.tasks.swebench_grading import harness

MAX_LOG = 64 << 20
_API_TIMEOUT_S = 1800.0
"""As the harness has it."""
_POOL = 128
Json = dict[str, Any]


@dataclass(slots=True)
class Seen:
    """What happened while one instance was graded."""

    error: BaseException | None = None
    """The last one that the harness logged."""
    testing: bool = False
    """Code of the patch may have run."""
    container: State | None = None
    """What the container was doing when the grading ended; None: there was none."""
    works: bool = True
    """A program could still be run in it: what an engine says of a container that is just going away is 'running'."""


_SEEN = threading.local()
"""`now`: the Seen of the instance that this thread grades."""


class _Remember(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _SEEN.now.error = sys.exc_info()[1] or _SEEN.now.error


def prepare_harness() -> Any:
    """Import the harness and put our versions of three of its functions in place."""
    module = harness("run_evaluation")
    set_up, run = module.setup_logger, module.exec_run_with_timeout

    def setup_logger(*arguments: Any, **options: Any) -> Any:
        logger = set_up(*arguments, **options)
        logger.addHandler(_Remember())
        return logger

    def exec_run_with_timeout(container: Any, command: str, timeout: float) -> Any:
        _SEEN.now.testing = True
        api = container.client.api
        client = SimpleNamespace(
            exec_create=api.exec_create, exec_inspect=api.exec_inspect, exec_start=capped(api.exec_start, MAX_LOG)
        )
        bounded = SimpleNamespace(id=container.id, client=SimpleNamespace(api=client), exec_run=container.exec_run)
        return run(bounded, command, timeout)

    def cleanup_container(client: GradingClient, container: Any, _logger: object) -> None:
        if container is not None:
            _SEEN.now.works = client.containers.works(container)
            _SEEN.now.container = client.containers.remove(container)

    module.setup_logger, module.exec_run_with_timeout = setup_logger, exec_run_with_timeout
    module.cleanup_container = cleanup_container
    return module


class Server:
    """Answers the parent's requests."""

    def __init__(self, settings: Json, out: TextIO) -> None:
        self._settings, self._out = settings, out
        self._limits = ContainerLimits(**settings["limits"])
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._clients: dict[str, GradingClient] = {}
        self._resources = ExitStack()
        self._harness = prepare_harness()

    def serve(self, requests: TextIO) -> None:
        """Until the requests end."""
        kinds: dict[str, Callable[[Json], Json]] = {"grade": self.grade, "report": self.report}
        pool = ThreadPoolExecutor(int(self._settings["workers"]) + 1)
        self.answer({"ready": True})
        for line in requests:
            request = json.loads(line)
            future = pool.submit(kinds[request["kind"]], request)
            future.add_done_callback(functools.partial(self._finish, request["number"]))
        for client in list(self._clients.values()):
            client.close()

    def _finish(self, number: int, done: "Future[Json]") -> None:
        error = done.exception()
        said = done.result() if error is None else {"kind": _kind(error), "detail": _said(error)}
        self.answer({"number": number, **said})

    def answer(self, said: Json) -> None:
        with self._writing:
            self._out.write(json.dumps(said) + "\n")
            self._out.flush()

    def client(self, url: str) -> GradingClient:
        """Raises SandboxError where the engine does not answer."""
        with self._lock:
            if url not in self._clients:
                client = self._resources.enter_context(connected(url, timeout=_API_TIMEOUT_S, pool_size=_POOL))
                self._clients[url] = GradingClient(client, self._limits, self._settings["run"])
            return self._clients[url]

    def grade(self, request: Json) -> Json:
        """One instance; what became of it, in words that verdicts.py knows."""
        _SEEN.now = seen = Seen()
        client = self.client(request["engine"])
        spec = self._harness.make_test_spec(request["row"])
        prediction = {
            "instance_id": spec.instance_id,
            "model_name_or_path": self._settings["model"],
            "model_patch": request["patch"],
        }
        done = self._harness.run_instance(
            spec, prediction, client, self._settings["run_id"], self._settings["timeout_s"]
        )
        report = done[1][spec.instance_id] if done else None
        trouble = {"kind": _kind(seen.error), "detail": _said(seen.error)} if seen.error else {"kind": "harness"}
        return {
            "kind": "graded",
            **({} if done else trouble),
            "report": report,
            "testing": seen.testing,
            "container": seen.container,
            "works": seen.works,
            "answers": client.answers(),
        }

    def report(self, request: Json) -> Json:
        """The summary of the official command, over all instances of the data set."""
        rows = [json.loads(line) for line in Path(request["rows"]).read_text("utf-8").splitlines()]
        self._harness.write_run_metadata(self._settings["run_id"], request["dataset"], "test", None)
        model = self._settings["model"]
        predictions = {
            identity: {"instance_id": identity, "model_name_or_path": model, "model_patch": patch}
            for identity, patch in request["predictions"].items()
        }
        client = next((client for client in self._clients.values() if client.answers()), None)
        file = self._harness.make_run_report(predictions, rows, self._settings["run_id"], client, ".")
        return {"kind": "reported", "file": str(file)}


def _kind(error: BaseException) -> str:
    """Whose failure it is: the patch's (does_not_apply, timeout), the machine's (world) or the harness's own."""
    said = str(getattr(error, "super_str", ""))
    if said and error.__cause__ is None:  # the harness's own error, not one that it passes on
        if said.startswith(harness("constants").APPLY_PATCH_FAIL):
            return "does_not_apply"
        if said.startswith("Test timed out"):
            return "timeout"
        return "world"
    error = error.__cause__ or error
    mistake = isinstance(error, ValueError | LookupError | TypeError | AttributeError) and not isinstance(
        error, OSError
    )
    return "harness" if mistake and not isinstance(error, SandboxError) else "world"


def _said(error: BaseException) -> str:
    said = getattr(error, "super_str", None) or str(error)
    return said if isinstance(error, AemSweError) or hasattr(error, "super_str") else f"{type(error).__name__}: {said}"


def main() -> None:
    """Serve until standard input ends, then leave at once: threads that still wait for a container have none now."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the harness prints
    Server(json.loads(sys.argv[1]), out).serve(sys.stdin)
    os._exit(0)


if __name__ == "__main__":
    main()
