"""Evaluate a model on SWE-bench instances: the parts of an evaluation put together, checked before anything starts.

Everything that can be wrong with what was asked is found before a server starts or an instance is played: the rows,
the images, the engines, the harness, the folder; then the endpoint is asked one small question.
"""

import os.path
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.agents.policy import Policy
from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.dataset import Selection, load_rows, select
from aem_swe.eval.swebench.evaluation import Evaluator, Progress
from aem_swe.eval.swebench.folder import about_grading, open_folder
from aem_swe.eval.swebench.plan import Plan, Unit
from aem_swe.eval.swebench.play import LocalPlayer, Player
from aem_swe.eval.swebench.protocol import Protocol
from aem_swe.eval.swebench.ray_actor import Work, claims_in
from aem_swe.eval.swebench.ray_player import RayPlayer, open_ray_player
from aem_swe.eval.swebench.results import Evaluation, Status, load_evaluation
from aem_swe.metrics import held
from aem_swe.open_model import Model, open_model
from aem_swe.rollout import Setting
from aem_swe.sandboxes import open_sandboxes
from aem_swe.sandboxes.base import DockerSettings
from aem_swe.sandboxes.diagnosis import require_images
from aem_swe.tasks.swebench_rows import make_problem

Say = Callable[[str], None]
Watch = Callable[[int, int], AbstractContextManager[Progress]]
"""(all instances of all runs, those that are done) -> who is told of the others."""


@dataclass(frozen=True, slots=True)
class Request:
    """What `aem-swe eval` is asked for."""

    model: Model
    protocol: Protocol
    selection: Selection
    out: Path
    workers: int = 2
    grading_workers: int = 2
    engines: tuple[str, ...] = ()
    arm: str = ""
    training_seed: int | None = None
    prices: tuple[float, float] | None = None
    again: bool = False
    """Also those that ended in an infrastructure error before."""
    ray: str = ""
    """The address of a Ray whose nodes play; `engines` are then those that grade. Empty: this machine plays."""


def evaluate(request: Request, *, watch: Watch, say: Say) -> Evaluation:
    """Play and grade what is not yet done; returns all of it. The same call goes on after a kill.

    Raises ConfigError, RunError, PolicyError or SandboxError in one line.
    """
    plan, about = prepare(request, say)
    with held(request.out, "--out"):
        done = open_folder(request.out, about, plan.rows.values())
        if request.again:
            done = {unit: one for unit, one in done.items() if one.status is not Status.INFRASTRUCTURE}
        left, ending = [unit for unit in plan.units if unit not in done], threading.Event()
        with ExitStack() as resources:
            player = resources.enter_context(_player(plan, request, left, ending, say)) if left else None
            watched = resources.enter_context(watch(len(plan.units), len(plan.units) - len(left)))
            Evaluator(plan, player, watched, done, ending).run()
    return load_evaluation(request.out)


@contextmanager
def _player(plan: Plan, request: Request, left: Sequence[Unit], ending: threading.Event, say: Say) -> Iterator[Player]:
    if request.ray:
        with _cluster(plan, request, say) as cluster:
            yield cluster
        return
    with _opened(request, say) as (setting, policy):
        tasks = {problem.task.id: problem.task for problem in plan.problems}
        setting.sandboxes.expect([tasks[name] for _, name in left])
        yield LocalPlayer(setting, policy, request.out, request.protocol.retries, ending.is_set)


@contextmanager
def _cluster(plan: Plan, request: Request, say: Say) -> Iterator[RayPlayer]:
    """Actors that open what `_opened` opens on nodes of their own; paths are absolute, for another folder is theirs."""
    out, tokenizer = request.out.absolute(), request.model.tokenizer
    model = replace(request.model, tokenizer=str(Path(tokenizer).absolute()) if os.path.isdir(tokenizer) else tokenizer)
    work = Work(
        folder=out,
        claims=claims_in(out),
        opening=partial(_opened, replace(request, model=model, out=out, engines=()), _silent),
        images=[problem.task.image for problem in plan.problems],
        retries=request.protocol.retries,
    )
    say(f"joining Ray ({request.ray})")
    with open_ray_player(request.ray, work, workers=request.workers) as player:
        say(f"playing on {len(player.nodes)} nodes: {', '.join(node.name for node in player.nodes)}")
        yield player


def _silent(line: str) -> None:
    """On a node nobody listens."""


def _require_ray(model: Model) -> None:
    if model.embedded or not model.url:
        raise ConfigError(
            "--ray plays on other machines, and they reach neither an --embedded model nor one that is served here for "
            "the run, on loopback; serve it yourself, and give --endpoint URL, which every node reaches"
        )
    if find_spec("ray") is None:
        raise ConfigError("--ray needs Ray, which is not installed; pip install 'ray[client]', the nodes' version")


def prepare(request: Request, say: Say) -> tuple[Plan, dict[str, Any]]:
    """Read and check everything that needs no model; returns what to do and what evaluation.json will say.

    The images are looked for on the driver's engines, which grade; with --ray every node looks for them on its own.
    """
    if request.ray:
        _require_ray(request.model)
    protocol = request.protocol
    request.model.check()
    protocol.grading.require_harness()
    load_agent(protocol.play.agent)
    if not protocol.dataset:
        raise ConfigError("there is no data set; give --dataset ROWS (a file or a folder), or put it in the protocol")
    loaded = load_rows(Path(protocol.dataset), request.selection.split)
    for bad in loaded.bad:
        say(f"left out {bad.id}: {bad.reason}")
    rows = {str(row["instance_id"]): row for row in select(loaded.rows, request.selection)}
    problems = [make_problem(row, reward="swebench") for row in rows.values()]
    images = [problem.task.image for problem in problems]
    require_images(DockerSettings(engines=request.engines), images, protocol.dataset)
    plan = Plan(
        folder=request.out,
        model=request.model.name,
        protocol=protocol,
        rows=rows,
        problems=problems,
        workers=request.workers,
        grading_workers=request.grading_workers,
        engines=request.engines,
        prices=request.prices,
    )
    return plan, _about(request, plan)


def _about(request: Request, plan: Plan) -> dict[str, Any]:
    protocol, grading = request.protocol, request.protocol.grading
    return {
        "model": plan.model,
        "arm": request.arm,
        "training_seed": request.training_seed,
        "identity": request.model.identity(),
        "endpoint": request.model.url.rpartition("@")[2],
        "protocol": protocol.model_dump(),
        "protocol_sha256": protocol.sha256,
        "runs": protocol.runs,
        "seed": protocol.seed,
        "prices": request.prices,
        **about_grading(
            plan.rows.values(),
            path=protocol.dataset,
            network=grading.network,
            memory_mb=grading.memory_mb,
            timeout_s=grading.timeout_s,
        ),
    }


@contextmanager
def _opened(request: Request, say: Say) -> Iterator[tuple[Setting, Policy]]:
    """The model and the sandboxes of a process that plays."""
    protocol = request.protocol
    opened = open_model(
        request.model,
        log=request.out / "vllm.log",
        context=protocol.play.context,
        temperature=protocol.play.temperature,
        seed=protocol.seed,
        retries=protocol.retries.requests,
        say=say,
    )
    with opened as (policy, chat), _setting(request, chat) as setting:
        yield setting, policy


@contextmanager
def _setting(request: Request, chat: ChatFormat | None) -> Iterator[Setting]:
    protocol = request.protocol
    definition = load_agent(protocol.play.agent)
    with open_sandboxes(
        "docker",
        limits=protocol.machine.limits(protocol.play.command_timeout_s),
        programs=definition.programs(),
        docker=DockerSettings(engines=request.engines, cpus=protocol.machine.cpus, warm=request.workers),
        run=f"eval {request.out}",
    ) as sandboxes:
        yield Setting(
            definition=definition,
            limits=protocol.play.limits(),
            history=protocol.play.history,
            chat=chat,
            sandboxes=sandboxes,
            trajectory_timeout_s=protocol.play.trajectory_timeout_s,
        )
