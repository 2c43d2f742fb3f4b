"""What the episodes of a recipe share, on either engine: the agent, its limits, and open sandboxes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import Limits
from aem_swe.rollout import Setting
from aem_swe.sandboxes import open_sandboxes
from aem_swe.sandboxes.base import BASE_IMAGE, DockerSettings, Sandboxes, SandboxLimits
from aem_swe.schema import Recipe, SandboxSection
from aem_swe.tasks.source import Source, grading_programs, original_rows
from aem_swe.worlds import is_world
from aem_swe.worlds.games import GameSandboxes


@contextmanager
def open_setting(recipe: Recipe, chat: ChatFormat) -> Iterator[Setting]:
    """Open the sandboxes of a recipe. Raises SandboxUnavailable or ConfigError."""
    definition = load_agent(recipe.agent.definition, recipe.agent.action_format)
    programs = {**definition.programs(), **grading_programs()}
    if recipe.trainer.eval_protocol:
        from aem_swe.eval.swebench.protocol import load_protocol

        programs |= load_agent(load_protocol(recipe.trainer.eval_protocol).play.agent).programs()
    s, a, game = recipe.sandbox, recipe.agent, is_world(recipe.data.source)
    with _open_sandboxes(recipe, programs) as sandboxes:
        yield Setting(
            definition=definition,
            limits=Limits(
                a.max_steps,
                a.response_budget,
                a.max_response_tokens,
                a.max_format_errors,
                submit_unfinished=game,  # a game that is not won costs its invalid actions
            ),
            history=a.history,
            chat=chat,
            sandboxes=sandboxes,
            retries=s.retries,
            trajectory_timeout_s=a.trajectory_timeout_s,
        )


def _open_sandboxes(recipe: Recipe, programs: Mapping[str, str]) -> Sandboxes:
    s = recipe.sandbox
    if is_world(recipe.data.source):
        return GameSandboxes(sandbox_limits(s))
    return open_sandboxes(
        s.kind,
        limits=sandbox_limits(s),
        programs=programs,
        docker=docker_settings(s),
        run=recipe.run_dir,
        backend=s.backend,
        rows=original_rows(Source(recipe.data.source)) if s.kind == "r2egym" else None,
    )


def sandbox_limits(section: SandboxSection) -> SandboxLimits:
    s = section
    return SandboxLimits(s.memory_mb, s.processes, s.disk_mb, s.command_timeout_s, s.max_output)


def docker_settings(section: SandboxSection) -> DockerSettings:
    return DockerSettings(
        engines=section.engines,
        image=section.image or BASE_IMAGE,
        cpus=section.cpus,
        warm=section.warm,
        starts=section.starts,
        engine_wait_s=section.engine_wait_s,
    )
