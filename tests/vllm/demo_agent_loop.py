"""verl's rollout of real demo episodes: verl's own vLLM server answers, local sandboxes carry out and grade."""

import atexit
from contextlib import ExitStack
from functools import cache
from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl_chain import RESPONSE

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import AskPolicy, Limits
from aem_swe.drivers import run_async
from aem_swe.engines.verl.borders import FIELD
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.sandboxes import Sandboxes, SandboxLimits, open_sandboxes
from aem_swe.tasks.demo import grading_programs, make_problem
from aem_swe.types import Response, Turn

LIMITS = Limits(max_steps=6, response_budget=RESPONSE, max_response_tokens=100)


@cache
def sandboxes() -> Sandboxes:
    """One pool per rollout process."""
    resources = ExitStack()
    atexit.register(resources.close)
    programs = {**load_agent("demo").programs(), **grading_programs()}
    return resources.enter_context(
        open_sandboxes("local", limits=SandboxLimits(command_timeout_s=5.0), programs=programs)
    )


class DemoAgentLoop(AgentLoopBase):
    """Plays the demo problem whose number is in the row."""

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        chat = ChatFormat.of(self.tokenizer)
        problem = make_problem("train", int(row["extra_info"]["index"]))
        setting = Setting(load_agent("demo"), LIMITS, "keep_thinking", chat, sandboxes())
        request = uuid4().hex

        async def ask_verl(ask: AskPolicy) -> Response:
            said = await self.server_manager.generate(
                request_id=request,
                prompt_ids=list(ask.prompt_ids),
                sampling_params=sampling_params | {"max_tokens": ask.max_tokens},
            )
            ids = tuple(said.token_ids)
            finish = "stop" if ids[-1] == chat.end_id else "length"
            return Response(chat.text(ids), ids, tuple(said.log_probs), finish)  # type: ignore[arg-type]  # of two

        trajectory = await run_async(EpisodeRun(setting, problem.task(), problem.grader(), 0, 0, (1,)), ask_verl)
        if trajectory.reward is None:
            raise RuntimeError(f"no sandbox: {trajectory.retries}")
        return _row(trajectory.turns, trajectory.reward)


def _row(turns: tuple[Turn, ...], reward: float) -> AgentLoopOutput:
    """One row per episode: the ids of the last turn hold those of all turns before it."""
    everything, first = turns[-1].prompt_ids + turns[-1].response_ids, len(turns[0].prompt_ids)
    mask, logprobs = [0] * (len(everything) - first), [0.0] * (len(everything) - first)
    for turn in turns:
        start = len(turn.prompt_ids)
        end = start + len(turn.response_ids)
        assert everything[start:end] == turn.response_ids
        mask[start - first : end - first] = [1] * len(turn.response_ids)
        logprobs[start - first : end - first] = turn.logprobs
    return AgentLoopOutput(
        prompt_ids=list(everything[:first]),
        response_ids=list(everything[first:]),
        response_mask=mask,
        response_logprobs=logprobs,
        reward_score=reward,
        num_turns=2 * len(turns),
        metrics=AgentLoopMetrics(),
        extra_fields={FIELD: [len(turn.response_ids) for turn in turns], "turn_scores": [], "tool_rewards": []},
    )
