"""The section `cluster` of a recipe: how engine=rllm spreads a run over GPUs. The embedded engine has no such thing."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal  # Any: values that are handed on as they are

from pydantic import BeforeValidator, Field

from aem_swe.section import Count, CountOrZero, NotNegative, Section

_KEY = re.compile(r"[+~]{0,2}[A-Za-z_]\w*(\.\w+)*")


def _dotted(value: Any) -> Any:
    """{dotted key: value} of a mapping, nested or dotted; the later of two equal keys counts."""
    if not isinstance(value, Mapping):
        return value
    flat = dict(_leaves(value, ""))
    for key in flat:
        if not _KEY.fullmatch(key):
            raise ValueError(f"key {key!r} should be dotted words, like actor_rollout_ref.rollout.enforce_eager")
    return flat


def _leaves(value: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


Extra = Annotated[dict[str, Any], BeforeValidator(_dotted)]


class Cluster(Section):
    """engine=rllm only. Every GPU holds a part of the model and serves rollouts too, unless mode is fully_async."""

    nodes: Count = 1
    gpus_per_node: Count = 1
    ray_address: str = ""
    """Of a running Ray cluster; empty: RAY_ADDRESS, else the one of this machine, else a new one."""
    mode: Literal["sync", "fully_async"] = "sync"
    """fully_async: some GPUs only generate, the others only train, neither waits for the other."""
    rollout_gpus: CountOrZero = 0
    """fully_async: how many GPUs generate, whole nodes where there are several; 0: half of them."""
    staleness_threshold: NotNegative = 0.0
    """fully_async: share of a batch that may come from weights older than the newest ones; 0: none."""
    trigger_step: Count = 1
    """fully_async: optimiser steps between two transfers of the weights to the servers."""
    tensor_parallel: Count = 1
    """GPUs of one vLLM server."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.6
    """Share of a GPU's memory for vLLM, weights included."""
    sequence_parallel: Count = 1
    """GPUs that share the tokens of one row in scoring and update (Ulysses)."""
    offload: bool = False
    """Keep parameters, gradients and optimiser states in CPU memory while they are not in use."""
    max_prompt_tokens: Count = 4096
    """Room for the first prompt; longer tasks are left out. With agent.response_budget it is a row's length."""
    tokens_per_gpu: Count | None = None
    """Tokens of one forward pass on one GPU (dynamic batches); None: one row at a time."""
    recompute_old_logprobs: bool = True
    """False (rLLM's bypass_mode): take the rollout's log-probs for the old ones. Then AEM has no entropies."""
    val_temperature: NotNegative = 0.0
    val_before_train: bool = True
    logger: tuple[str, ...] = ("console",)
    """rLLM's: console, wandb, tensorboard, mlflow, ..."""
    verl: Extra = Field(default_factory=dict)
    """More keys of verl, handed on as they are and last: {actor_rollout_ref.rollout.enforce_eager: true}; +key: new."""
    rllm: Extra = Field(default_factory=dict)
    """The same below rLLM's `rllm.`: {gateway.port: 9091}."""

    @property
    def gpus(self) -> int:
        """Of the whole cluster."""
        return self.nodes * self.gpus_per_node

    @property
    def generating(self) -> int:
        """GPUs with rollout servers."""
        if self.mode == "sync":
            return self.gpus
        if self.rollout_gpus or self.nodes == 1:
            return self.rollout_gpus or self.gpus // 2
        return self.nodes // 2 * self.gpus_per_node

    @property
    def training(self) -> int:
        """GPUs that hold a part of the trained model."""
        return self.gpus if self.mode == "sync" else self.gpus - self.generating


def cluster_problem(c: Cluster, *, row_tokens: int) -> str:
    """What does not fit together in a cluster section, in one line, or nothing. row_tokens: the longest row's."""
    if c.mode == "sync" and (c.rollout_gpus or c.staleness_threshold or c.trigger_step != 1):
        return (
            "cluster.rollout_gpus, staleness_threshold and trigger_step need cluster.mode=fully_async; leave them out"
        )
    if c.mode == "fully_async" and not 0 < c.generating < c.gpus:
        return (
            f"cluster.rollout_gpus {c.generating} of {c.gpus} GPUs leaves no GPU for one half; use fewer, or mode=sync"
        )
    if c.mode == "fully_async" and c.nodes > 1 and c.generating % c.gpus_per_node:
        return f"cluster.rollout_gpus {c.rollout_gpus} is no number of whole nodes of {c.gpus_per_node}; use a multiple"
    if c.generating % c.tensor_parallel:
        return (
            f"cluster.tensor_parallel {c.tensor_parallel} does not divide {c.generating} GPUs of rollout;"
            " choose a divisor"
        )
    if c.training % c.sequence_parallel:
        return (
            f"cluster.sequence_parallel {c.sequence_parallel} does not divide {c.training} GPUs of training;"
            " choose a divisor"
        )
    if c.tokens_per_gpu is not None and c.tokens_per_gpu * c.sequence_parallel < row_tokens:
        return (
            f"cluster.tokens_per_gpu {c.tokens_per_gpu} x sequence_parallel {c.sequence_parallel} is less than a row of"
            f" {row_tokens} tokens (max_prompt_tokens + response_budget); raise it, or leave it out"
        )
    return ""
