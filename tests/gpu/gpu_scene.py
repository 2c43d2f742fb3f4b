"""A Qwen3-0.6B of random weights and 16 long episodes without a sandbox: what the GPU tests need, and no download.

Random weights as they come give every token nearly the entropy of a uniform draw, log V, and leave AEM nothing to rank.
`GAIN` on the last norm spreads the logits to a standard deviation of 10, where the entropies of this network are like a
language model's: 1.4 nats on average, with a standard deviation of 0.7 over tokens.
Not covered: the quality of anything that is sampled.

Shapes: B row, T token.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, cast

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from aem_swe.agents.chat import Tokenizer
from aem_swe.config import validate_recipe
from aem_swe.engines.local.model import LocalModel, model_folder, wrap_model
from aem_swe.schema import Recipe
from aem_swe.types import Termination, ToolCall, Trajectory, Turn

GAIN: Final = 16.0
NEEDED_GIB: Final = 120
"""What a GPU must have, and the bound of the training step; an H200 has 139."""
_FIRST_ID: Final = 64
"""Ids below are left to the tokenizer's special tokens."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The sizes of all measurements."""

    network: Mapping[str, int]
    """Keys of Qwen3Config."""
    prompts: int
    rollouts: int
    tokens: int
    """Tokens of a row of the training step, and the context of the sampler."""
    turns: int
    """Turns of such a row."""
    new_tokens: int
    """Tokens that the sampler adds to each row."""
    long_tokens: int
    long_turns: int
    long_rows: int
    """Rows of the batch that AEM modulates."""

    @property
    def rows(self) -> int:
        return self.prompts * self.rollouts


H200: Final = Workload(
    network=MappingProxyType(
        {
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "vocab_size": 151_936,
            "max_position_embeddings": 40_960,
        }
    ),
    prompts=2,
    rollouts=8,
    tokens=8192,
    turns=16,
    new_tokens=256,
    long_tokens=36_864,
    long_turns=72,
    long_rows=64,
)
"""Qwen3-0.6B at DeepSWE's lengths: 16 rows of 8k, one row of 36k."""

TINY: Final = Workload(
    network=MappingProxyType(
        {
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 96,
            "vocab_size": 1000,
            "max_position_embeddings": 1024,
        }
    ),
    prompts=2,
    rollouts=8,
    tokens=256,
    turns=2,
    new_tokens=4,
    long_tokens=320,
    long_turns=3,
    long_rows=16,
)
"""Everything that the above has, small enough for a CPU."""


def network_config(work: Workload) -> Qwen3Config:
    """Qwen3 with tied embeddings and its own rotary base."""
    rope = {"rope_type": "default", "rope_theta": 1e6}
    return Qwen3Config.from_dict({**work.network, "tie_word_embeddings": True, "rope_parameters": rope})


def random_model(work: Workload, device: torch.device) -> LocalModel:
    """Make the network on the device, computing in bfloat16, with the shipped tokenizer. Its vocabulary is smaller:
    ids above it decode to nothing, which no measurement minds."""
    torch.manual_seed(0)
    with torch.device(device):
        network = AutoModelForCausalLM.from_config(network_config(work), dtype=torch.float32)  # type: ignore[no-untyped-call]  # theirs
    torch.nn.init.constant_(network.base_model.norm.weight, GAIN)
    tokenizer = AutoTokenizer.from_pretrained(model_folder("builtin/demo-policy"), local_files_only=True)
    return wrap_model(network, cast(Tokenizer, tokenizer), device, "random Qwen3", autocast=torch.bfloat16)


def make_recipe(work: Workload, *, micro_batch: int) -> Recipe:
    """DeepSWE's algorithm with AEM, on this workload."""
    return validate_recipe(
        {
            "model": {"dtype": "bfloat16", "gradient_checkpointing": True},
            "agent": {"response_budget": work.tokens},
            "sampling": {"prompts": work.prompts, "rollouts": work.rollouts},
            "aem": {"enabled": True},
            "trainer": {"micro_batch": micro_batch},
        }
    )


def make_trajectories(work: Workload, *, rows: int, tokens: int, turns: int) -> list[Trajectory]:
    """Episodes of exactly `tokens` ids each, drawn uniformly. In every group three of eight succeed, one is truncated.

    Every turn has the same share of a row, and the response is a quarter to three quarters of it.
    """
    generator = torch.Generator().manual_seed(rows)
    ids_BT = torch.randint(_FIRST_ID, work.network["vocab_size"], (rows, tokens), generator=generator)
    share = tokens // turns
    length_BR = torch.randint(share // 4, 3 * share // 4 + 1, (rows, turns), generator=generator)
    end_R = torch.arange(1, turns + 1) * share
    end_R[-1] = tokens
    return [
        _trajectory(
            row // work.rollouts,
            row % work.rollouts,
            tuple(
                _turn(ids_BT[row], end - length, end, work.network["vocab_size"])
                for end, length in zip(end_R.tolist(), length_BR[row].tolist(), strict=True)
            ),
        )
        for row in range(rows)
    ]


def _turn(ids_T: Tensor, start: int, end: int, vocabulary: int) -> Turn:
    return Turn(
        prompt_ids=tuple(ids_T[:start].tolist()),
        response_ids=tuple(ids_T[start:end].tolist()),
        logprobs=(-math.log(vocabulary - _FIRST_ID),) * (end - start),
        finish_reason="stop",
        policy_version=0,
        text="",
        action=ToolCall("finish", {}),
    )


def _trajectory(group: int, rollout: int, turns: tuple[Turn, ...]) -> Trajectory:
    truncated = rollout % 8 == 7
    solved = rollout % 8 in (1, 2, 4)
    return Trajectory(
        task_id=f"random-{group}",
        group=group,
        rollout=rollout,
        turns=turns,
        termination=Termination.MAX_STEPS if truncated else Termination.FINISHED,
        reward=float(solved),
        reward_reason="not_graded" if truncated else "tests",
    )
