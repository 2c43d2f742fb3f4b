"""`aem-swe train` with engine=rllm: from a recipe to a run on a Ray cluster.

The driver checks, writes the run folder's first files and starts rLLM; everything else happens in rLLM's task runner,
a Ray actor that needs the package, the tasks and the run folder under the same paths.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import ray
from omegaconf import open_dict
from rllm.data import Dataset
from rllm.trainer.unified_trainer import AgentTrainer
from transformers.utils.hub import cached_file

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.engines.paths import model_path
from aem_swe.engines.problems import load_problems
from aem_swe.engines.rllm.dry_run import check_keys
from aem_swe.engines.rllm.estimators import estimator_of
from aem_swe.engines.rllm.flow import SweFlow, row_of
from aem_swe.engines.rllm.hand_over import HandOver
from aem_swe.engines.rllm.launch import aem_backend
from aem_swe.engines.rllm.outcome import in_one_line, last_checkpoint
from aem_swe.engines.rllm.settings import cluster_config
from aem_swe.engines.rllm.swe_backend import SECTION, SweBackend
from aem_swe.engines.run_start import describe, may_resume
from aem_swe.engines.tokenizer import load_chat
from aem_swe.errors import ClusterError, ConfigError
from aem_swe.eval.swebench.validation import require_context
from aem_swe.metrics import RunFolder
from aem_swe.schema import Recipe
from aem_swe.tasks.grading import Problem


def train(recipe: Recipe, *, resume: bool, say: Callable[[str], None] = print) -> None:
    """Run `recipe` in its run_dir. Raises ConfigError, RunError or ClusterError with one line for the user."""
    recipe = _absolute(recipe)
    folder = RunFolder(Path(recipe.run_dir))
    config = cluster_config(recipe)
    check_keys(recipe, config)
    problems = load_problems(recipe, say)
    if problems.validation:
        served = recipe.cluster.max_prompt_tokens + recipe.agent.response_budget
        remedy = "raise agent.response_budget, or use a protocol with a shorter play.context"
        require_context(problems.validation.protocol, served, remedy)
    chat = load_chat(recipe.model.path)
    train_rows = _rows(recipe, problems.pool, "train", chat, say)
    held_out_rows = _rows(recipe, problems.held_out, "held_out", chat, say)
    again = may_resume(recipe, folder, resume=resume)
    with folder.locked():
        done = last_checkpoint(folder) if again else 0
        if done >= recipe.trainer.steps:
            return say(f"{folder.path}: all {recipe.trainer.steps} steps are done")
        if again:
            say(f"{folder.path}: {f'continuing after step {done}' if done else 'starting over at step 1'}")
            folder.rewind(done)
        describe(recipe, folder, done + 1, model_folder=_model_folder(recipe.model.path))
        with open_dict(config):
            config[SECTION] = {"recipe": recipe.model_dump(by_alias=True)}
        try:
            with aem_backend(SweBackend):
                AgentTrainer(
                    config=config,
                    backend="verl",
                    agent_flow=SweFlow(recipe),
                    evaluator=HandOver(),
                    traj_group_adv_estimator_map=estimator_of(recipe.algorithm.advantage),
                    train_dataset=Dataset(data=train_rows, name=recipe.recipe, split="train"),
                    val_dataset=Dataset(data=held_out_rows, name=recipe.recipe, split="test")
                    if held_out_rows
                    else None,
                ).train()
        except ray.exceptions.RayError as error:
            raise in_one_line(error) from error
        if folder.last_step() < recipe.trainer.steps:
            raise ClusterError(
                f"the run ended after step {folder.last_step()} of {recipe.trainer.steps} without an error: no more"
                " episodes came (engines or images failing?); see the lines above, then use --resume"
            )


def _absolute(recipe: Recipe) -> Recipe:
    """The recipe with its paths made absolute: Ray's processes begin in folders of their own."""
    d, m = recipe.data, recipe.model
    there = {
        name: str(Path(name).absolute()) for name in (d.source, d.held_out, m.path) if name and Path(name).exists()
    }
    return recipe.model_copy(
        update={
            "run_dir": str(Path(recipe.run_dir).absolute()),
            "data": d.model_copy(
                update={
                    "source": there.get(d.source, d.source),
                    "held_out": there.get(d.held_out, d.held_out),
                }
            ),
            "model": m.model_copy(update={"path": there.get(m.path, m.path)}),
        }
    )


def _rows(
    recipe: Recipe,
    problems: Sequence[Problem],
    split: Literal["train", "held_out"],
    chat: ChatFormat,
    say: Callable[[str], None],
) -> list[dict[str, str]]:
    """Rows of the problems whose first prompt fits (DeepSWE: filter_overlong_prompts)."""
    definition = load_agent(recipe.agent.definition, recipe.agent.action_format)
    room, rows = recipe.cluster.max_prompt_tokens, []
    for problem in problems:
        length = len(chat.first_prompt(definition.system, definition.first_message(problem.task)))
        if length > room:
            say(f"left out {problem.task.id}: its prompt has {length} tokens and cluster.max_prompt_tokens is {room}")
        else:
            rows.append(row_of(problem, split))
    if split == "train" and len(rows) < recipe.sampling.prompts:
        raise ConfigError(
            f"{len(rows)} tasks have prompts of at most {room} tokens and sampling.prompts wants"
            f" {recipe.sampling.prompts}; raise cluster.max_prompt_tokens"
        )
    return rows


def _model_folder(path: str) -> Path:
    """Where the checkpoint's files are: the folder itself, or the copy that the hub's client keeps."""
    found = cached_file(model_path(path), "config.json", _raise_exceptions_for_missing_entries=False)
    if found is None:
        raise ConfigError(f"model.path {path!r} has no config.json; give a checkpoint folder or a name on the hub")
    return Path(found).parent
