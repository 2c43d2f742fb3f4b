"""What every benchmark hands over: ratios of our seconds to those of a named reference, taken in turns in one process.

A ratio is the median over the repeats of ours / theirs, each repeat's two taken one after the other, so that a busy
machine slows both. Less is better, always; a bound is the most that it may be. The interval is the median's own, from
order statistics: at least 95% from 6 repeats on, all that was seen below that, none for a single repeat. It holds what
varied between the repeats of one run, not what differs between two runs or two machines.

    python benchmarks/NAME.py [--quick] [--json FILE]      # exit status 1: a bound was missed

--quick is for whether everything runs: smaller sizes, at which no bound is claimed.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]  # JSON values
_OUTSIDE = 0.025
"""Of the median, on each side of its interval."""


@dataclass(frozen=True, slots=True)
class Ratio:
    benchmark: str
    name: str
    reference: str
    """What the name is divided by."""
    value: float
    low: float | None
    high: float | None
    """The interval; None after a single repeat."""
    repeats: int
    bound: float | None = None

    @property
    def key(self) -> str:
        return f"{self.benchmark}: {self.name} / {self.reference}"

    @property
    def missed(self) -> bool:
        return self.bound is not None and not self.value <= self.bound


@dataclass(frozen=True, slots=True)
class Result:
    """Of one benchmark: either a reason why it was skipped, or its ratios, and the figures behind them."""

    benchmark: str
    ratios: tuple[Ratio, ...] = ()
    details: Json | None = None
    skipped: str = ""


def divided(
    benchmark: str,
    name: str,
    reference: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    bound: float | None = None,
) -> Ratio:
    """Return the ratio of paired times, ours[i] and theirs[i] measured one after the other."""
    each = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    low, high = interval(each) if len(each) > 1 else (None, None)
    return Ratio(benchmark, name, reference, statistics.median(each), low, high, len(each), bound)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the order statistics that hold the median with 95% at least; the extremes where no two of them do."""
    ordered, n = sorted(values), len(values)
    index, outside = 0, 0.5**n
    while (outside := outside + math.comb(n, index + 1) * 0.5**n) <= _OUTSIDE:
        index += 1
    return ordered[index], ordered[n - 1 - index]


def timed(action: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def in_turns(
    actions: Mapping[str, Callable[[], object]], repeats: int, *, warm: bool = False
) -> dict[str, list[float]]:
    """Return the seconds of every action in every repeat; every other repeat goes the other way round.

    warm: an untimed call before each timed one, so that all of them find the memory that they had last.
    """
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(repeats):
        for name in list(actions)[:: -1 if repeat % 2 else 1]:
            if warm:
                actions[name]()
            seconds[name].append(timed(actions[name]))
    return seconds


def parse(doc: str, sizes: Mapping[str, tuple[int, int]], texts: Mapping[str, str] | None = None) -> argparse.Namespace:
    """Read the command line of a benchmark: its sizes, each with one default for full runs and one for --quick."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (full, quick) in sizes.items():
        parser.add_argument(f"--{name}", type=int, help=f"default {full}, with --quick {quick}")
    for name, default in (texts or {}).items():
        parser.add_argument(f"--{name}", default=default, help=f"default {default}")
    parser.add_argument("--quick", action="store_true", help="small sizes, no bounds")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    for name, (full, quick) in sizes.items():
        attribute = name.replace("-", "_")
        if getattr(arguments, attribute) is None:
            setattr(arguments, attribute, quick if arguments.quick else full)
    return arguments


def lacking(*needs: str) -> str:
    """Return why a benchmark cannot run here, or nothing. needs: "docker" for an engine, or names of modules."""
    for need in needs:
        if importlib.util.find_spec(need) is None:
            return f"needs {need}; pip install it"
        if need == "docker":
            import docker

            try:
                with contextlib.closing(docker.from_env()) as client:
                    client.ping()
            except docker.errors.DockerException:
                return "needs a container engine; start one (dockerd)"
    return ""


def report(result: Result, arguments: argparse.Namespace) -> int:
    """Print the ratios, write the file, and return the exit status."""
    ratios = [replace(ratio, bound=None) if arguments.quick else ratio for ratio in result.ratios]
    print("\n".join(table(ratios)) if ratios else f"{result.benchmark} was skipped: {result.skipped}")
    if arguments.json:
        words = sys.argv[1:]
        if "--json" in words:
            where = words.index("--json")
            del words[where : where + 2]
        found: Json = {
            "benchmark": result.benchmark,
            "command": shlex.join(["python", f"benchmarks/{result.benchmark}.py", *words]),
            "date": datetime.now(UTC).date().isoformat(),
            "skipped": result.skipped,
            "ratios": [asdict(ratio) for ratio in ratios],
            "details": result.details or {},
        }
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if any(ratio.missed for ratio in ratios) else 0


def table(ratios: Sequence[Ratio], more: Mapping[str, str] | None = None) -> list[str]:
    """Return one line per ratio under a heading. more: by key, what stands at a line's end."""
    rows = [("ours / reference", "value", "interval", "bound", "")]
    for ratio in ratios:
        spread = "" if ratio.low is None or ratio.high is None else f"{ratio.low:.3g} to {ratio.high:.3g}"
        bound = "" if ratio.bound is None else f"{ratio.bound:g} {'MISSED' if ratio.missed else 'met'}"
        rows.append((ratio.key, f"{ratio.value:.3g}", spread, bound, (more or {}).get(ratio.key, "")))
    first, second, third, fourth = (max(len(row[column]) for row in rows) for column in range(4))
    return [f"{a:<{first}}  {b:>{second}}  {c:<{third}}  {d:<{fourth}}  {e}".rstrip() for a, b, c, d, e in rows]
