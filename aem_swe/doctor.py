"""Does this machine have what a recipe needs? One check per line, each failure with its remedy."""

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from aem_swe.check import Check, room_for
from aem_swe.errors import AemSweError
from aem_swe.schema import Recipe
from aem_swe.worlds import is_world

if TYPE_CHECKING:  # tasks take a moment to import, and the demo needs none of this
    from aem_swe.tasks.grading import Problem

_DISK_GB = 1.0
_MEMORY_GB = 2.0


def examine(recipe: Recipe) -> list[Check]:
    """Run every check, the later ones also where an earlier one failed."""
    checks: list[Callable[[], Check]] = [_python, _memory, _git]
    if recipe.engine == "local":
        checks[2:2] = [lambda: _disk(recipe.run_dir)]
        checks += [lambda: _torch(recipe), lambda: _model(recipe)]
    found = [check() for check in checks]
    if recipe.engine == "rllm":
        from aem_swe.engines.rllm.doctor import examine_cluster

        found += examine_cluster(recipe)
    if recipe.sandbox.kind == "docker":
        return found + _containers(recipe)
    if is_world(recipe.data.source):
        return [*found, _world(recipe.data.source)]
    return [*found, _sandbox(recipe)]


def _python() -> Check:
    good = sys.version_info >= (3, 11) and platform.system() == "Linux"
    return Check(
        "platform",
        good,
        f"Python {platform.python_version()} on {platform.system()}",
        "use Linux with Python 3.11 or newer",
    )


def _memory() -> Check:
    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    gigabytes = int(rows["MemAvailable"].split()[0]) / 2**20  # free, or held by caches that give way
    cores = len(os.sched_getaffinity(0))
    return Check(
        "memory", gigabytes >= _MEMORY_GB, f"{gigabytes:.1f} GB available, {cores} cores", f"free {_MEMORY_GB:.0f} GB"
    )


def _disk(run_dir: str) -> Check:
    room = room_for(run_dir)
    finding = f"{room.free_gib:.1f} GB free at {room.place}" + f", {room.problem}" * bool(room.problem)
    good = not room.problem and room.free_gib >= _DISK_GB
    return Check("disk", good, finding, f"free {_DISK_GB:.0f} GB or choose another run_dir")


def _git() -> Check:
    found = shutil.which("git")
    return Check("git", found is not None, found or "not found", "install git: sandboxes take patches with it")


def _torch(recipe: Recipe) -> Check:
    import torch

    device = recipe.model.device
    gpus = torch.cuda.device_count()
    finding = f"{torch.__version__}, {gpus} CUDA GPUs, model.device={device}"
    return Check("torch", device != "cuda" or gpus > 0, finding, "use model.device=cpu")


def _model(recipe: Recipe) -> Check:
    from aem_swe.engines.local.model import load_model

    try:
        model = load_model(recipe.model.path, device="cpu")
    except AemSweError as error:
        return Check("model", False, str(error), "see above")
    millions = sum(p.numel() for p in model.parameters) / 1e6
    return Check("model", True, f"{recipe.model.path}, {millions:.1f}M parameters, tokenizer and chat template usable")


def _world(source: str) -> Check:
    """Games run in processes of their own, not in sandboxes."""
    from aem_swe.worlds.layouts import missing

    what, _, remedy = (missing() or "").partition("; ")
    return Check("worlds", not what, what or f"{source}: textworld, alfworld and its planner are installed", remedy)


def _sandbox(recipe: Recipe) -> Check:
    from aem_swe.sandboxes import unavailable_reason

    reason, *remedies = (
        unavailable_reason(recipe.sandbox.kind, backend=recipe.sandbox.backend) or ""
    ).splitlines() or [""]
    finding = reason or f"{recipe.sandbox.kind}: a command ran inside and its change came back as a patch"
    return Check("sandbox", not reason, finding, "; ".join(remedy.removeprefix("- ") for remedy in remedies))


def _tasks(recipe: Recipe) -> "tuple[list[Check], list[Problem]]":
    """The tasks of both data sets that a recipe plays, and what is wrong with either."""
    from aem_swe.tasks.source import DEMO, Source, held_out, training_pool

    checks: list[Check] = []
    problems: list[Problem] = []
    seed = recipe.seed if recipe.data.seed is None else recipe.data.seed
    source = Source(recipe.data.source, recipe.data.reward, recipe.data.leave_out_verified)
    try:
        if source.name != DEMO:
            loaded = training_pool(recipe.data.pool, seed, source)
            problems += loaded.problems
            bad = f", {len(loaded.bad)} rows cannot be used (aem-swe tasks show lists them)" if loaded.bad else ""
            checks.append(Check("tasks", True, f"{len(problems)} tasks of {source.name} in the pool{bad}"))
    except AemSweError as error:
        checks.append(_no_tasks("tasks", source.name, error))
    try:
        if recipe.trainer.eval_every and recipe.data.held_out not in ("", DEMO):
            problems += held_out(recipe.trainer.eval_tasks, replace(source, name=recipe.data.held_out))
    except AemSweError as error:
        checks.append(_no_tasks("held-out tasks", recipe.data.held_out, error))
    return checks, problems


def _no_tasks(name: str, rows: str, error: AemSweError) -> Check:
    """With the command that makes the rows, where they are ours and not there."""
    from aem_swe.tasks.hub import DATA_SETS

    commands = {"data/r2e-demo": "aem-swe sandbox build"}
    commands |= {f"data/{known}": f"aem-swe data pull {known}" for known in DATA_SETS}
    what, _, remedy = str(error).partition("; ")
    command = "" if os.path.exists(rows) else commands.get(str(Path(rows).parent), "")
    return Check(name, False, what, f"bring them here: {command}" if command else remedy or "name other rows")


def _containers(recipe: Recipe) -> list[Check]:
    """The tasks that the recipe plays, and every engine that should run them."""
    from aem_swe.engines.setting import docker_settings, sandbox_limits
    from aem_swe.sandboxes.diagnosis import diagnose

    checks, problems = _tasks(recipe)
    if not all(check.passed for check in checks):
        return checks
    settings = docker_settings(recipe.sandbox)
    images = [problem.task.image for problem in problems] or [settings.image]
    at_once = recipe.sandbox.warm + recipe.sampling.prompts * recipe.sampling.rollouts
    return checks + diagnose(
        settings, sandbox_limits(recipe.sandbox), images, problems[0].task if problems else None, at_once=at_once
    )
