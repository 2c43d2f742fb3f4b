"""`aem-swe data`: bring the data sets that recipes name to this machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aem_swe.eval.visible import visible_line

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Data sets of tasks: R2E-Gym-Subset (training) and SWE-bench Verified (evaluation).

Example: `aem-swe data pull r2e-gym` makes data/r2e-gym; recipes name data/NAME as data.source or data.held_out.

Their rows become one file with a manifest; `aem-swe tasks show FILE` lists the tasks, `aem-swe sandbox pull FILE`
fetches their images.""",
)


@app.command()
def pull(
    name: Annotated[Literal["r2e-gym", "swe-bench-verified"], typer.Argument(help="Which data set.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A new folder; the default is data/NAME.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="A local copy (parquet, jsonl, json, or a folder), not the hub.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of the data set on the hub: a commit, a tag, a branch.")] = None,
    leave_out_verified: Annotated[
        bool,
        typer.Option("--leave-out-verified", help="Without the repositories of SWE-bench Verified, as DeepSWE."),
    ] = False,
    form: Annotated[Literal["parquet", "jsonl"], typer.Option("--format", help="Of the file of rows.")] = "parquet",
) -> None:
    """Fetch a data set from the Hugging Face hub, or take a local copy; check every row; write them with a manifest.

    Nothing is overwritten, and nothing half-written stays behind.
    """
    from aem_swe.tasks.hub import DATA_SETS
    from aem_swe.tasks.pull import pull as bring

    place = out or Path("data") / name
    about = bring(
        DATA_SETS[name],
        place,
        source=source,
        revision=revision,
        leave_out_verified=leave_out_verified,
        form=form,
        say=lambda line: print(visible_line(line), flush=True),
    )
    rows = about["rows"]
    for bad in about["unusable"][:10]:
        print(f"left out {visible_line(bad['id'])}: {visible_line(bad['reason'])}")
    print(
        f"{rows['read']} rows read, {rows['unusable']} cannot be used; {rows['usable']} tasks, "
        f"{rows['without_repositories_of_verified']} without the repositories of SWE-bench Verified"
    )
    print(f"wrote {rows['written']} rows: data.source={place / about['file']} (manifest.json: {about['sha256'][:12]})")
