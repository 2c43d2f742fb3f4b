"""Evaluate a model on SWE-bench instances: the parts of an evaluation put together, checked before anything starts.

Everything that can be wrong with what was asked is found before a server starts or an instance is played: the rows,
the images, the engines, the harness, the folder; then the endpoint is asked one small question.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.agents.policy import Policy
from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.dataset import Selection, dataset_sha256, load_rows, select
from aem_swe.eval.swebench.evaluation import Evaluator, Progress
from aem_swe.eval.swebench.plan import Plan, begin
from aem_swe.eval.swebench.play import LocalPlayer
from aem_swe.eval.swebench.protocol import Protocol
from aem_swe.eval.swebench.results import Evaluation, Status, load_evaluation
from aem_swe.metrics import git_commit, held, package_version
from aem_swe.open_model import Model, open_model, require_checkpoint
from aem_swe.rollout import Setting
from aem_swe.sandboxes import open_sandboxes
from aem_swe.sandboxes.base import DockerSettings
from aem_swe.sandboxes.diagnosis import missing_images
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.swebench_grading import harness
from aem_swe.tasks.swebench_rows import make_problem

Say = Callable[[str], None]
Watch = Callable[[int, int], AbstractContextManager[Progress]]
"""(all instances of all runs, those that are done) -> who is told of the others."""
_VERSIONS = ("aem-swe", "swebench", "vllm", "transformers", "openai")


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


def evaluate(request: Request, *, watch: Watch, say: Say) -> Evaluation:
    """Play and grade what is not yet done; returns all of it. The same call goes on after a kill.

    Raises ConfigError, RunError, PolicyError or SandboxError in one line.
    """
    plan, about = prepare(request, say)
    protocol = request.protocol
    with held(request.out, "--out"):
        done = begin(plan, about)
        if request.again:
            done = {unit: one for unit, one in done.items() if one.status is not Status.INFRASTRUCTURE}
        if len(done) < len(plan.units):
            with ExitStack() as resources:
                play = protocol.play
                policy, chat = resources.enter_context(
                    open_model(
                        request.model,
                        log=request.out / "vllm.log",
                        context=play.context,
                        temperature=play.temperature,
                        seed=protocol.seed,
                        retries=protocol.retries.requests,
                        say=say,
                    )
                )
                setting = resources.enter_context(_setting(request, chat, plan.problems))
                watched = resources.enter_context(watch(len(plan.units), len(done)))
                _work(plan, request, setting, policy, watched, done)
    return load_evaluation(request.out)


def _work(
    plan: Plan, request: Request, setting: Setting, policy: Policy, progress: Progress, done: dict[Any, Any]
) -> None:
    left = [unit for unit in plan.units if unit not in done]
    tasks = {problem.task.id: problem.task for problem in plan.problems}
    setting.sandboxes.expect([tasks[name] for _, name in left])
    evaluator: Evaluator
    player = LocalPlayer(
        setting, policy, request.out, request.protocol.retries, lambda: evaluator.stopping(), again=request.again
    )
    evaluator = Evaluator(plan, player, progress, done)
    evaluator.run()


def prepare(request: Request, say: Say) -> tuple[Plan, dict[str, Any]]:
    """Read and check everything that needs no model; returns what to do and what evaluation.json will say."""
    protocol, wanted = request.protocol, request.protocol.grading.swebench
    if not request.model.url:
        require_checkpoint(request.model.model)
    harness("constants")  # says how to install it where it is missing
    installed = package_version("swebench") or ""
    if wanted and installed != wanted:
        raise ConfigError(
            f"grading.swebench {wanted} is the protocol's harness and {installed} is installed; "
            f"pip install swebench=={wanted}, or use grading.swebench={installed}"
        )
    load_agent(protocol.play.agent)
    if not protocol.dataset:
        raise ConfigError("there is no data set; give --dataset ROWS (a file or a folder), or put it in the protocol")
    loaded = load_rows(Path(protocol.dataset), request.selection.split)
    for bad in loaded.bad:
        say(f"left out {bad.id}: {bad.reason}")
    rows = {str(row["instance_id"]): row for row in select(loaded.rows, request.selection)}
    problems = [make_problem(row, reward="swebench") for row in rows.values()]
    images = [problem.task.image for problem in problems]
    if missing := missing_images(DockerSettings(engines=request.engines), images):
        raise ConfigError(
            f"{len(missing)} of {len(set(images))} images are on no engine, the first is {missing[0]}; fetch them: "
            f"aem-swe sandbox pull {protocol.dataset}"
        )
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
    return plan, _about(request, plan, installed)


def _about(request: Request, plan: Plan, harness: str) -> dict[str, Any]:
    protocol = request.protocol
    return {
        "model": plan.model,
        "arm": request.arm,
        "training_seed": request.training_seed,
        "endpoint": request.model.about(),
        "protocol": protocol.model_dump(),
        "protocol_sha256": protocol.sha256,
        "dataset": {
            "path": protocol.dataset,
            "sha256": dataset_sha256(plan.rows.values()),
            "instances": len(plan.rows),
        },
        "dataset_sha256": dataset_sha256(plan.rows.values()),
        "runs": protocol.runs,
        "seed": protocol.seed,
        "harness": {
            "swebench": harness,
            "network": protocol.grading.network,
            "memory_mb": protocol.grading.memory_mb,
            "timeout_s": protocol.grading.timeout_s,
        },
        "prices": request.prices,
        "versions": {name: package_version(name) for name in _VERSIONS},
        "git_commit": git_commit(),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@contextmanager
def _setting(request: Request, chat: ChatFormat | None, problems: Sequence[Problem]) -> Iterator[Setting]:
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
