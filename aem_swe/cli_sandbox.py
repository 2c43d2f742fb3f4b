"""`aem-swe sandbox`: containers, the images that they start from, and what they left behind."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aem_swe.eval.visible import visible_line

if TYPE_CHECKING:
    import docker

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Container sandboxes (sandbox=docker): build images, fetch images, clean up.

They need a Docker or Podman engine that this user may talk to; `DOCKER_HOST` names another one (unix://, tcp://,
ssh://user@host), or several, separated by commas.""",
)
Engines = Annotated[
    list[str] | None, typer.Option("--engine", help="Address of an engine; may be repeated. Default: DOCKER_HOST.")
]


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="Only these tasks.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rows.jsonl.")] = Path("data/r2e-demo"),
    swebench_out: Annotated[
        Path | None,
        typer.Option(
            "--swebench-out",
            help="Folder for the same tasks in SWE-bench's form. Default: swe-bench-demo beside --out.",
        ),
    ] = None,
    base_only: Annotated[bool, typer.Option("--base-only", help="Only the base image, without tasks.")] = False,
    harbor: Annotated[
        Path | None, typer.Option("--harbor", help="Instead: the images of a folder of Harbor tasks, with the network.")
    ] = None,
    engine: Engines = None,
) -> None:
    """Build the base image from this machine's own files, and on it the project's own tasks, in R2E-Gym's form and in
    SWE-bench's, without a registry."""
    from aem_swe.errors import ConfigError
    from aem_swe.sandboxes._connect import connected, engine_urls, name_of
    from aem_swe.sandboxes._engine_errors import translated
    from aem_swe.sandboxes.base import DockerSettings
    from aem_swe.sandboxes.images import build_base
    from aem_swe.tasks.r2e_build import build as build_tasks
    from aem_swe.tasks.swebench_build import build as build_instances

    beside = swebench_out or out.absolute().with_name("swe-bench-demo")
    for option, folder in (("--out", out), ("--swebench-out", beside)):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{option} {str(folder)!r} is a file; name a folder for rows.jsonl")
    for url in engine_urls(DockerSettings(engines=tuple(engine or ()))):
        with connected(url, timeout=600) as client:
            if harbor is not None:
                _build_harbor(client, harbor)
                continue
            with translated(name_of(url)):
                if base_only:
                    print(build_base(client, progress=print))
                else:
                    rows = build_tasks(client, out, names or None, progress=print)
                    instances = build_instances(client, rows, beside, names or None, progress=print)
                    print(f"rows: {rows}\nSWE-bench's form: {instances}")


def _build_harbor(client: "docker.DockerClient", folder: Path) -> None:
    """One line per task; exit code 1 where one of them cannot be built."""
    from aem_swe.errors import TaskError
    from aem_swe.tasks.harbor import build_image, read_harbor
    from aem_swe.tasks.rows import BadRow

    failed = 0
    for task in read_harbor(folder):
        if isinstance(task, BadRow):
            failed += 1
            print(f"{task.id} CANNOT BE USED: {task.reason}")
            continue
        place = folder if (folder / "task.toml").is_file() else folder / task.task.id
        try:
            print(f"{task.task.id}: {build_image(client, place)}", flush=True)
        except TaskError as error:
            failed += 1
            print(f"FAILED {error}")
    if failed:
        raise typer.Exit(1)


@app.command()
def pull(
    rows: Annotated[Path, typer.Argument(help="Task rows (parquet, jsonl, json) or a folder of Harbor tasks.")],
    engine: Engines = None,
    workers: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 2,
) -> None:
    """Fetch the images that task rows need, with the time and the disk space that are still to come."""
    from aem_swe.sandboxes.base import DockerSettings
    from aem_swe.sandboxes.prefetch import prefetch
    from aem_swe.tasks.source import Source, load

    failed = 0
    for progress in prefetch(
        DockerSettings(engines=tuple(engine or ())),
        [problem.task.image for problem in load(Source(str(rows))).problems],
        workers=workers,
    ):
        print(visible_line(progress.line(), 500), flush=True)
        failed += bool(progress.error)
    if failed:
        raise typer.Exit(1)


@app.command()
def gc(
    engine: Engines = None,
    cached: Annotated[
        bool, typer.Option("--images", help="Also prepared images and our volumes; they are made again when needed.")
    ] = False,
) -> None:
    """Remove containers whose trainer has ended. Those of running trainers stay."""
    from aem_swe.sandboxes.base import DockerSettings
    from aem_swe.sandboxes.gc import collect

    for done in collect(DockerSettings(engines=tuple(engine or ())), cached=cached):
        print(
            f"{done.engine}: removed {done.containers} containers, {done.images} prepared images and {done.volumes} "
            f"volumes; {done.kept} containers belong to running processes"
        )
