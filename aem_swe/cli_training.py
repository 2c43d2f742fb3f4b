"""`aem-swe verify training`: whole training runs of every arm over several seeds; cli_verify.py registers it."""

import os.path
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from aem_swe import __version__
from aem_swe.cli_files import PlotOption, image_format, page_option, require_different_files
from aem_swe.errors import ConfigError, RunError

if TYPE_CHECKING:
    from aem_swe.eval.training_jobs import Job
    from aem_swe.eval.training_merge import Merged
    from aem_swe.eval.training_plan import Plan
    from aem_swe.eval.training_result import Result
    from aem_swe.eval.training_values import RunValues

_OUT = Path("runs/training")


def training(
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ARM", help="This arm; may be repeated. Default: all.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", min=0, help="This seed; may be repeated. Default: the plan's.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Runs at a time, one thread each.")] = 2,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folders ARM_seedS; a rerun goes on there. [runs/training]")
    ] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Train nothing: judge the finished runs in --out.")] = False,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Other arms and contrasts than eval/training.yaml.")
    ] = None,
    known: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE", help="Take runs that --out lacks from this file of --json."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Judge a file of --json; needs no run folder.")
    ] = None,
    data: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every result there.")] = None,
    plot: PlotOption = None,
    page: Annotated[Path | None, page_option("docs/training.md")] = None,
) -> None:
    """Train every arm of eval/training.yaml over its seeds (hours of CPU), and judge each contrast of two arms.

    Base algorithms with and without AEM, AEM's lambda, the filter's semantics, the masks of Analysis A. Finished runs
    are kept, interrupted ones go on; runs that `aem-swe train` made under these names and settings count as well. Exit
    1 if a run failed, and no page. A verdict needs five seeds: docs/training.md.

    Examples: `aem-swe verify training --only demo --only demo_aem --jobs 1`, `aem-swe verify training --no-run`.
    """
    from aem_swe.eval.pages import read_page
    from aem_swe.eval.training_plan import shipped_plan
    from aem_swe.eval.training_table import MARKS

    image_format(plot)
    require_different_files({"--plan": plan or shipped_plan(), "--json": data, "--plot": plot, "--markdown": page})
    require_different_files({"--from": source, "--plot": plot, "--markdown": page})  # --json may replace --from
    for one in known or []:  # and not --with, of which --only and --seed can leave a part out
        require_different_files({"--with": one, "--json": data, "--plot": plot, "--markdown": page})
    if page:
        read_page(page, MARKS)  # before hours of training, not after
    if source:
        from aem_swe.eval.training_result import read_result

        if only or seeds or no_run or plan or out or known:
            raise ConfigError(
                "--from reads a result and nothing else; leave --only, --seed, --out, --no-run, --plan and --with out"
            )
        result = read_result(source)
    else:
        result = _measure(only or [], seeds or [], jobs, out or _OUT, known or [], run=not no_run, path=plan)
    _show(result)
    if data or plot or page:
        _write(result, source or out or _OUT, data, plot, page)
    if result.failed:
        raise typer.Exit(1)


def _measure(
    only: list[str], seeds: list[int], jobs: int, out: Path, known: list[Path], *, run: bool, path: Path | None
) -> "Result":
    """The result of what is in `out` and in `known`, the rest trained before if `run`."""
    from aem_swe.eval.result_files import require_plain
    from aem_swe.eval.training_merge import Merged
    from aem_swe.eval.training_plan import read_plan
    from aem_swe.eval.training_result import About, RunName, make_result, sort_into_arms
    from aem_swe.eval.training_runs import find_runs

    whole = read_plan(path)
    plan = whole.restricted(only, seeds)
    plan.require_plain(out)
    wanted = not run and not (known and out == _OUT)  # files alone are enough
    if wanted and not os.path.isdir(out):  # unlike Path.is_dir, it says no to a name that is too long
        raise ConfigError(f"--out {str(out)!r} is no folder; leave --no-run out, or name the folder of the runs")
    # what makes it from nothing; where runs lie, in --out or --with, is no part of it
    words = ["aem-swe verify training", *([f"--plan {path}"] if path else [])]
    words += [f"--only {arm}" for arm in only] + [f"--seed {seed}" for seed in seeds]
    about = About(aem_swe=__version__, command=" ".join(words), date=date.today().isoformat())
    try:
        require_plain(command=about.command)
    except ValueError as error:
        raise ConfigError(f"--plan {str(path)!r} cannot be quoted on a page; choose a plainer name") from error
    merged = Merged(find_runs(plan, out))
    found = merged.found
    for one in known:
        _take(merged, plan, one)
    for arm, seed in merged.contradicted():
        print(f"note: {arm} seed {seed} failed where a file of --with was made; the values that are there count")
    failed = _train(plan, found, jobs, out) if run else merged.absent(merged.failed)
    left = [key for key, one in found.items() if isinstance(one, int) and one and key not in failed]
    for arm, seed in left:
        print(f"note: {arm} seed {seed} stopped after step {found[arm, seed]}; it is left out")
    left = [key for key in merged.absent([*left, *merged.unfinished]) if key not in failed]
    names = [[RunName(arm=arm, seed=seed) for arm, seed in keys] for keys in (failed, left)]
    return make_result(about, plan, sort_into_arms(plan, found, out), whole.family(), *names)


def _take(merged: "Merged", plan: "Plan", path: Path) -> None:
    from aem_swe.eval.wording import counted

    taken, different = merged.take(plan, path)
    where = _visible(str(path))
    print(f"{counted(taken, 'run')} taken from {where}")
    for arm, seed in different:
        print(f"note: {arm} seed {seed} of {where} is left out: it is there already, with other values")


def _train(
    plan: "Plan", found: "dict[tuple[str, int], RunValues | int]", jobs: int, out: Path
) -> list[tuple[str, int]]:
    """Make the runs that are not finished, put their values into `found`, and return those that failed."""
    from aem_swe.eval.training_jobs import Job, run_jobs
    from aem_swe.eval.training_runs import read_run
    from aem_swe.metrics import held

    say = Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print
    missing = [key for key, one in found.items() if isinstance(one, int)]
    done = len(found) - len(missing)
    failed: list[tuple[str, int]] = []

    def ended(job: "Job", failure: str | None) -> None:
        nonlocal done
        one: RunValues | int = 0
        if failure is None:
            try:
                found[job.arm, job.seed] = one = read_run(plan.recipe(job.arm, job.seed, out))
            except (ConfigError, RunError) as error:
                failure = str(error)
        if isinstance(one, int):
            failed.append((job.arm, job.seed))
            why = _visible(failure or f"it ended after step {one}")
            return say(f"{job.arm} seed {job.seed} FAILED: {why} ({job.log})")
        done += 1
        say(f"{job.arm} seed {job.seed}: {_learned(one)} ({done} of {len(found)} runs)")

    def job(arm: str, seed: int) -> "Job":
        return Job(arm, seed, tuple(plan.words(arm, seed, out)), out / f"{arm}_seed{seed}.log")

    if missing:
        with held(out, "--out"):
            run_jobs([job(*key) for key in missing], jobs, ended)
    return failed


def _learned(one: "RunValues") -> str:
    ends = ["not recorded" if x is None else f"{x:.1%}" for x in (one.held_out_first, one.held_out)]
    return f"held-out success {ends[0]} -> {ends[1]} in {one.steps} steps"


def _visible(text: str) -> str:
    from aem_swe.eval.visible import visible_line  # a sandbox may have written part of it

    return visible_line(text)


def _show(result: "Result") -> None:
    from aem_swe.eval.pages import rich_table
    from aem_swe.eval.training import TEST
    from aem_swe.eval.training_table import closing_line, make_tables

    console = Console(highlight=False, width=None if Console().is_terminal else 180)
    for table in make_tables(result):
        console.print(rich_table(table), markup=False)
    print(f"Test: {TEST}.")
    print(f"{closing_line(result)}.")


def _write(result: "Result", where: Path, data: Path | None, plot: Path | None, page: Path | None) -> None:
    from aem_swe.eval.pages import read_page
    from aem_swe.eval.report import write_whole
    from aem_swe.eval.training_result import to_text
    from aem_swe.eval.training_table import MARKS, with_tables
    from aem_swe.eval.wording import counted

    if not result.runs:
        said = f"no run is finished in {where}; nothing was written"
        if not result.failed:
            raise RunError(said)
        return print(said)  # what failed was said, and is an exit of 1
    if data:
        write_whole(data, to_text(result), "--json")
        print(f"written: {data}")
    if plot:
        from aem_swe.eval.training_figure import draw_training

        write_whole(plot, draw_training(result, image_format(plot)), "--plot")
        print(f"written: {plot}")
    if page and result.failed:
        print(f"not written: {page}, because {counted(len(result.failed), 'run')} failed; the same command tries again")
    elif page:
        write_whole(page, with_tables(read_page(page, MARKS), result), "--markdown")
        print(f"written: {page}")
