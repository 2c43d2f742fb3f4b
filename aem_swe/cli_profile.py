"""`aem-swe profile`: where the time of a run goes, stage by stage, summing up to the wall time."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from aem_swe.errors import ConfigError

LONGEST_LINE = 1_000
RECORDED = ("spans.jsonl", "metrics.jsonl", "config.yaml", "manifest.json")


def profile(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [RUN2]", help="One run folder, or two to compare.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with a step's waterfall there.")] = None,
    data: Annotated[Path | None, typer.Option("--json", help="Write every number there.")] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write one step there as a Chrome trace, for ui.perfetto.dev.")
    ] = None,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-above",
            metavar="STAGE=5%",
            help="Exit with 1 if a stage is more of the wall time than that, or more seconds a step (STAGE=2s); "
            "tool means all tools, residual what is not attributed. Repeatable.",
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(
            "--step",
            min=0,
            help="The step for --trace and --html; 0: the evaluation before training [default: the slowest].",
        ),
    ] = None,
) -> None:
    """Say where the time of a run goes, in stages that sum to the wall time; of two runs, what differs.

    Examples: `aem-swe profile runs/a`, `aem-swe profile runs/a runs/b --html profile.html`, `aem-swe profile runs/a
    --fail-above tool=10% --fail-above residual=2%`.
    """
    from aem_swe.eval.profile import measured
    from aem_swe.eval.profile.bounds import exceeded, parse_bounds
    from aem_swe.eval.visible import visible_line

    _check(runs, trace)
    _check_outputs(runs, {"--html": html, "--json": data, "--trace": trace})
    bounds = parse_bounds(fail_above or [])
    found = measured.measure_all(runs, step)
    for line in measured.lines(found):
        print(visible_line(line, LONGEST_LINE))
    profiles = [one.profile for one in found.runs]
    broken = list(exceeded(profiles, bounds))
    if html:
        from aem_swe.eval.profile.page import write_page

        write_page(found, html)
        print(f"written: {html}")
    if data:
        _write(data, measured.data(found), "--json")
    if trace:
        from aem_swe.eval.profile.trace import build_trace

        shown = profiles[0].slowest if step is None else profiles[0].step(step)
        _write(trace, build_trace(shown.spans), "--trace")
    if broken:
        print(visible_line(f"failed: {'; '.join(broken)}", LONGEST_LINE))
        raise typer.Exit(1)


def _check(runs: list[Path], trace: Path | None) -> None:
    """Raises ConfigError where these runs cannot be shown together."""
    if len(runs) > 2:
        raise ConfigError(f"{len(runs)} runs are given; profile takes one, or two to compare")
    if len({os.path.realpath(run) for run in runs}) < len(runs):
        raise ConfigError(f"run {str(runs[0])!r} is given twice; give two different runs")
    if trace and len(runs) > 1:
        raise ConfigError("--trace shows a step of one run; leave the other run out")


def _check_outputs(runs: list[Path], outputs: dict[str, Path | None]) -> None:
    """Raises ConfigError where an option would overwrite what a run has recorded, or what another option writes."""
    taken = {os.path.realpath(run / name): "a file of the run itself" for run in runs for name in RECORDED}
    for option, out in outputs.items():
        if out is None:
            continue
        place = os.path.realpath(out)
        if place in taken:
            raise ConfigError(f"{option} {str(out)!r} is {taken[place]}; choose another {option}")
        taken[place] = f"{option}'s file as well"


def _write(out: Path, content: dict[str, object], option: str) -> None:
    from aem_swe.eval.report import write_whole  # brings the plots with it, which take a second to import

    write_whole(out, json.dumps(content, allow_nan=False) + "\n", option)
    print(f"written: {out}")
