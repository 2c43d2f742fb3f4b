"""What a local sandbox costs per call, next to `subprocess.run` of the same command on the host.

One run times all of it in turns (ratios.py). Bounds: the slowest of three tool calls (`true`, grep, a preloaded
program) takes at most 10 ms, and a preloaded program is faster than an interpreter started on the host (exit status 1
if missed). "64 at once" is the time per sandbox when two threads open, use and close 64.
Not covered: what a command itself computes, which is the same inside and outside.

    python benchmarks/sandbox_local.py --json sandbox_local.json
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ratios import Ratio, Result, divided, parse, report

from aem_swe.errors import SandboxUnavailable
from aem_swe.sandboxes import SandboxLimits
from aem_swe.sandboxes.local import LocalSandboxes
from aem_swe.types import Task

MAX_CALL_MS, MAX_PROGRAM = 10.0, 1.0
SIZES = {"repeats": (50, 8), "count": (64, 8)}
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


def compared(times: dict[str, list[float]]) -> tuple[Ratio, ...]:
    slowest = max((times[name] for name in CALLS), key=statistics.median)
    bounds = {"program": MAX_PROGRAM}
    return (
        divided("sandbox_local", "the slowest call", "10 ms", slowest, [MAX_CALL_MS] * len(slowest), 1.0),
        *(
            divided(
                "sandbox_local", name, "subprocess.run of it", times[name], times[f"{name}, host"], bounds.get(name)
            )
            for name in CALLS
        ),
    )


def main() -> int:
    arguments = parse(__doc__, SIZES)
    with TemporaryDirectory() as folder:
        host = Path(folder)
        (host / "count.py").write_text(SOURCE)
        for path, content in FILES:
            (host / "repository" / path).parent.mkdir(parents=True, exist_ok=True)
            (host / "repository" / path).write_bytes(content)
        try:
            sandboxes = LocalSandboxes(limits=SandboxLimits(), programs={PROGRAM: SOURCE})
        except SandboxUnavailable as error:
            return report(Result("sandbox_local", skipped=str(error)), arguments)
        with sandboxes:
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
    for name, value in burst.items():
        print(f"{arguments.count} at once, {name:<12}{value:8.2f}")
    details = {"where": where, "median_ms": median, "p95_ms": p95, "at_once_ms": burst}
    return report(Result("sandbox_local", compared(times), details), arguments)


if __name__ == "__main__":
    sys.exit(main())
