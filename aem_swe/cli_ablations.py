"""`aem-swe verify ablations`: AEM's choices and the filter's semantics on one page; cli_verify.py registers it."""

import json
import os.path
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from aem_swe.cli_files import PlotOption, image_format, page_option, require_different_files
from aem_swe.errors import ConfigError

if TYPE_CHECKING:
    from aem_swe.eval.ablations import Json
    from aem_swe.eval.training_result import Result

_RESULTS: Final = Path("benchmarks/results")
_MAKES: Final = {"dynamics": "aem-swe verify dynamics --confirm --json", "training": "aem-swe verify training --json"}
"""The command that makes each half, less the file."""


def ablations(
    dynamics: Annotated[
        Path | None,
        typer.Option("--dynamics", metavar="FILE", help=f"Of verify dynamics. [{_RESULTS / 'dynamics.json'}]"),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option("--training", metavar="FILE", help=f"Of verify training. [{_RESULTS / 'training.json'}]"),
    ] = None,
    plot: PlotOption = None,
    page: Annotated[Path | None, page_option("docs/ablations.md")] = None,
    data: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what the tables show.")] = None,
) -> None:
    """Show every choice of AEM, one changed at a time, and the filter's semantics: one page, one figure.

    Measures nothing: reads results of `aem-swe verify dynamics` and `aem-swe verify training`. With one of the two it
    shows that half and says what is missing. docs/ablations.md explains the rows.
    """
    from aem_swe.eval.ablations_table import MARKS
    from aem_swe.eval.pages import read_page

    image_format(plot)
    given = {"dynamics": dynamics, "training": training}
    files = {name: path or _RESULTS / f"{name}.json" for name, path in given.items()}
    inputs = {f"--{name}": path for name, path in files.items()}
    require_different_files({**inputs, "--json": data, "--plot": plot, "--markdown": page})
    if page:
        read_page(page, MARKS)
    missing = _missing(files, given)
    effects, runs = _read(files, missing)
    _show(effects, runs, list(missing.values()))
    _write(effects, runs, list(missing.values()), data, plot, page)


def _missing(files: dict[str, Path], given: dict[str, Path | None]) -> dict[str, str]:
    """A sentence for each half without its file. Raises ConfigError where that is both, or one named by the user."""
    absent = [name for name, path in files.items() if not os.path.isfile(path)]  # False for a name that is too long
    how = {name: f"`{_MAKES[name]} {files[name]}` makes it" for name in absent}
    for name in absent:
        if given[name]:
            raise ConfigError(f"--{name} {str(files[name])!r} is no file; {how[name]}")
    if len(absent) == len(files):
        commands = "; ".join(f"{files[name]}: {how[name]}" for name in absent)
        raise ConfigError(
            f"no result is there ({commands}); run them in a checkout, or name files by --dynamics and --training"
        )
    return {name: f"Missing: {files[name]}; {how[name]}." for name in absent}


def _read(files: dict[str, Path], missing: dict[str, str]) -> "tuple[Json | None, Result | None]":
    """The results that are there. Raises ConfigError for one that is no such result."""
    from aem_swe.eval import dynamics_result, training_result
    from aem_swe.eval.training_table import filter_arms

    effects = None if "dynamics" in missing else dynamics_result.read_result(files["dynamics"], "--dynamics")
    runs = None if "training" in missing else training_result.read_result(files["training"], "--training")
    if runs and not filter_arms(runs):
        raise ConfigError(
            f"--training {str(files['training'])!r} has no contrast of truncation; name a result of eval/training.yaml"
        )
    return effects, runs


def _show(effects: "Json | None", runs: "Result | None", missing: list[str]) -> None:
    from aem_swe.eval.ablations_table import make_tables, notes, sources
    from aem_swe.eval.pages import rich_table

    console = Console(highlight=False, width=None if Console().is_terminal else 200)
    for table in make_tables(effects, runs):
        console.print(rich_table(table), markup=False)
    for line in (*notes(effects, runs), sources(effects, runs), *missing):
        print(line)


def _write(
    effects: "Json | None",
    runs: "Result | None",
    missing: list[str],
    data: Path | None,
    plot: Path | None,
    page: Path | None,
) -> None:
    from aem_swe.eval.ablations import as_json
    from aem_swe.eval.ablations_table import MARKS, markdown, notes
    from aem_swe.eval.pages import between_marks, read_page
    from aem_swe.eval.report import write_whole

    if data:
        content = as_json(effects, runs, [*notes(effects, runs), *missing])
        write_whole(data, json.dumps(content, indent=1, allow_nan=False) + "\n", "--json")
        print(f"written: {data}")
    if plot:
        from aem_swe.eval.ablations_figure import draw_ablations

        write_whole(plot, draw_ablations(effects, runs, image_format(plot)), "--plot")
        print(f"written: {plot}")
    if page:
        made = between_marks(read_page(page, MARKS), markdown(effects, runs, missing), MARKS)
        write_whole(page, made, "--markdown")
        print(f"written: {page}")
