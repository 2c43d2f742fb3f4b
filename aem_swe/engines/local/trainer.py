"""Train on one machine, in one process: rollout -> score -> filter -> advantages -> AEM -> update, step after step.

Every random choice is a function of (seed, step): which tasks, what is sampled, the order of minibatches. So a run can
be killed anywhere and resumed from its last checkpoint to the same weights, and two runs with one seed are equal.
"""

import copy
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aem_swe.config import Recipe, dump_recipe
from aem_swe.engines.batch import build_batch
from aem_swe.engines.local import records
from aem_swe.engines.local.checkpoint import (
    checkpoint_step,
    last_checkpoint,
    load_optimizer,
    prune_checkpoints,
    save_checkpoint,
)
from aem_swe.engines.local.model import LocalModel, enable_gradient_checkpointing, load_model, model_folder
from aem_swe.engines.local.session import TRAINING, Session, evaluate, open_session, play
from aem_swe.engines.local.step import score_batch, update
from aem_swe.engines.update import judge, prepare, trajectory_advantages
from aem_swe.errors import ConfigError, RunError
from aem_swe.metrics import RunFolder, manifest
from aem_swe.profiling import Stopwatch
from aem_swe.resources import resource
from aem_swe.tasks.source import Problem, held_out, problems_of_step, training_pool
from aem_swe.types import Trajectory

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


def train(recipe: Recipe, *, resume: bool, observe: Observer) -> None:
    """Run `recipe` in its run_dir. Raises ConfigError, RunError or SandboxUnavailable with one line for the user."""
    torch.set_num_threads(recipe.trainer.threads)
    folder = RunFolder(Path(recipe.run_dir))
    checkpoint, first = _starting_point(recipe, folder, resume)
    with ExitStack() as resources:
        run = _open_run(recipe, folder, checkpoint, resources)
        if first == 1:
            _create(recipe, folder)
        if first == 1 and recipe.trainer.eval_every:
            _record(run, {"step": 0, **_evaluate(run, 0)}, observe)
        for step in range(first, recipe.trainer.steps + 1):
            _record(run, _train_step(run, step), observe)
            prune_checkpoints(run.checkpoints, keep=recipe.trainer.keep_checkpoints)


def _record(run: Run, row: Json, observe: Observer) -> None:
    run.folder.append(row)
    observe(row)


def _starting_point(recipe: Recipe, folder: RunFolder, resume: bool) -> tuple[Path | None, int]:
    """Return the checkpoint to start from and the first step to run."""
    if folder.started and not resume:
        raise RunError(
            f"run_dir {recipe.run_dir!r} holds a run already; continue it with --resume or choose another run_dir"
        )
    if not folder.started:
        return None, 1
    _check_same_recipe(recipe, folder)
    checkpoint = last_checkpoint(folder.path / "checkpoints", recorded=folder.last_step())
    if checkpoint is None:
        return None, 1
    step = checkpoint_step(checkpoint)
    folder.rewind(step)
    return checkpoint, step + 1


def _check_same_recipe(recipe: Recipe, folder: RunFolder) -> None:
    """A run is resumed with the recipe that it was started with; only trainer.steps may grow."""
    path = folder.path / "config.yaml"
    try:
        saved = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); restore it or choose another run_dir") from error
    now = dump_recipe(recipe).splitlines()
    differing = [
        line.strip() for line in now if line not in saved and not line.strip().startswith(("steps:", "run_dir:"))
    ]
    if differing:
        raise ConfigError(
            f"run_dir {recipe.run_dir!r} was started with other settings than {differing};"
            " resume without them or choose another run_dir"
        )


def _data_seed(recipe: Recipe) -> int:
    return recipe.seed if recipe.data.seed is None else recipe.data.seed


def _open_run(recipe: Recipe, folder: RunFolder, checkpoint: Path | None, resources: ExitStack) -> Run:
    model = load_model(str(checkpoint or recipe.model.path), device=recipe.model.device, dtype=recipe.model.dtype)
    if recipe.model.gradient_checkpointing:
        enable_gradient_checkpointing(model.network)
    reference = _reference(recipe, model, checkpoint)
    o = recipe.optimizer
    optimizer = torch.optim.AdamW(model.parameters, lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay)
    if checkpoint:
        load_optimizer(checkpoint, optimizer)
    pool = training_pool(recipe.data.pool, _data_seed(recipe))
    tests = held_out(recipe.trainer.eval_tasks) if recipe.trainer.eval_every else []
    session = resources.enter_context(open_session(recipe, model, [*pool, *tests]))
    return Run(session, folder, reference, optimizer, pool, tests)


def _create(recipe: Recipe, folder: RunFolder) -> None:
    about = manifest(
        recipe=Path(recipe.run_dir).name,
        seed=recipe.seed,
        model_folder=model_folder(recipe.model.path),
        agent_folder=resource("agents", recipe.agent.definition),
    )
    folder.create(dump_recipe(recipe), about)
    folder.rewind(-1)


def _reference(recipe: Recipe, model: LocalModel, checkpoint: Path | None) -> LocalModel | None:
    """The frozen starting policy, where the KL loss wants one."""
    if recipe.algorithm.kl_coefficient == 0:
        return None
    if checkpoint:
        return load_model(recipe.model.path, device=recipe.model.device, dtype=recipe.model.dtype)
    return LocalModel(copy.deepcopy(model.network), model.chat, model.device)


def _train_step(run: Run, step: int) -> Json:
    recipe, stopwatch = run.recipe, Stopwatch()
    with stopwatch.stage("step"):
        problems = problems_of_step(run.pool, step, recipe.sampling.prompts, _data_seed(recipe))
        with stopwatch.stage("rollout"):
            seed = (TRAINING, step)
            trajectories = play(
                run.session, problems, recipe.sampling.rollouts, seed=seed, version=step - 1, stopwatch=stopwatch
            )
        metrics = _learn(run, step, trajectories, stopwatch)
        last = step == recipe.trainer.steps
        evaluation: Json = {}
        if recipe.trainer.eval_every and (last or step % recipe.trainer.eval_every == 0):
            with stopwatch.stage("evaluation"):
                evaluation = _evaluate(run, step)
        if last or (recipe.trainer.save_every and step % recipe.trainer.save_every == 0):
            with stopwatch.stage("checkpoint"):
                save_checkpoint(run.checkpoints, step, run.session.model, run.optimizer)
    return {"step": step, **metrics, **evaluation, **{f"timing_s/{name}": s for name, s in stopwatch.seconds.items()}}


def _learn(run: Run, step: int, trajectories: list[Trajectory], stopwatch: Stopwatch) -> Json:
    """From trajectories to new weights; returns the metrics."""
    recipe = run.recipe
    batch = build_batch(trajectories, layout=recipe.algorithm.layout)
    with stopwatch.stage("old_log_prob"):
        scores = score_batch(run.session.model, batch, recipe)
        reference_BT = score_batch(run.reference, batch, recipe).logprobs_BT if run.reference else None
    with stopwatch.stage("advantage"):
        verdict = judge(trajectories, recipe.algorithm, drop_uniform_groups=recipe.sampling.drop_uniform_groups)
        advantages_N = trajectory_advantages(
            trajectories, batch, verdict, recipe.algorithm, budget=recipe.agent.response_budget
        )
    with stopwatch.stage("aem"):
        prepared = prepare(
            batch, verdict, advantages_N, scores.logprobs_BT, scores.entropy_BT, recipe.algorithm, recipe.aem
        )
    with stopwatch.stage("update"):
        _set_learning_rate(run, step)
        statistics = update(
            run.session.model, run.optimizer, prepared, reference_BT, _minibatches(recipe, step), recipe
        )
    rows = records.training_records(trajectories, prepared, verdict, advantages_N, scores.entropy_BT)
    run.folder.write_trajectories(f"step_{step:06d}", rows)
    return {
        **records.rollout_metrics(trajectories, batch, scores),
        **records.filter_metrics(verdict),
        **records.modulation_metrics(prepared),
        **statistics.metrics(),
    }


def _set_learning_rate(run: Run, step: int) -> None:
    warmup = run.recipe.optimizer.warmup_steps
    for group in run.optimizer.param_groups:
        group["lr"] = run.recipe.optimizer.lr * (min(1.0, step / warmup) if warmup else 1.0)


def _minibatches(recipe: Recipe, step: int) -> list[Tensor]:
    """Split the step's groups, in a random order that depends on (seed, step) alone."""
    groups = list(range(recipe.sampling.prompts))
    random.Random(f"{recipe.seed}/{step}/minibatches").shuffle(groups)
    return list(torch.tensor(groups).chunk(recipe.trainer.minibatches))


def _evaluate(run: Run, step: int) -> Json:
    metrics, trajectories = evaluate(run.session, run.held_out, version=step)
    run.folder.write_trajectories(f"eval_{step:06d}", [records.trajectory_json(t) for t in trajectories])
    return metrics
