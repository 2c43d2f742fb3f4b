"""`aem-swe verify`: the paper's claims, checked."""

import json
import math
import os
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aem_swe import __version__
from aem_swe.cli_ablations import ablations
from aem_swe.cli_dynamics import dynamics
from aem_swe.cli_files import image_format
from aem_swe.cli_training import training
from aem_swe.errors import ConfigError

if TYPE_CHECKING:
    from aem_swe.theory import Result

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""The claims of the AEM paper (arXiv 2605.00425), checked one by one.

Try it: `aem-swe verify theory` takes seconds.""",
)


app.command()(dynamics)
app.command()(training)
app.command()(ablations)


@app.callback()
def _group() -> None:
    pass


@app.command()
def theory(
    data: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every result there.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw the three-action simplex there (.png or .svg)."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random policies that are checked.")] = 0,
) -> None:
    """Check the theorems on random policies small enough to enumerate, and that wrong versions of them fail.

    Statements need a largest error below their bound, controls (one ingredient wrong) a median above theirs; exit 1
    if any does not meet it. docs/theory.md says how each is checked.
    """
    image = _image(plot, data)
    from aem_swe.theory import verify  # numpy

    started = time.perf_counter()
    results = verify(seed)
    seconds = time.perf_counter() - started
    _print_table(results)
    good = sum(result.passed for result in results)
    print(f"{good} of {len(results)} checks passed (seed {seed}, {seconds:.0f} s)")
    if data:
        from aem_swe.eval.report import write_whole

        write_whole(data, json.dumps(_data(results, seed), indent=1, allow_nan=False) + "\n", "--json")
        print(f"written: {data}")
    if plot:
        from aem_swe.eval.report import write_whole
        from aem_swe.eval.simplex import draw_simplex

        write_whole(plot, draw_simplex(image), "--plot")
        print(f"written: {plot}")
    if good < len(results):
        raise typer.Exit(1)


@app.command("all")
def everything(
    report: Annotated[Path, typer.Option("--report", metavar="FILE", help="Write the page there (Markdown).")],
    results: Annotated[
        Path, typer.Option("--results", metavar="FOLDER", help="Result files; theory.json is made anew.")
    ] = Path("benchmarks/results"),
) -> None:
    """Check the theorems and write the page of all claims: verdict, figure, command and date of each.

    Everything else comes from result files, made by the commands that the page names; a claim without one is "not run".
    """
    from aem_swe.eval.ledger import Results, counts, load_claims, make_ledger
    from aem_swe.eval.report import write_whole
    from aem_swe.eval.reproduction import page
    from aem_swe.theory import verify

    read = Results(results)
    if report.suffix == ".json":
        raise ConfigError(f"--report {str(report)!r} is named like a result file; choose a name that ends in .md")
    data = _data(verify(seed=0), seed=0) | {"date": date.today().isoformat()}
    write_whole(results / "theory.json", json.dumps(data, indent=1, allow_nan=False) + "\n", "--results")
    claims = load_claims()
    entries = make_ledger(claims, read)
    write_whole(report, page(claims, entries), "--report")
    print(f"{len(entries)} claims: {', '.join(counts(entries))}")
    print(f"written: {report}")
    if any(entry.finding.status == "fails" for entry in entries):
        raise typer.Exit(1)


def _image(plot: Path | None, data: Path | None) -> Literal["png", "svg"]:
    """The form of the figure by its name. Raises ConfigError for others, and for one file asked for twice."""
    if plot and data and os.path.realpath(plot) == os.path.realpath(data):
        raise ConfigError(f"--plot {str(plot)!r} is --json's file as well; choose another --plot")
    return image_format(plot)


def _print_table(results: "tuple[Result, ...]") -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("claim", no_wrap=True)
    table.add_column("compared, or replaced in a control", ratio=1)
    for name in ("instances", "error", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ok")
    for one in results:
        control = one.kind == "control"
        error = f"median {one.median_error:.1e}" if control else f"max {one.max_error:.1e}"
        bound = f"{'>' if control else '<'} {one.bound:.0e}"
        said = f"control: {one.compared}" if control else one.compared
        table.add_row(one.claim, escape(said), str(one.instances), error, bound, "yes" if one.passed else "NO")
    Console(width=None if Console().is_terminal else 140).print(table)


def _data(results: "tuple[Result, ...]", seed: int) -> dict[str, object]:
    """No times and no dates: the same seed on the same libraries gives the same file."""
    rows = [
        {
            "claim": one.claim,
            "compared": one.compared,
            "kind": one.kind,
            "instances": one.instances,
            "max_error": _finite(one.max_error),
            "median_error": _finite(one.median_error),
            "bound": one.bound,
            "passed": one.passed,
        }
        for one in results
    ]
    return {"aem_swe": __version__, "seed": seed, "passed": all(one.passed for one in results), "checks": rows}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
