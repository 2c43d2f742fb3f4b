"""What recording spans costs a training step of the demo: by counting, and by trying.

    spans of a step     how many there are, times what one costs    / the step (bound 0.01)
    step recorded       the same step with a recording              / without one (its interval is the answer)

The cost of a span is measured around nothing, in the thread that measures, with its line written to a file, as often as
a step has spans. The same step of `demo_aem` is taken again and again, in turns with and without a recording, at a
learning rate that moves no weight, so both do the same work; the first of each is not counted.

    python benchmarks/profiling.py --json benchmarks/results/profiling.json
"""

import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from ratios import Result, divided, in_turns, parse, report

from aem_swe.config import load_recipe
from aem_swe.engines.local import trainer
from aem_swe.errors import SandboxUnavailable
from aem_swe.metrics import RunFolder
from aem_swe.profiling import flush, recording, span

MAX_SHARE = 0.01
SIZES = {"repeats": (15, 3), "prompts": (4, 2), "rollouts": (8, 4)}
OVERRIDES = ["optimizer.lr=1e-30", "trainer.eval_every=0", "trainer.save_every=0"]
OFF, ON = "without a recording", "with one"


def span_seconds(path: Path, spans: int) -> float:
    """Seconds of one span, on the average of so many, the writing included."""
    with recording(path), span("step", step=1), span("agent", episode="0/0", task="demo-1", turn=1):
        begin = time.perf_counter()
        for _ in range(spans):
            with span("tool/search", tool="search"):
                pass
        flush()
        return (time.perf_counter() - begin) / spans


def unrecorded_seconds(spans: int) -> float:
    """The same without a recording."""
    begin = time.perf_counter()
    for _ in range(spans):
        with span("tool/search", tool="search"):
            pass
    return (time.perf_counter() - begin) / spans


def main() -> int:
    arguments = parse(__doc__, SIZES)
    sizes = [f"sampling.{name}={getattr(arguments, name)}" for name in ("prompts", "rollouts")]
    with TemporaryDirectory() as name, ExitStack() as resources:
        folder = Path(name)
        recipe = load_recipe("demo_aem", [*OVERRIDES, *sizes, f"run_dir={folder / 'run'}"])
        try:
            run = trainer._open_run(recipe, RunFolder(folder / "run"), None, resources)
        except SandboxUnavailable as error:
            return report(Result("profiling", skipped=str(error)), arguments)
        resources.enter_context(run.folder.locked())

        def step(path: Path | None) -> None:
            with recording(path), span("step", step=1):
                trainer._train_step(run, 1)

        counted = folder / "counted.jsonl"
        step(None)
        step(counted)
        spans = len(counted.read_text().splitlines())
        seconds = in_turns({OFF: lambda: step(None), ON: lambda: step(folder / "spans.jsonl")}, arguments.repeats)
        costs = [span_seconds(folder / f"cost{repeat}.jsonl", spans) for repeat in range(arguments.repeats)]
    off_us = 1e6 * min(unrecorded_seconds(spans) for _ in range(arguments.repeats))
    ratios = (
        divided("profiling", "spans of a step", "the step", [spans * cost for cost in costs], seconds[OFF], MAX_SHARE),
        divided("profiling", "step recorded", "unrecorded", seconds[ON], seconds[OFF]),
    )
    cost_us = 1e6 * statistics.median(costs)
    print(f"{spans} spans a step; one costs {cost_us:.1f} us, {off_us:.2f} us without a recording")
    details = {"spans per step": spans, "us per span": cost_us, "us per span, off": off_us, "seconds": seconds}
    return report(Result("profiling", ratios, details), arguments)


if __name__ == "__main__":
    sys.exit(main())
