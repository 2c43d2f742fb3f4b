"""`aem-swe tasks`: look at tasks, and try whether they can be trusted."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aem_swe.eval.visible import visible, visible_line

if TYPE_CHECKING:
    from aem_swe.tasks.grading import Problem
    from aem_swe.tasks.validate import Judged, Trial

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Tasks from rows of R2E-Gym or SWE-bench (parquet, jsonl, json) or from folders of Harbor tasks.

Try it with the project's own: `aem-swe sandbox build`, then `aem-swe tasks validate data/r2e-demo/rows.jsonl`.""",
)
Tasks = Annotated[
    str, typer.Argument(metavar="TASKS", help="A file of rows, a folder of them, or Harbor task folders.")
]
RewardName = Annotated[
    Literal["hardened", "r2e", "swebench"], typer.Option("--reward", help="How to grade: docs/grading.md.")
]


@app.command()
def show(
    tasks: Tasks,
    task_id: Annotated[str, typer.Argument(metavar="[ID]", help="A task's id, or its beginning; none: a list.")] = "",
    gold: Annotated[bool, typer.Option("--gold", help="Also the reference fix.")] = False,
) -> None:
    """List the tasks of a source, or show one: what the agent gets to read, its image, its grader."""
    from aem_swe.errors import ConfigError
    from aem_swe.tasks.source import Source, load

    loaded = load(Source(tasks))
    if not task_id:
        for problem in loaded.problems:
            print(f"{visible_line(problem.task.id)}  {visible_line(problem.task.image)}")
        for row in loaded.bad:
            print(f"{visible_line(row.id)}  CANNOT BE USED: {visible_line(row.reason)}")
        return
    found = _matching(loaded.problems, task_id)
    bad = [row for row in loaded.bad if row.id.startswith(task_id)]
    if bad and not found:
        raise ConfigError(f"{bad[0].id} cannot be used: {bad[0].reason}")
    if len(found) != 1:
        many = f"{len(found)} of {len(loaded.problems)} tasks"
        raise ConfigError(f"task {task_id!r} fits {many}; aem-swe tasks show {tasks} lists them")
    problem = found[0]
    print(f"id       {problem.task.id}\nimage    {problem.task.image}\nworkdir  {problem.task.workdir}")
    print(f"grader   {type(problem.grader).__name__}\n\n{visible(problem.task.text.strip())}")
    if gold:
        print(f"\n{visible(problem.gold.decode(errors='replace'))}")


@app.command()
def validate(
    tasks: Tasks,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these tasks.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", "-k", min=1, help="Times each way.")] = 3,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Tasks at a time.")] = 2,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="One line per trial; those that are there are not repeated.")
    ] = Path("runs/validate.jsonl"),
    reward: RewardName = "hardened",
    memory_mb: Annotated[int, typer.Option(min=64, help="Of one sandbox.")] = 2048,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", help="Address of an engine; may be repeated. Default: DOCKER_HOST.")
    ] = None,
) -> None:
    """Grade the reference fix (must be 1) and no change (must be 0), several times each, in fresh containers.

    Exit code 1 where a task is flaky, broken or could not be judged. Stop it at any time; the same command goes on.
    """
    from aem_swe.errors import ConfigError
    from aem_swe.sandboxes import DockerSettings, SandboxLimits, open_sandboxes
    from aem_swe.tasks.source import Source, gold_of, grading_programs, load
    from aem_swe.tasks.validate import validate as run

    source = Source(tasks, reward)
    loaded = load(source)
    problems = list(loaded.problems)
    if ids:
        for wanted in ids:
            if not _matching(problems, wanted):
                raise ConfigError(f"task {wanted!r} is none of {len(problems)}; aem-swe tasks show {tasks} lists them")
        problems = [p for p in problems if any(p in _matching(problems, wanted) for wanted in ids)]
    if out.is_dir():
        raise ConfigError(f"--out {str(out)!r} is a folder; name a file, for example {out / 'trials.jsonl'}")
    if out.exists() and not out.is_file():
        raise ConfigError(f"--out {str(out)!r} is no regular file; name one that is, or a new one")
    limits = SandboxLimits(memory_mb=memory_mb, processes=512, disk_mb=512, command_timeout_s=300.0)
    settings = DockerSettings(engines=tuple(engine or ()))
    with open_sandboxes(
        "docker", limits=limits, programs=grading_programs(), docker=settings, run=f"validate {out}"
    ) as sandboxes:
        judged = run(
            problems,
            sandboxes,
            repeats=repeats,
            workers=workers,
            record=out,
            gold=lambda problem, sandbox: gold_of(source, problem, sandbox),
            observe=_print_trial,
        )
    _print_table(judged)
    for row in loaded.bad:
        print(f"{visible_line(row.id)} cannot be used: {visible_line(row.reason)}")
    good = sum(one.verdict == "good" for one in judged)
    print(f"{good} of {len(judged)} tasks are good; {len(loaded.bad)} rows cannot be used; trials: {out}")
    if good < len(judged):
        raise typer.Exit(1)


@app.command()
def worlds(
    games: Annotated[int, typer.Option("--games", "-n", min=1, help="Games of each family.")] = 20,
    split: Annotated[Literal["train", "test"], typer.Option(help="Which rooms.")] = "train",
    limit: Annotated[int, typer.Option(min=1, help="Moves of a game.")] = 50,
    first: Annotated[int, typer.Option(min=0, help="Number of the first game; other games, another sample.")] = 0,
    theirs: Annotated[bool, typer.Option("--theirs", help="ALFWorld's hand-coded expert instead of ours.")] = False,
    at_random: Annotated[bool, typer.Option("--random", help="A player that picks any admissible action.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the table as JSON.")] = None,
) -> None:
    """Which families of ALFWorld's games can be learnt here: what the expert wins, in the real engine.

    A family is present where it wins 95% of the games within the limit. Exit code 1 where one is absent.
    """
    from aem_swe.errors import ConfigError
    from aem_swe.worlds import FAMILIES
    from aem_swe.worlds.survey import play_games, standings, write_standings

    if theirs and at_random:
        raise ConfigError("--theirs and --random are two players; leave one out")
    attempts = []
    players = {"theirs": theirs, "random_player": at_random}
    for attempt in play_games(games * len(FAMILIES), split=split, limit=limit, first=first, **players):
        attempts.append(attempt)
        if not attempt.won:
            print(f"not won in {attempt.moves} moves: {attempt.game} {attempt.family}: {attempt.goal}", flush=True)
    rows = standings(attempts)
    table = Table("family", "won", "share", "95% interval", "mean moves", "verdict")
    for row in rows:
        moves = "-" if row.mean_moves is None else f"{row.mean_moves:.1f}"
        shares = f"{row.won / row.games:.3f}", f"{row.low:.3f} to {row.high:.3f}"
        verdict = "present" if row.present else "absent"
        table.add_row(row.family, f"{row.won} of {row.games}", *shares, moves, verdict)
    Console(width=None if Console().is_terminal else 200).print(table)
    if out:
        player = "theirs" if theirs else "random" if at_random else "ours"
        write_standings(out, rows, player=player, split=split, limit=limit, first=first)
    if not all(row.present for row in rows):
        raise typer.Exit(1)


def _matching(problems: "Sequence[Problem]", wanted: str) -> "list[Problem]":
    """The task of that id, else those whose id begins so."""
    exact = [problem for problem in problems if problem.task.id == wanted]
    return exact or [problem for problem in problems if problem.task.id.startswith(wanted)]


def _print_trial(trial: "Trial") -> None:
    reward = "-" if trial.reward is None else f"{trial.reward:g}"
    reason = visible_line(trial.reason.split("\n")[0], 100)
    print(
        f"{visible_line(trial.id)} {trial.check} {trial.repeat + 1}: {reward} ({reason}) {trial.seconds:.1f} s",
        flush=True,
    )


def _print_table(judged: "list[Judged]") -> None:
    table = Table("task", "verdict", "gold", "no-op", "gold s", "why")
    for one in judged:
        rewards = [" ".join("-" if r is None else f"{r:g}" for r in trials) for trials in (one.gold, one.no_op)]
        why = escape(visible_line(one.reasons[0].split("\n")[0])) if one.reasons else ""
        table.add_row(escape(visible_line(one.id)), one.verdict, *rewards, f"{one.gold_seconds:.1f}", why)
    Console(width=None if Console().is_terminal else 200).print(table)
