"""`aem-swe eval`: the options, and what is shown while it runs."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from aem_swe.errors import ConfigError
from aem_swe.eval.visible import visible, visible_line

if TYPE_CHECKING:
    from aem_swe.eval.swebench.evaluation import Progress
    from aem_swe.eval.swebench.results import Evaluation
    from aem_swe.evaluate import Request

MODEL, ROWS, MACHINES, BOOKS = "The model", "The instances", "How it runs", "What is written down"


_Model = Annotated[
    str,
    typer.Argument(
        help="A checkpoint folder (or builtin/demo-policy), which vLLM then serves for the time of the run; with "
        "--endpoint, the model's name there."
    ),
]
_Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="key=value", help="Replaces a key of the protocol, for example play.max_steps=50; --dry-run lists them."
    ),
]
_Endpoint = Annotated[
    str, typer.Option(help="OpenAI-compatible URL, such as http://localhost:8000/v1.", rich_help_panel=MODEL)
]
_ApiKeyEnv = Annotated[
    str, typer.Option(help="Environment variable that holds the endpoint's key.", rich_help_panel=MODEL)
]
_Tokenizer = Annotated[
    str,
    typer.Option(
        help="Of a model at an endpoint (folder): exact token ids, as in training (vLLM 0.10.2 or newer). Without "
        "it, chat messages.",
        rich_help_panel=MODEL,
    ),
]
_RequestTimeout = Annotated[float, typer.Option(min=1, help="Seconds for one try of a request.", rich_help_panel=MODEL)]
_Embedded = Annotated[
    bool,
    typer.Option("--embedded", help="Run a small checkpoint in this process, without vLLM.", rich_help_panel=MODEL),
]
_TensorParallel = Annotated[int, typer.Option(min=1, help="GPUs of the served model.", rich_help_panel=MODEL)]
_VllmArg = Annotated[
    list[str] | None,
    typer.Option(help="Passed on to vllm serve, for example --vllm-arg=--dtype=float32.", rich_help_panel=MODEL),
]
_Protocol = Annotated[
    str, typer.Option("--protocol", "-c", help="A file in eval/ or a path; names its data set.", rich_help_panel=ROWS)
]
_Dataset = Annotated[
    str, typer.Option("--dataset", "-d", help="Rows: json, jsonl, parquet or a folder.", rich_help_panel=ROWS)
]
_Split = Annotated[str, typer.Option(help="Of a folder with SPLIT*.parquet files.", rich_help_panel=ROWS)]
_Subset = Annotated[Path | None, typer.Option(help="A file of instance ids.", rich_help_panel=ROWS)]
_Slice = Annotated[str, typer.Option("--slice", help="Python's, such as 0:50; after the filter.", rich_help_panel=ROWS)]
_Filter = Annotated[str, typer.Option("--filter", help="A regular expression on ids.", rich_help_panel=ROWS)]
_Shuffle = Annotated[bool, typer.Option("--shuffle", help="Before --slice, always alike.", rich_help_panel=ROWS)]
_Runs = Annotated[int | None, typer.Option(min=1, help="Times all instances are played.", rich_help_panel=ROWS)]
_Seed = Annotated[int | None, typer.Option(min=0, help="Of the sampling.", rich_help_panel=ROWS)]
_Out = Annotated[Path | None, typer.Option("--out", "-o", help="Default: runs/eval/MODEL.", rich_help_panel=BOOKS)]
_Arm = Annotated[
    str, typer.Option(help="The method that trained it, for comparisons over seeds.", rich_help_panel=BOOKS)
]
_TrainingSeed = Annotated[int | None, typer.Option(help="Of its training run.", rich_help_panel=BOOKS)]
_Price = Annotated[
    str, typer.Option(help="Per million tokens: PROMPT,COMPLETION, such as 0.5,1.5.", rich_help_panel=BOOKS)
]
_Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Instances at a time.", rich_help_panel=MACHINES)]
_GradingWorkers = Annotated[
    int, typer.Option(min=1, help="Patches that are graded at a time.", rich_help_panel=MACHINES)
]
_Engine = Annotated[
    list[str] | None,
    typer.Option("--engine", help="Container engine, may be repeated. Default: DOCKER_HOST.", rich_help_panel=MACHINES),
]
_Ray = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Play on the nodes of a Ray: auto, HOST:PORT, ray://HOST:PORT or local. All nodes share --out and reach "
        "--endpoint; each uses the engines of its own DOCKER_HOST, and --engine grades. -w is for all nodes together.",
        rich_help_panel=MACHINES,
    ),
]
_RetryInfrastructure = Annotated[
    bool,
    typer.Option(
        "--retry-infrastructure",
        help="Forget the infrastructure errors of earlier calls, and play those again.",
        rich_help_panel=MACHINES,
    ),
]
_Plain = Annotated[bool, typer.Option("--plain", help="One line an instance, also on a terminal.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Check all but the model, print the protocol, stop.")]


def evaluate(
    model: _Model,
    overrides: _Overrides = None,
    endpoint: _Endpoint = "",
    api_key_env: _ApiKeyEnv = "AEM_SWE_API_KEY",
    tokenizer: _Tokenizer = "",
    request_timeout: _RequestTimeout = 1800,
    embedded: _Embedded = False,
    tensor_parallel: _TensorParallel = 1,
    vllm_arg: _VllmArg = None,
    protocol: _Protocol = "swebench_verified",
    dataset: _Dataset = "",
    split: _Split = "",
    subset: _Subset = None,
    slice_: _Slice = "",
    filter_: _Filter = "",
    shuffle: _Shuffle = False,
    runs: _Runs = None,
    seed: _Seed = None,
    out: _Out = None,
    arm: _Arm = "",
    training_seed: _TrainingSeed = None,
    price: _Price = "",
    workers: _Workers = 2,
    grading_workers: _GradingWorkers = 2,
    engine: _Engine = None,
    ray: _Ray = "",
    retry_infrastructure: _RetryInfrastructure = False,
    plain: _Plain = False,
    dry_run: _DryRun = False,
) -> None:
    """Evaluate a model on SWE-bench Verified: play every instance, grade officially, write a report.

    Stop it at any time; the same command goes on, asks nothing twice and grades nothing twice. Exit code 1 where
    infrastructure errors left instances out.

    On a laptop: `aem-swe sandbox build`, then `aem-swe eval builtin/demo-policy --embedded -c swebench_demo`. For real:
    `aem-swe data pull swe-bench-verified`, `aem-swe sandbox pull data/swe-bench-verified`, `aem-swe eval FOLDER -w 32`.
    """
    from aem_swe.eval.swebench.dataset import Selection
    from aem_swe.eval.swebench.protocol import load_protocol
    from aem_swe.evaluate import Request
    from aem_swe.open_model import Model

    options = {"dataset": json.dumps(dataset) if dataset else None, "runs": runs, "seed": seed}
    given = [*(overrides or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]
    key = os.environ.get(api_key_env, "") if endpoint else ""
    served = Model(
        model=model, url=endpoint, api_key=key, tokenizer=tokenizer, timeout_s=request_timeout, embedded=embedded,
        tensor_parallel=tensor_parallel, vllm_arguments=tuple(vllm_arg or ()),
    )  # fmt: skip
    selection = Selection(split=split, subset=subset, slice_=slice_, filter_=filter_, shuffle=shuffle)
    request = Request(
        model=served, protocol=load_protocol(protocol, given), selection=selection,
        out=out or Path("runs/eval") / served.name.replace("/", "__"), workers=workers, engines=tuple(engine or ()),
        grading_workers=grading_workers, arm=arm, training_seed=training_seed, prices=_prices(price),
        again=retry_infrastructure, ray=ray,
    )  # fmt: skip
    _carry_out(request, plain=plain, dry_run=dry_run)


def _carry_out(request: "Request", *, plain: bool, dry_run: bool) -> None:
    from aem_swe.evaluate import evaluate as run
    from aem_swe.evaluate import prepare

    if dry_run:
        return _show(request, len(prepare(request, _say)[0].problems))

    def watch(total: int, already: int) -> AbstractContextManager["Progress"]:
        return _progress(str(request.out), total, already, plain=plain)

    _finish(request, run(request, watch=watch, say=_say))


@contextmanager
def _progress(title: str, total: int, already: int, *, plain: bool) -> Iterator["Progress"]:
    """A live table on a terminal, one line an instance elsewhere."""
    from aem_swe.eval.swebench.live import LiveEvaluation, PlainProgress

    console = Console()
    if console.is_terminal and not plain:
        with LiveEvaluation(console, title=title, total=total, already=already) as live:
            yield live
    else:
        yield PlainProgress(_say, total=total, already=already)


def _say(line: str) -> None:
    print(visible_line(line, 1000), flush=True)


def _show(request: "Request", instances: int) -> None:
    import yaml

    print(visible(yaml.safe_dump(request.protocol.model_dump(), sort_keys=False)), end="")
    total = instances * request.protocol.runs
    _say(
        f"# {instances} instances x {request.protocol.runs} runs = {total} episodes, to {request.out}; nothing started"
    )


def _prices(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        prompt, completion = (float(word) for word in text.split(","))
    except ValueError:
        prompt = completion = -1.0
    if not (0 <= prompt < float("inf") and 0 <= completion < float("inf")):
        raise ConfigError(f"--price {text!r} is not two numbers; write PROMPT,COMPLETION, for example 0.5,1.5")
    return prompt, completion


def _finish(request: "Request", evaluation: "Evaluation") -> None:
    """The headline, and the page."""
    from aem_swe.eval.swebench.measures import summarise, summary_text
    from aem_swe.eval.swebench.page import write_evaluation_page
    from aem_swe.eval.swebench.results import Status

    page = request.out / "report.html"
    write_evaluation_page(evaluation, page)
    _say(f"{evaluation.model}: {summary_text(summarise(evaluation))}")
    _say(f"report: {page}")
    if failed := evaluation.count()[Status.INFRASTRUCTURE]:
        _say(f"{failed} ended in infrastructure errors and are in no mean; try them anew with --retry-infrastructure")
        raise typer.Exit(1)
