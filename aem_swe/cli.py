"""The command line: its entry point, training and doctor. Only cli*.py print."""

import errno
import logging
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console

from aem_swe import __version__, cli_compare, cli_data, cli_eval, cli_grade, cli_profile, cli_sandbox, cli_tasks
from aem_swe.cli_verify import app as verify
from aem_swe.config import dump_recipe, load_recipe
from aem_swe.errors import AemSweError, ConfigError, RunError, TaskError
from aem_swe.schema import Recipe

app = typer.Typer(
    name="aem-swe",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Train software-engineering agents with DeepSWE's recipe, with or without Adaptive Entropy Modulation.

A first session, about ten minutes on a laptop CPU:

    aem-swe doctor                                        does this machine have what the demo needs?
    aem-swe train demo run_dir=runs/a                     train without AEM
    aem-swe train demo_aem run_dir=runs/b                 train with AEM
    aem-swe compare runs/a runs/b --out runs/report.html  look at the difference

Exit codes: 0 done, 1 failed, 2 a mistake in what you asked for (one line says what, the value, and the remedy).""",
)

Override = Annotated[
    list[str] | None,
    typer.Argument(
        help="Replaces a setting of the recipe, for example seed=7; --show lists all.",
        metavar="key=value",
    ),
]


_INTERRUPTED = 130
_HOW_TO_GO_ON = {"train": "; continue a training run with --resume"} | dict.fromkeys(
    ("eval", "grade", "audit", "verify"), "; the same command goes on"
)


def main() -> None:
    """Entry point: turn every expected failure into one line and an exit code."""
    _quiet()
    received: list[int] = []

    def interrupt(number: int, _frame: object) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    for number in (signal.SIGINT, signal.SIGTERM, *[signal.SIGHUP] * (not nohup)):
        signal.signal(number, interrupt)
    try:
        code = app(standalone_mode=False)  # typer returns the code of typer.Exit, and 130 for Ctrl-C
    except BaseException as error:
        # an import that is interrupted can end in any other error
        if not received and not isinstance(error, typer.Abort | KeyboardInterrupt):
            _explain(error)
        code = _INTERRUPTED
    if received or code == _INTERRUPTED:
        # Interrupted inside exec() of a string, as in dataclasses, `python -m` ends by the signal; this undoes it
        exec("")
        _fail("interrupted" + _HOW_TO_GO_ON.get(_command(), ""), _INTERRUPTED)
    sys.exit(code or 0)


def _explain(error: BaseException) -> NoReturn:
    """Say an expected failure in one line and exit; raise any other again."""
    if isinstance(error, ConfigError | TaskError | RunError):
        _fail(str(error), 2)
    if isinstance(error, AemSweError):
        _fail(str(error), 1)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        again = "use --resume" if _command() == "train" else "try again"
        _fail(f"the disk is full ({error.filename or 'no space left'}); free space, then {again}", 2)
    if hasattr(error, "format_message"):  # click's usage errors have it
        _fail(error.format_message() or "name a command; the page above says which", 2)
    raise error


def _command() -> str:
    return sys.argv[1] if len(sys.argv) > 1 else ""


def _fail(message: str, code: int) -> NoReturn:
    print(f"aem-swe: {_one_line(message)}", file=sys.stderr)
    sys.exit(code)


def _one_line(text: str) -> str:
    from aem_swe.eval.visible import visible  # what a row or a sandbox said may be part of it

    return visible(" ".join(line.strip() for line in text.replace("\n- ", "; ").splitlines()))


def _quiet() -> None:
    """Keep libraries' progress bars and advice out of our output."""
    if _command() != "data":  # to fetch is what that command is for
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # importing torch makes a folder for compiled kernels there; nothing is compiled here
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", tempfile.gettempdir())
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="torch")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aem-swe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (demo, demo_aem) or a YAML file.")] = "demo",
    overrides: Override = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in run_dir from its last checkpoint.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="One line a step, also on a terminal.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print every key of the recipe with its value, and stop.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="engine=rllm: print and check all that rLLM and verl would get, and stop."),
    ] = False,
) -> None:
    """Train an agent by reinforcement learning. The run is kept in run_dir (default runs/RECIPE).

    Examples: `aem-swe train demo_aem run_dir=runs/x trainer.steps=3 seed=7`, `aem-swe train demo aem.enabled=true
    aem.lambda=2`, `aem-swe train deepswe_aem --dry-run`.
    """
    settings = load_recipe(recipe, overrides or [])
    if show or (dry_run and settings.engine == "local"):
        print(dump_recipe(settings), end="")
        return
    if settings.engine == "rllm":
        return _train_on_a_cluster(settings, resume=resume, dry=dry_run)
    from aem_swe.engines.local.trainer import train as train_locally

    with _progress(Path(settings.run_dir), settings.trainer.steps, plain) as observe:
        train_locally(settings, resume=resume, observe=observe, say=print)
    print(f"done: {settings.run_dir} (metrics.jsonl, trajectories, checkpoints)")


def _train_on_a_cluster(settings: Recipe, *, resume: bool, dry: bool) -> None:
    if dry:
        from aem_swe.engines.rllm.dry_run import dry_run

        for piece in dry_run(settings):
            print(piece, flush=True)
        return
    from aem_swe.engines.rllm.versions import require_installed

    require_installed()
    from aem_swe.engines.rllm.train import train as train_with_rllm

    train_with_rllm(settings, resume=resume, say=print)
    print(f"done: {settings.run_dir} (metrics.jsonl, trajectories, checkpoints)")


@contextmanager
def _progress(run_dir: Path, steps: int, plain: bool) -> Iterator[Callable[[dict[str, object]], None]]:
    """A live table on a terminal, one plain line a step elsewhere."""
    from aem_swe.progress import LiveProgress, line

    console = Console()
    if console.is_terminal and not plain:
        with LiveProgress(console, run_dir, steps) as live:
            yield live.observe
        return
    yield lambda row: print(line(run_dir, steps, row), flush=True)


@app.command("warm-start")
def warm_start(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new policy.")] = Path("runs/warm-start"),
    seed: Annotated[int, typer.Option(min=0, help="Initialisation and demonstrations.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps; the default is what made the shipped policy.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    episodes: Annotated[int, typer.Option(min=1, help="Held-out episodes to judge it on.")] = 512,
    world: Annotated[Literal["demo", "alfworld"], typer.Option(help="Whose policy: docs/worlds.md.")] = "demo",
) -> None:
    """Make the demo's starting policy again, from nothing, and measure its held-out success (about 12 minutes)."""
    from aem_swe.engines.local.make_policy import make_policy

    for row in make_policy(out, seed=seed, steps=steps, threads=threads, episodes=episodes, world=world):
        print(row, flush=True)


@app.command()
def doctor(
    recipe: Annotated[str, typer.Argument(help="The recipe that should run.")] = "demo",
    overrides: Override = None,
) -> None:
    """Say whether this machine has what a recipe needs, with the remedy for what is missing."""
    from aem_swe.doctor import examine

    checks = examine(load_recipe(recipe, overrides or []))
    for check in checks:
        said = f"{check.name}: {check.finding}" + f"; {check.remedy}" * (not check.passed)
        print("ok   " if check.passed else "FAIL ", _one_line(said))
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


app.command("compare")(cli_compare.compare)
app.command("power")(cli_compare.power)
app.command("published")(cli_compare.published)
app.command("profile")(cli_profile.profile)
app.command("eval")(cli_eval.evaluate)
app.command("grade")(cli_grade.grade)
app.command("audit")(cli_grade.audit)
app.add_typer(cli_tasks.app, name="tasks")
app.add_typer(cli_sandbox.app, name="sandbox")
app.add_typer(cli_data.app, name="data")
app.add_typer(verify, name="verify")


if __name__ == "__main__":
    main()
