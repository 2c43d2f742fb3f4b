"""What a local sandbox costs per call, next to `subprocess.run` of the same command on the host.

One run times all of it, interleaved, so that a busy machine slows both sides of a ratio. Bounds: a tool call (`true`,
grep, a preloaded program) takes at most 10 ms (median), and a preloaded program is faster than an interpreter started
on the host (exit status 1 if missed). "64 at once" is the time per sandbox when two threads open, use and close 64.
Not covered: what a command itself computes, which is the same inside and outside.

    python benchmarks/sandbox_local.py --json sandbox_local.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from aem_swe.sandboxes import SandboxLimits
from aem_swe.sandboxes.local import LocalSandboxes
from aem_swe.types import Task

MAX_CALL_MS = 10.0
PROGRAM = "/opt/aem/count.py"
SOURCE = "import json\nimport re\nimport sys\nprint(json.dumps(len(re.findall('x', sys.stdin.read()))))\n"
FILES = tuple((f"src/module_{i}.py", f"def f_{i}(n):\n    return n + {i}\n".encode() * 20) for i in range(8))
CALLS = ("true", "grep", "program")


def commands(program: str) -> dict[str, list[str]]:
    return {"true": ["true"], "grep": ["grep", "-rn", "f_3", "."], "program": ["python3", program]}


@contextmanager
def timed(times: list[float]) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    times.append(1e3 * (time.perf_counter() - begin))


def measure(sandboxes: LocalSandboxes, host: Path, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every call; each repeat opens one sandbox, and does the same on the host."""
    times: dict[str, list[float]] = {
        name: [] for name in ("create + prepare", "first call", *CALLS, *(f"{c}, host" for c in CALLS), "diff", "close")
    }
    task = Task(id="benchmark", statement=(), files=FILES)
    inside, outside = commands(PROGRAM), commands(str(host / "count.py"))
    for _ in range(repeats):
        with timed(times["create + prepare"]):
            sandbox = sandboxes.open(task)
        with timed(times["first call"]):
            sandbox.run(["true"])
        for name in CALLS:
            with timed(times[name]):
                sandbox.run(inside[name], stdin=b"x" * 100)
            with timed(times[f"{name}, host"]):
                run_on_host(outside[name], host / "repository")
        sandbox.write("src/module_0.py", b"changed\n")
        with timed(times["diff"]):
            sandbox.diff()
        with timed(times["close"]):
            sandbox.close()
    return times


def run_on_host(argv: Sequence[str], folder: Path) -> None:
    subprocess.run(argv, cwd=folder, input=b"x" * 100, capture_output=True, check=True)


def at_once(sandboxes: LocalSandboxes, count: int) -> dict[str, float]:
    """Milliseconds per sandbox when two threads drive `count` of them, as an RL step does."""
    task = Task(id="benchmark", statement=(), files=FILES)
    times: dict[str, list[float]] = {"open": [], "program": [], "close": []}
    with ThreadPoolExecutor(2) as pool:
        with timed(times["open"]):
            opened = list(pool.map(lambda _: sandboxes.open(task), range(count)))
        with timed(times["program"]):
            list(pool.map(lambda sandbox: sandbox.run(["python3", PROGRAM], stdin=b"x"), opened))
        with timed(times["close"]):
            list(pool.map(lambda sandbox: sandbox.close(), opened))
    return {name: values[0] / count for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50, help="default 50")
    parser.add_argument("--count", type=int, default=64, help="sandboxes at once, default 64")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        host = Path(folder)
        (host / "count.py").write_text(SOURCE)
        for path, content in FILES:
            (host / "repository" / path).parent.mkdir(parents=True, exist_ok=True)
            (host / "repository" / path).write_bytes(content)
        with LocalSandboxes(limits=SandboxLimits(), programs={PROGRAM: SOURCE}) as sandboxes:
            where = f"{sandboxes.mode}, memory limit by {sandboxes.memory}"
            measure(sandboxes, host, 3)
            times = measure(sandboxes, host, arguments.repeats)
            at_once(sandboxes, arguments.count)
            burst = at_once(sandboxes, arguments.count)

    median = {name: statistics.median(values) for name, values in times.items()}
    p95 = {name: statistics.quantiles(values, n=20)[-1] for name, values in times.items()}
    print(f"local sandboxes as {where}\n{'ms':<24}{'p50':>8}{'p95':>8}")
    for name in times:
        print(f"{name:<24}{median[name]:8.2f}{p95[name]:8.2f}")
    for name in CALLS:
        print(f"{name + ' / host':<24}{median[name] / median[f'{name}, host']:8.2f}")
    for name, value in burst.items():
        print(f"{arguments.count} at once, {name:<12}{value:8.2f}")
    met = all(median[name] <= MAX_CALL_MS for name in CALLS) and median["program"] < median["program, host"]
    print(f"calls <= {MAX_CALL_MS:g} ms and program < program, host (medians): {'met' if met else 'MISSED'}")
    if arguments.json:
        result = {"where": where, "median_ms": median, "p95_ms": p95, "at_once_ms": burst, "met": met}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
