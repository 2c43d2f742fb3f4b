"""Train on one machine, in one process: rollout -> score -> filter -> advantages -> AEM -> update, step after step.

Every random choice is a function of (seed, step), or where a step plays several rounds (rounds.py) of (seed, step,
round): which tasks, what is sampled, the order of minibatches. So a run can be killed anywhere and resumed from its
last checkpoint to the same weights, and two runs with one seed are equal.
"""

import copy
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aem_swe.engines.batch import build_batch
from aem_swe.engines.device_time import on_device, peak_memory, reset_peak
from aem_swe.engines.local import records
from aem_swe.engines.local.checkpoint import load_optimizer, prune_checkpoints, save_checkpoint
from aem_swe.engines.local.model import LocalModel, enable_gradient_checkpointing, load_model, model_folder
from aem_swe.engines.local.resume import starting_point
from aem_swe.engines.local.rounds import Played, play_rounds, require_survivors
from aem_swe.engines.local.session import Session, evaluate, open_session
from aem_swe.engines.local.step import score_batch, update
from aem_swe.engines.problems import load_problems
from aem_swe.engines.run_start import describe
from aem_swe.engines.trajectories import trajectory_json
from aem_swe.engines.update import judge, prepare, trajectory_advantages
from aem_swe.metrics import RunFolder
from aem_swe.profiling import Stopwatch, flush, record, span
from aem_swe.schema import Recipe
from aem_swe.tasks.grading import Problem

Json = dict[str, Any]  # JSON values
Observer = Callable[[Json], None]
"""Called with every metrics row."""


@dataclass(frozen=True, slots=True)
class Run:
    """Everything that a training run holds open."""

    session: Session
    folder: RunFolder
    reference: LocalModel | None
    optimizer: torch.optim.Optimizer
    pool: list[Problem]
    held_out: list[Problem]

    @property
    def recipe(self) -> Recipe:
        return self.session.recipe

    @property
    def checkpoints(self) -> Path:
        return self.folder.path / "checkpoints"


def train(recipe: Recipe, *, resume: bool, observe: Observer, say: Callable[[str], None] = lambda line: None) -> None:
    """Run `recipe` in its run_dir. Raises ConfigError, RunError or SandboxUnavailable with one line for the user."""
    torch.set_num_threads(recipe.trainer.threads)
    began = time.perf_counter()
    folder = RunFolder(Path(recipe.run_dir))
    with ExitStack() as resources:
        fresh = not folder.started
        if not fresh:
            resources.enter_context(folder.locked())
        checkpoint, first = starting_point(recipe, folder, resume=resume)
        if first > recipe.trainer.steps:
            return say(f"{folder.path}: all {recipe.trainer.steps} steps are done")
        if not fresh:
            say(f"{folder.path}: {f'continuing after step {first - 1}' if checkpoint else 'starting over at step 1'}")
        run = _open_run(recipe, folder, checkpoint, resources, say)
        if fresh:  # only now, so that a recipe that cannot be opened leaves no folder
            resources.enter_context(folder.locked())
        describe(recipe, folder, first, model_folder=model_folder(recipe.model.path))
        resources.enter_context(folder.recorded_spans(recipe.trainer.profile))
        record("startup", began, time.perf_counter() - began)
        if first == 1 and recipe.trainer.eval_every:
            with span("step", step=0):
                with span("evaluation", phase="evaluation"):
                    evaluation = _evaluate(run, 0)
                _record(run, {"step": 0, **evaluation}, observe)
        for step in range(first, recipe.trainer.steps + 1):
            reset_peak(run.session.model.device)
            with span("step", step=step) as whole:
                with span("record"):
                    flush()  # a run that is killed leaves all steps that ended
                _record(run, _train_step(run, step), observe)
                with span("checkpoint/prune"):
                    prune_checkpoints(run.checkpoints, keep=recipe.trainer.keep_checkpoints)
                whole.set(**peak_memory(run.session.model.device))


def _record(run: Run, row: Json, observe: Observer) -> None:
    with span("record"):
        run.folder.append(row)
        observe(row)


def _open_run(
    recipe: Recipe,
    folder: RunFolder,
    checkpoint: Path | None,
    resources: ExitStack,
    say: Callable[[str], None] = lambda line: None,
) -> Run:
    model = load_model(str(checkpoint or recipe.model.path), device=recipe.model.device, dtype=recipe.model.dtype)
    if recipe.model.gradient_checkpointing:
        enable_gradient_checkpointing(model.network)
    reference = _reference(recipe, model, checkpoint)
    o = recipe.optimizer
    optimizer = torch.optim.AdamW(model.parameters, lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay)
    if checkpoint:
        load_optimizer(checkpoint, optimizer)
    problems = load_problems(recipe, say)
    session = resources.enter_context(open_session(recipe, model, problems))
    return Run(session, folder, reference, optimizer, problems.pool, problems.held_out)


def _reference(recipe: Recipe, model: LocalModel, checkpoint: Path | None) -> LocalModel | None:
    """The frozen starting policy, where the KL loss wants one."""
    if recipe.algorithm.kl_coefficient == 0:
        return None
    if checkpoint:
        return load_model(recipe.model.path, device=recipe.model.device, dtype=recipe.model.dtype)
    return LocalModel(copy.deepcopy(model.network), model.chat, model.device, model.autocast)


def _train_step(run: Run, step: int) -> Json:
    recipe, stopwatch, began = run.recipe, Stopwatch(), time.perf_counter()
    with stopwatch.stage("rollout", phase="rollout"):
        played = play_rounds(run.session, run.pool, step, stopwatch)
    metrics = _learn(run, step, played, stopwatch)
    last = step == recipe.trainer.steps
    evaluation: Json = {}
    if recipe.trainer.eval_every and (last or step % recipe.trainer.eval_every == 0):
        with stopwatch.stage("evaluation", phase="evaluation"):
            evaluation = _evaluate(run, step)
    if last or (recipe.trainer.save_every and step % recipe.trainer.save_every == 0):
        with stopwatch.stage("checkpoint"):
            save_checkpoint(run.checkpoints, step, run.session.model, run.optimizer)
    stopwatch.add("step", time.perf_counter() - began)
    return {"step": step, **metrics, **evaluation, **{f"timing_s/{name}": s for name, s in stopwatch.seconds.items()}}


def _learn(run: Run, step: int, played: Played, stopwatch: Stopwatch) -> Json:
    """From trajectories to new weights; returns the metrics."""
    recipe, trajectories = run.recipe, played.trajectories
    with stopwatch.stage("batch"):
        batch = build_batch(trajectories, layout=recipe.algorithm.layout)
    device = run.session.model.device
    with stopwatch.stage("old_log_prob", tokens=int(batch.length_B.sum())) as scoring, on_device(scoring, device):
        scores = score_batch(run.session.model, batch, recipe)
    reference_BT = None
    if run.reference:
        with stopwatch.stage("ref_log_prob") as scoring, on_device(scoring, device):
            reference_BT = score_batch(run.reference, batch, recipe).logprobs_BT
    with stopwatch.stage("filter"):
        s = recipe.sampling
        verdict = judge(
            trajectories, recipe.algorithm, drop_uniform_groups=s.drop_uniform_groups, most_groups=s.prompts
        )
    with stopwatch.stage("advantage"):
        advantages_N = trajectory_advantages(
            trajectories, batch, verdict, recipe.algorithm, budget=recipe.agent.response_budget
        )
    prepared = prepare(
        batch, verdict, advantages_N, scores.logprobs_BT, scores.entropy_BT, recipe.algorithm, recipe.aem, stopwatch
    )
    with stopwatch.stage("update"):
        _set_learning_rate(run, step)
        minibatches = _minibatches(recipe, step, verdict.kept_groups)
        statistics = update(run.session.model, run.optimizer, prepared, reference_BT, minibatches, recipe)
    with stopwatch.stage("record"):
        rows = records.training_records(trajectories, prepared, verdict, advantages_N, scores.entropy_BT)
        run.folder.write_trajectories(f"step_{step:06d}", rows)
        return {
            "sampling/rounds": played.rounds,
            "sampling/kept_groups": len(verdict.kept_groups),
            **records.rollout_metrics(trajectories, batch, scores),
            **records.filter_metrics(verdict),
            **records.modulation_metrics(prepared),
            **statistics.metrics(with_kl=run.reference is not None),
        }


def _set_learning_rate(run: Run, step: int) -> None:
    warmup = run.recipe.optimizer.warmup_steps
    for group in run.optimizer.param_groups:
        group["lr"] = run.recipe.optimizer.lr * (min(1.0, step / warmup) if warmup else 1.0)


def _minibatches(recipe: Recipe, step: int, groups: list[int]) -> list[Tensor]:
    """Split the groups that are left of a step, in a random order that depends on (seed, step) alone.

    A mini-batch holds prompts / minibatches of them, the last one fewer: a step with fewer groups makes fewer updates,
    not smaller ones.
    """
    random.Random(f"{recipe.seed}/{step}/minibatches").shuffle(groups)
    size = recipe.sampling.prompts // recipe.trainer.minibatches
    return [torch.tensor(groups[start : start + size]) for start in range(0, len(groups), size)]


def _evaluate(run: Run, step: int) -> Json:
    metrics, trajectories = evaluate(run.session, run.held_out, version=step)
    require_survivors(trajectories)
    run.folder.write_trajectories(f"eval_{step:06d}", [trajectory_json(t) for t in trajectories])
    return metrics
