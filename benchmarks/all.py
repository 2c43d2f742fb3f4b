"""Every benchmark that gives ratios, one after the other: one table, one file, and what moved since a stored run.

    python benchmarks/all.py --baseline benchmarks/results/baseline.json        # about 15 minutes; `make benchmarks`
    python benchmarks/all.py --json benchmarks/results/baseline.json --out benchmarks/results        # store it anew
    python benchmarks/all.py --only aem generation --quick

Each runs in a process of its own. What a machine cannot run (no container engine, no GPU, no swebench) is named with
the reason. baseline.py says when a ratio has moved. Exit status: 1 where a bound was missed, or, with --strict, where a
ratio moved to the worse; 2 where a benchmark broke.
Not covered: `aem-swe verify training`, which is hours of training and no ratio.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from baseline import MOVED, TOLERANCE, Change, compare, differences
from ratios import Json, Ratio, table

HERE = Path(__file__).resolve().parent
NAMES = (
    "aem",
    "aem_share",
    "generation",
    "demo_step",
    "profiling",
    "sandbox_local",
    "sandbox",
    "grading",
    "evaluation",
    "gpu",
)
"""Files here; any that is run with --json leaves a result (ratios.py)."""
LAST_LINES = 12


@dataclass(slots=True)
class Collected:
    """What the benchmarks left."""

    ratios: list[Ratio] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    """The last lines that it printed."""
    details: Json = field(default_factory=dict)

    def add(self, name: str, result: Json) -> None:
        if result["skipped"]:
            self.not_run[name] = result["skipped"]
        self.ratios += [Ratio(**values) for values in result["ratios"]]
        self.details[name] = result["details"]


def run(name: str, folder: Path, *, quick: bool, collected: Collected) -> None:
    """Run one benchmark. It broke where it left no result, whatever its exit status."""
    path = folder / f"{name}.json"
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(path), *(["--quick"] if quick else [])]
    done = subprocess.run(
        command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if path.is_file():
        collected.add(name, json.loads(path.read_text()))
    else:
        collected.broken[name] = "\n".join(done.stdout.splitlines()[-LAST_LINES:])


def about(quick: bool) -> Json:
    """What the numbers belong to."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = ""
    return {
        "machine": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git.stdout.strip(),
        "load before": round(os.getloadavg()[0], 2),
        "quick": quick,
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def lines(collected: Collected, changes: Mapping[str, Change]) -> list[str]:
    """The table, and below it all that has no line in it."""
    shown = table(collected.ratios, {key: change.line for key, change in changes.items()}) if collected.ratios else []
    shown += [f"not run: {name}, {reason}" for name, reason in collected.not_run.items()]
    shown += [f"BROKEN: {name}\n{output}" for name, output in collected.broken.items()]
    shown += [f"gone: {key}, {change.line}" for key, change in changes.items() if change.verdict == "gone"]
    absent = Counter((change.benchmark, change.reason) for change in changes.values() if change.verdict == "not run")
    shown += [f"not compared: {count} of {name} ({reason})" for (name, reason), count in absent.items()]
    moved = [change for change in changes.values() if change.verdict in MOVED]
    shown += [f"MOVED: {change.key}, {change.line}" for change in moved]
    if changes and not moved:
        shown.append("nothing moved")
    return shown


def status(collected: Collected, changes: Mapping[str, Change], *, strict: bool) -> int:
    if collected.broken:
        return 2
    worse = strict and any(change.verdict == "worse" for change in changes.values())
    return 1 if worse or any(ratio.missed for ratio in collected.ratios) else 0


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="small sizes, no bounds: does everything run?")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--out", type=Path, help="keep the result of each benchmark in this folder")
    parser.add_argument("--baseline", type=Path, help="a file of --json to compare with")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help=f"default {TOLERANCE}")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where a ratio moved to the worse")
    return parser.parse_args(words)


def read_baseline(path: Path | None, quick: bool) -> Json | None:
    """Read it before anything is measured, so that a mistake costs no quarter of an hour."""
    if path is None:
        return None
    if not path.is_file():
        sys.exit(f"--baseline {path} does not exist; make it with --json {path}")
    stored: Json = json.loads(path.read_text())
    if stored["about"]["quick"] != quick:
        sys.exit(f"--baseline {path} was measured {'with' if not quick else 'without'} --quick; sizes must be the same")
    return stored


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(words)
    stored = read_baseline(arguments.baseline, arguments.quick)
    machine, collected = about(arguments.quick), Collected()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            begin = time.perf_counter()
            print(f"{name} ...", end="", flush=True)
            run(name, Path(folder), quick=arguments.quick, collected=collected)
            print(f" {time.perf_counter() - begin:.0f} s", flush=True)
            if arguments.out and name not in collected.not_run and name not in collected.broken:
                shutil.copy(Path(folder, f"{name}.json"), arguments.out)
    changes: dict[str, Change] = {}
    if stored:
        absent = {name: "not asked for" for name in NAMES if name not in arguments.only}
        absent |= dict.fromkeys(collected.broken, "broken") | collected.not_run
        before = [Ratio(**values) for values in stored["ratios"]]
        changes = compare(before, collected.ratios, absent, arguments.tolerance)
        for line in differences(stored["about"], machine):
            print(f"another machine than the baseline's: {line}")
    print("\n".join(lines(collected, changes)))
    if arguments.json:
        found = {"about": machine, **asdict(collected), "changes": [asdict(change) for change in changes.values()]}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return status(collected, changes, strict=arguments.strict)


if __name__ == "__main__":
    sys.exit(main())
