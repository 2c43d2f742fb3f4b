"""`aem-swe compare`, `aem-swe power` and `aem-swe published`: what may be said of a difference."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_swe.errors import ConfigError

if TYPE_CHECKING:
    from aem_swe.eval.swebench.contrast import Comparison


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER...",
            help="Training runs, or evaluations; the first arm is the reference. The word vs separates arms; without "
            "it evaluations with one --arm and different --training-seed are pooled.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where to write the report (one self-contained HTML file).")
    ] = Path("report.html"),
) -> None:
    """Compare training runs, or evaluations on SWE-bench: a plain summary here, a report with plots in --out.

    Examples: `aem-swe compare runs/a runs/b`, `aem-swe compare runs/eval/base-s1 runs/eval/base-s2 vs runs/eval/aem-s1
    runs/eval/aem-s2`.
    """
    from aem_swe.eval.swebench.results import is_evaluation

    folders = [word for word in runs if word != "vs"]
    evaluated = [word for word in folders if is_evaluation(Path(word))]
    if evaluated and len(evaluated) < len(folders):
        other = next(word for word in folders if word not in evaluated)
        raise ConfigError(f"{evaluated[0]!r} is an evaluation and {other!r} is none; compare one kind at a time")
    if evaluated:
        from aem_swe.eval.swebench.page import write_comparison_page

        comparison = compare_evaluations(runs)
        write_comparison_page(comparison, out)
        lines = comparison.summary_lines()
    else:
        from aem_swe.eval.report import write_report

        lines = write_report([Path(word) for word in folders], out).summary_lines()
    for line in lines:
        print(line)
    print(f"report: {out}")


def compare_evaluations(folders: list[str]) -> "Comparison":
    """Compare evaluation folders; the word vs separates arms. Raises ConfigError or RunError in one line."""
    from aem_swe.eval.swebench.arms import parse_arms
    from aem_swe.eval.swebench.contrast import compare_arms

    return compare_arms(parse_arms(folders))


def power(
    seed_sd: Annotated[
        float | None,
        typer.Option("--seed-sd", help="Needed: spread of pass@1 between training seeds of one recipe, in points."),
    ] = None,
    rate: Annotated[float, typer.Option("--rate", help="pass@1 of the reference, as a fraction.")] = 0.42,
    difference: Annotated[float, typer.Option("--difference", help="What should be seen, in points.")] = 1.4,
    runs: Annotated[int, typer.Option("--runs", help="Evaluation runs per checkpoint.")] = 16,
    seeds: Annotated[int, typer.Option("--seeds", help="Training seeds per arm.")] = 3,
    tasks: Annotated[int, typer.Option("--tasks", help="Instances that are evaluated.")] = 500,
    task_variance: Annotated[
        float, typer.Option("--task-variance", help="Between runs of one task; compare measures yours.")
    ] = 0.11,
    wanted: Annotated[float, typer.Option("--power", help="The chance to find the difference, as a fraction.")] = 0.8,
) -> None:
    """How many runs and training seeds a difference needs: about two checkpoints, and about the method.

    Example: `aem-swe power --seed-sd 1 --difference 1.4 --rate 0.42 --runs 16 --seeds 3`.
    """
    if seed_sd is None:
        raise ConfigError(
            "--seed-sd is missing: without the spread between training seeds nothing can be planned about a method; "
            "give it in points, for example --seed-sd 1"
        )
    from aem_swe.eval.swebench.power import Plan, power_lines

    plan = Plan(
        rate=rate, difference=difference / 100, seed_spread=seed_sd / 100, runs=runs, seeds=seeds, tasks=tasks,
        task_variance=task_variance, power=wanted,
    )  # fmt: skip
    for line in power_lines(plan):
        print(line)


def published(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="JSON: submission -> ids that it resolved.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Submissions, the reference first; none: a list.")
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", help="JSON list of all instances [default: swe_bench_verified_ids.json beside DATA]."),
    ] = None,
) -> None:
    """Compare published outcomes of SWE-bench Verified, one run each; without names, list those that can be compared.

    Example: `aem-swe published outcomes.json 20241105_nfactorial 20241028_solver`.
    """
    from aem_swe.eval.swebench.arms import make_arms
    from aem_swe.eval.swebench.contrast import compare_arms
    from aem_swe.eval.swebench.measures import summarise, summary_text
    from aem_swe.eval.swebench.published import CAVEAT, read_published
    from aem_swe.eval.visible import visible_line

    names = names or []
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"submission {twice[0]!r} is given more than once; name two different ones")
    evaluations = read_published(data, names, ids)
    if names:
        for line in compare_arms(make_arms([[one] for one in evaluations])).summary_lines():
            print(line)
        print(f"note: {CAVEAT}")
        return
    for one in evaluations:
        print(visible_line(f"{one.model}: {summary_text(summarise(one))}", 300))
