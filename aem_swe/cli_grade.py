"""`aem-swe grade` and `aem-swe audit`: official verdicts on anybody's predictions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aem_swe.eval.visible import visible_line

if TYPE_CHECKING:
    from aem_swe.eval.swebench.audit import Audited
    from aem_swe.eval.swebench.results import Evaluation, Result
    from aem_swe.eval.swebench.verdicts import Verdict

Predictions = Annotated[
    Path | None,
    typer.Argument(metavar="[PREDS]", help="preds.json or .jsonl of mini-swe-agent, SWE-agent or others; or a folder."),
]
Dataset = Annotated[
    Path, typer.Option("--dataset", "-d", help="Rows of SWE-bench's form: json, jsonl, parquet, folder.")
]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Patches at a time.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that the tests of an instance may take.")]
Engine = Annotated[
    list[str] | None, typer.Option("--engine", help="Address of an engine; may be repeated. Default: DOCKER_HOST.")
]
MemoryMb = Annotated[int, typer.Option(min=0, help="Of one container, with swap; 0: no limit.")]


def grade(
    predictions: Predictions = None,
    dataset: Dataset = Path("data/swe-bench-verified"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: runs/grade/MODEL.")] = None,
    workers: Workers = 2,
    timeout: Timeout = 1800.0,
    run_id: Annotated[str, typer.Option("--run-id", help="Part of the summary's name.")] = "run_1",
    gold: Annotated[
        bool, typer.Option("--gold", help="Instead: the reference patches; each must be resolved.")
    ] = False,
    empty: Annotated[
        bool, typer.Option("--empty", help="Instead: a patch that changes nothing; none may be resolved.")
    ] = False,
    network: Annotated[
        Literal["none", "bridge"],
        typer.Option(help="none: containers have no way out; bridge: as the official command."),
    ] = "none",
    memory_mb: MemoryMb = 8192,
    engine: Engine = None,
    redo_existing: Annotated[bool, typer.Option("--redo-existing", help="Grade again what is graded already.")] = False,
    model: Annotated[str, typer.Option(help="Replaces the name in the predictions.")] = "",
    split: Annotated[str, typer.Option(help="Of a folder with SPLIT*.parquet files.")] = "",
    subset: Annotated[Path | None, typer.Option(help="A file of instance ids.")] = None,
    slice_: Annotated[str, typer.Option("--slice", help="Python's, such as 0:50.")] = "",
    filter_: Annotated[str, typer.Option("--filter", help="A regular expression on ids.")] = "",
) -> None:
    """Grade predictions with the official SWE-bench harness; print one line an instance, and the counts.

    The harness's own files are in --out too: run_1/logs/ and run_1/MODEL.RUN_ID.json. Stop it at any time; the same
    command goes on. Exit code 1 where --gold or --empty find a fault, or where an instance could not be graded.
    """
    from aem_swe.errors import ConfigError
    from aem_swe.eval.swebench import grade as grading
    from aem_swe.eval.swebench.dataset import Selection
    from aem_swe.eval.swebench.submission import GOLD, NO_OP

    chosen = [one for one in (predictions, GOLD if gold else None, NO_OP if empty else None) if one is not None]
    if len(chosen) != 1:
        raise ConfigError(f"give one of PREDS, --gold and --empty, not {len(chosen) or 'none'} of them")
    request = grading.Request(
        dataset=dataset,
        predictions=chosen[0],
        out=out,
        selection=Selection(split=split, subset=subset, slice_=slice_, filter_=filter_),
        model=model,
        run_id=run_id,
        workers=workers,
        timeout_s=timeout,
        network=network,
        memory_mb=memory_mb,
        engines=tuple(engine or ()),
        redo=redo_existing,
    )
    work = grading.prepare(request, lambda text: print(visible_line(text, 300)))
    evaluation = grading.grade(work, _print_result)
    _finish(evaluation, f"network {network}; {work.out}", "resolved" if gold else "unresolved" if empty else "")


def _finish(evaluation: "Evaluation", place: str, expected: str) -> None:
    """Print the counts; exit with 1 where not all are as expected, or where the machine failed."""
    counts = {str(status): number for status, number in evaluation.count().items()}
    said = ", ".join(f"{number} {status}" for status, number in counts.items())
    print(f"{counts['resolved']} of {len(evaluation.instances)} resolved ({said}); {place}")
    wrong = [one.instance_id for one in evaluation.results.values() if expected and one.status != expected]
    if wrong:
        print(f"{len(wrong)} of {len(evaluation.results)} are not {expected}, the first is {visible_line(wrong[0])}")
    if counts["infrastructure"]:
        print("the machine failed for some, which count for nothing; the same command tries them again")
    if wrong or counts["infrastructure"]:
        raise typer.Exit(1)


def _print_result(result: "Result", verdict: "Verdict | None") -> None:
    """verdict None: it was graded by an earlier call, or there was nothing to grade."""
    if verdict is None:
        took = "nothing to grade" if not result.patch_sha256 else "graded before"
    else:
        took = "cached" if verdict.cached else f"{verdict.seconds:.1f} s"
    reason = f": {visible_line(result.reason, 160)}" if result.reason else ""
    print(f"{visible_line(result.instance_id)} {result.status} ({took}){reason}", flush=True)


def audit(
    predictions: Predictions = None,
    dataset: Dataset = Path("data/swe-bench-verified"),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: runs/audit/MODEL.")] = None,
    workers: Workers = 2,
    timeout: Timeout = 1800.0,
    gold: Annotated[bool, typer.Option("--gold", help="Instead: the reference patches.")] = False,
    memory_mb: MemoryMb = 8192,
    engine: Engine = None,
    model: Annotated[str, typer.Option(help="Replaces the name in the predictions.")] = "",
    subset: Annotated[Path | None, typer.Option(help="A file of instance ids.")] = None,
    slice_: Annotated[str, typer.Option("--slice", help="Python's, such as 0:50.")] = "",
    filter_: Annotated[str, typer.Option("--filter", help="A regular expression on ids.")] = "",
) -> None:
    """Judge the same patches by the training rewards and by the official harness; say where they disagree, and why.

    The three are the reward `hardened`, the harness, and the row's own script believed without our policy
    (docs/grading.md). Exit code 1 where something could not be judged; a disagreement is a finding, not a failure.
    """
    from dataclasses import replace

    from aem_swe.errors import ConfigError
    from aem_swe.eval.swebench import audit as auditing
    from aem_swe.eval.swebench import grade as grading
    from aem_swe.eval.swebench.dataset import Selection
    from aem_swe.eval.swebench.submission import GOLD

    if (predictions is None) != gold:
        raise ConfigError("give one of PREDS and --gold")
    request = grading.Request(
        dataset=dataset,
        predictions=predictions or GOLD,
        out=out,
        selection=Selection(subset=subset, slice_=slice_, filter_=filter_),
        model=model,
        workers=workers,
        timeout_s=timeout,
        memory_mb=memory_mb,
        engines=tuple(engine or ()),
    )
    work = grading.prepare(request, lambda text: print(visible_line(text, 300)))
    work = replace(work, request=replace(request, out=out or auditing.default_out(work.submission.model)))
    found = auditing.audit(work, _print_audited)
    for line in ["", *auditing.lines(found)]:
        print(visible_line(line, 500))
    print(f"\naudit: {work.out / 'audit.json'}")
    if any(None in one.scores for one in found.patches):
        raise typer.Exit(1)


def _print_audited(one: "Audited") -> None:
    scores = ", ".join(f"{way} {opinion.score}" for way, opinion in one.opinions.items())
    print(f"{visible_line(one.instance_id)}: {scores}" + "  DISAGREE" * (not one.agree), flush=True)
