"""Container sandboxes against the plain ways of doing the same, in one run on one machine.

    python benchmarks/sandbox.py --json benchmarks/results/sandbox.json

    tool call      a command through the persistent guest            / `docker exec` of the same command by the SDK
    warm start     a sandbox taken from the warm pool, ready to use  / a cold `docker run` of the same image
    grading        fresh container, patch, tests                     - the tests' own time in a container that is there
    capacity       seconds until 64 sandboxes are up at once, and whether all of them answer

Needs a Docker engine; builds the base image where it is missing. Times are medians in milliseconds.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker

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
PROGRAMS = {"/opt/aem/tools/hello.py": "import json\nprint(json.dumps({'hello': 1}))\n"}


def median_ms(action: Callable[[], object], times: int) -> float:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds)


def cold_run(client: docker.DockerClient) -> None:
    """What a trainer without a pool does: run a container, and wait until a first command in it has answered."""
    container = client.containers.run(BASE_TAG, ["sleep", "1000"], detach=True, network_mode="none", init=True)
    try:
        container.exec_run(["true"])
    finally:
        container.remove(force=True)


def tool_calls(client: docker.DockerClient, sandboxes: DockerSandboxes, times: int) -> dict[str, float]:
    container = client.containers.run(BASE_TAG, ["sleep", "1000"], detach=True, network_mode="none", init=True)
    try:
        with sandboxes.open(TASK) as sandbox:
            sandbox.run(["true"])
            found = {"docker exec true": median_ms(lambda: container.exec_run(["true"]), times)}
            found["guest true"] = median_ms(lambda: sandbox.run(["true"]), 5 * times)
            found["guest bash -c"] = median_ms(lambda: sandbox.run("echo 1 | cat"), 5 * times)
            found["guest tool program"] = median_ms(lambda: sandbox.run(["python3", *PROGRAMS]), 5 * times)
            found["docker exec true, after"] = median_ms(lambda: container.exec_run(["true"]), times)
    finally:
        container.remove(force=True)
    return found


def warm_starts(client: docker.DockerClient, sandboxes: DockerSandboxes, times: int) -> dict[str, float]:
    cold = median_ms(lambda: cold_run(client), times)
    seconds = []
    for _ in range(times):
        sandboxes.expect([TASK] * 2)
        while len(sandboxes._pool._ready) < 2:
            time.sleep(0.01)
        started = time.perf_counter()
        sandbox = sandboxes.open(TASK)
        sandbox.run(["true"])
        seconds.append(time.perf_counter() - started)
        sandbox.close()
    sandboxes.expect([])
    return {"docker run, exec": cold, "warm open, run": 1000 * statistics.median(seconds)}


def grading(sandboxes: DockerSandboxes, times: int) -> dict[str, float]:
    def fresh() -> None:
        with sandboxes.open(TASK, purpose="grading") as sandbox:
            assert sandbox.run(GIT_APPLY, stdin=PATCH).exit_code == 0
            assert sandbox.run(TESTS).exit_code == 0

    with sandboxes.open(TASK) as sandbox:
        sandbox.run(GIT_APPLY, stdin=PATCH)
        assert sandbox.run(TESTS).exit_code == 0
        alone = median_ms(lambda: sandbox.run(TESTS), times)
    cold = median_ms(fresh, times)
    return {"tests alone": alone, "fresh container, patch, tests": cold}


def capacity(count: int) -> dict[str, float]:
    limits = SandboxLimits(memory_mb=128, processes=32, disk_mb=16)
    with DockerSandboxes(limits=limits, settings=DockerSettings(warm=0), run="benchmark") as sandboxes:
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as pool, contextlib.ExitStack() as opened:
            made = list(pool.map(lambda _: opened.enter_context(sandboxes.open(TASK)), range(count)))
            up = time.perf_counter() - started
            answers = sum(sandbox.run(["cat", "a.py"]).stdout == b"x = 1\n" for sandbox in made)
    return {"sandboxes": count, "answering at once": answers, "seconds until all are up": up}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=11)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    client = docker.from_env(timeout=120)
    build_base(client)
    with DockerSandboxes(limits=SandboxLimits(), programs=PROGRAMS, settings=DockerSettings(warm=2)) as sandboxes:
        tools = tool_calls(client, sandboxes, arguments.times)
        starts = warm_starts(client, sandboxes, arguments.times)
        grades = grading(sandboxes, arguments.times)
    result: dict[str, Any] = {
        "command": "python " + " ".join(sys.argv),
        "milliseconds": {**tools, **starts, **grades},
        "ratios": {
            "tool call / docker exec (bound 0.1)": tools["guest tool program"] / tools["docker exec true"],
            "true / docker exec true": tools["guest true"] / tools["docker exec true"],
            "warm open / cold docker run (bound 0.1)": starts["warm open, run"] / starts["docker run, exec"],
        },
        "grading adds, ms (bound 1000)": grades["fresh container, patch, tests"] - grades["tests alone"],
        "capacity": capacity(arguments.count),
    }
    client.close()
    for name, value in result["milliseconds"].items():
        print(f"{name:32} {value:9.1f} ms")
    for name, value in result["ratios"].items():
        print(f"{name:42} {value:.3f}")
    print(f"grading adds {result['grading adds, ms (bound 1000)']:.0f} ms to the tests' own time (bound 1000)")
    print(", ".join(f"{name} {value:.0f}" for name, value in result["capacity"].items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
