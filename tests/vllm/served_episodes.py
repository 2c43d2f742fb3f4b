"""Real demo episodes in real sandboxes, played by a served policy, and their log-probs by the embedded engine."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any  # JSON bodies hold anything

import torch
from vllm_server import NAME

from aem_swe.agents.definition import load_agent
from aem_swe.agents.endpoint import EndpointPolicy
from aem_swe.agents.loop import AskPolicy, Limits
from aem_swe.drivers import run_thread
from aem_swe.engines.local.model import LocalModel, score
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.sandboxes import Sandboxes
from aem_swe.tasks.demo import make_problem
from aem_swe.types import Response, Trajectory, Turn

LIMITS = Limits(max_steps=6, response_budget=500, max_response_tokens=100)


class WatchedPolicy(EndpointPolicy):
    """An EndpointPolicy that keeps what the server answered."""

    def __init__(self, url: str, model: LocalModel, *, temperature: float) -> None:
        super().__init__(
            base_url=url, model=NAME, chat=model.chat, temperature=temperature, seed=5, timeout_s=60.0, retries=0
        )
        self.answers: list[tuple[AskPolicy, dict[str, Any]]] = []

    def _read(self, ask: AskPolicy, text: str) -> Response:
        self.answers.append((ask, json.loads(text)["choices"][0]))
        return super()._read(ask, text)


def play(policy: EndpointPolicy, model: LocalModel, sandboxes: Sandboxes, *, problems: int = 4) -> list[Trajectory]:
    """Two rollouts of each problem, four at a time, so that vLLM batches."""
    setting = Setting(load_agent("demo"), LIMITS, "keep_thinking", model.chat, sandboxes)

    def one(number: int) -> Trajectory:
        problem = make_problem("train", number // 2)
        run = EpisodeRun(setting, problem.task(), problem.grader(), number // 2, number % 2, (1, number))
        return run_thread(run, policy)

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(one, range(2 * problems)))


def turns_of(trajectories: Sequence[Trajectory]) -> list[Turn]:
    return [turn for trajectory in trajectories for turn in trajectory.turns]


@torch.no_grad()
def rescored(model: LocalModel, turns: Sequence[Turn], *, temperature: float) -> torch.Tensor:
    """Log-probs of all sampled tokens, one after the other, by the embedded engine's own forward pass."""
    width = max(len(turn.prompt_ids) + len(turn.response_ids) for turn in turns)
    tokens = torch.zeros(len(turns), width, dtype=torch.long)
    sampled = torch.zeros(len(turns), width, dtype=torch.bool)
    for row, turn in enumerate(turns):
        start, end = len(turn.prompt_ids), len(turn.prompt_ids) + len(turn.response_ids)
        tokens[row, :end] = torch.tensor(turn.prompt_ids + turn.response_ids)
        sampled[row, start:end] = True
    return score(model, tokens, sampled, temperature=temperature).logprobs_BT[sampled]


def reported(turns: Sequence[Turn]) -> torch.Tensor:
    return torch.tensor([logprob for turn in turns for logprob in turn.logprobs])
