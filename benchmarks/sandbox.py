"""Container sandboxes against the plain ways of doing the same, in one run on one machine, in turns (ratios.py).

    python benchmarks/sandbox.py --json benchmarks/results/sandbox.json

    tool call      a command through the persistent guest            / `docker exec` by the SDK (bound 0.1)
    warm start     a sandbox taken from the warm pool, ready to use  / a cold `docker run` of the same image (bound 0.1)
    grading        what a fresh container and the patch add to the tests' own time   / 1 s (bound 1)
    capacity       seconds until 64 sandboxes are up at once, and whether all of them answer

Needs a Docker engine; builds the base image where it is missing. Milliseconds are medians.
"""

import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import docker
from ratios import Ratio, Result, divided, in_turns, lacking, parse, report, timed

from aem_swe.sandboxes import GIT_APPLY, DockerSettings, SandboxLimits
from aem_swe.sandboxes.docker import DockerSandboxes
from aem_swe.sandboxes.images import BASE_TAG, build_base
from aem_swe.types import Task

TASK = Task(
    id="benchmark",
    statement=(),
    files=(("a.py", b"x = 1\n"), ("test_a.py", b"import a\ndef test(): assert a.x == 2\n")),
)
PATCH = b"diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
TESTS = ["python3", "-m", "pytest", "-q", "test_a.py"]
Seconds = dict[str, list[float]]
PROGRAMS = {"/opt/aem/tools/hello.py": "import json\nprint(json.dumps({'hello': 1}))\n"}


def cold_run(client: docker.DockerClient) -> None:
    """What a trainer without a pool does: run a container, and wait until a first command in it has answered."""
    container = client.containers.run(BASE_TAG, ["sleep", "1000"], detach=True, network_mode="none", init=True)
    try:
        container.exec_run(["true"])
    finally:
        container.remove(force=True)


def tool_calls(client: docker.DockerClient, sandboxes: DockerSandboxes, times: int) -> Seconds:
    container = client.containers.run(BASE_TAG, ["sleep", "1000"], detach=True, network_mode="none", init=True)
    try:
        with sandboxes.open(TASK) as sandbox:
            sandbox.run(["true"])
            actions: dict[str, Callable[[], object]] = {
                "docker exec true": lambda: container.exec_run(["true"]),
                "guest true": lambda: sandbox.run(["true"]),
                "guest bash -c": lambda: sandbox.run("echo 1 | cat"),
                "guest tool program": lambda: sandbox.run(["python3", *PROGRAMS]),
            }
            return in_turns(actions, times)
    finally:
        container.remove(force=True)


def starts(client: docker.DockerClient, sandboxes: DockerSandboxes, times: int) -> Seconds:
    def warm() -> float:
        sandboxes.expect([TASK] * 2)
        while len(sandboxes._pool._ready) < 2:
            time.sleep(0.01)
        with contextlib.ExitStack() as opened:
            return timed(lambda: opened.enter_context(sandboxes.open(TASK)).run(["true"]))

    seconds: Seconds = {"docker run, exec": [], "warm open, run": []}
    for _ in range(times):
        seconds["docker run, exec"].append(timed(lambda: cold_run(client)))
        seconds["warm open, run"].append(warm())
    sandboxes.expect([])
    return seconds


def grading(sandboxes: DockerSandboxes, times: int) -> Seconds:
    def fresh() -> None:
        with sandboxes.open(TASK, purpose="grading") as sandbox:
            assert sandbox.run(GIT_APPLY, stdin=PATCH).exit_code == 0
            assert sandbox.run(TESTS).exit_code == 0

    with sandboxes.open(TASK) as sandbox:
        sandbox.run(GIT_APPLY, stdin=PATCH)
        assert sandbox.run(TESTS).exit_code == 0
        return in_turns({"tests alone": lambda: sandbox.run(TESTS), "fresh container, patch, tests": fresh}, times)


def capacity(count: int) -> dict[str, float]:
    limits = SandboxLimits(memory_mb=128, processes=32, disk_mb=16)
    with DockerSandboxes(limits=limits, settings=DockerSettings(warm=0), run="benchmark") as sandboxes:
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as opened:
            made = list(pool.map(lambda _: opened.enter_context(sandboxes.open(TASK)), range(count)))
            up = time.perf_counter() - started
            answers = sum(sandbox.run(["cat", "a.py"]).stdout == b"x = 1\n" for sandbox in made)
    return {"sandboxes": count, "answering at once": answers, "seconds until all are up": up}


def compared(seconds: Seconds) -> tuple[Ratio, ...]:
    fresh, alone = seconds["fresh container, patch, tests"], seconds["tests alone"]
    added = [whole - tests for whole, tests in zip(fresh, alone, strict=True)]
    run, execute, true = "a cold docker run", "docker exec of true", seconds["docker exec true"]
    return (
        divided("sandbox", "a tool program", execute, seconds["guest tool program"], true, 0.1),
        divided("sandbox", "true", execute, seconds["guest true"], true),
        divided("sandbox", "a warm start", run, seconds["warm open, run"], seconds["docker run, exec"], 0.1),
        divided("sandbox", "what grading adds to the tests", "1 s", added, [1.0] * len(added), 1.0),
    )


def main() -> int:
    arguments = parse(__doc__, {"times": (21, 6), "count": (64, 8)})
    if reason := lacking("docker"):
        return report(Result("sandbox", skipped=reason), arguments)
    client = docker.from_env(timeout=120)
    build_base(client)
    with DockerSandboxes(limits=SandboxLimits(), programs=PROGRAMS, settings=DockerSettings(warm=2)) as sandboxes:
        seconds = tool_calls(client, sandboxes, arguments.times)
        seconds |= starts(client, sandboxes, arguments.times)
        seconds |= grading(sandboxes, arguments.times)
    client.close()
    milliseconds = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    for name, value in milliseconds.items():
        print(f"{name:32} {value:9.1f} ms")
    found = capacity(arguments.count)
    print(", ".join(f"{name} {value:.0f}" for name, value in found.items()))
    details = {"milliseconds": milliseconds, "capacity": found}
    return report(Result("sandbox", compared(seconds), details), arguments)


if __name__ == "__main__":
    sys.exit(main())
