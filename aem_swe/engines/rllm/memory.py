"""How much memory a recipe takes on one GPU, and on one node: an estimate, to be told before an hour of start-up.

Training, per GPU (N parameters, W GPUs that train, T tokens of one forward pass on one GPU, L layers, width h):
    states      4N/W weights + 4N/W gradients + 8N/W Adam, all float32, sharded by FSDP (ZeRO-3, arXiv 1910.02054). With
                offload too: verl brings all of them back for a whole update (FSDPEngine.to in 0.8 and 0.9).
    reference   4N/W weights of the frozen policy that a KL loss needs; with offload on the CPU during updates.
    gathered    what FSDP holds whole at a time: two layers and the embedding in bfloat16, and one layer's gradients in
                float32.
    activations with gradient checkpointing 2 T h L (the layers' inputs) + one layer in full; without, all L in full. A
                layer in full keeps 2 T (4h + 2q + 2k + 4i): the tensors of arXiv 2205.05198, section 4.1, for grouped
                attention that stores no scores (q, k: widths of queries and keys) and a gated MLP of width i.
    logits      8 T V: bfloat16 logits and their gradients, a float32 copy of them; V the vocabulary.
Rollout, per GPU: vLLM takes gpu_memory_utilization of it: 2N/P weights (P tensor parallel), 2 GiB for itself, and the
rest is cache: 4 L k / P bytes per token.
A node's CPU memory with offload: 12N/W (weights and Adam), and the reference, for each of its GPUs. A checkpoint on
disk: 16N (weights and Adam in float32, and the weights again for evaluation).
Not covered: mixtures of experts, LoRA, fragmentation beyond the reserve. The formula was checked against hand
computation, not against a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from aem_swe.errors import ConfigError
from aem_swe.schema import Recipe

GIB: Final = 2**30
RESERVE_GIB: Final = 6.0
"""CUDA context, NCCL's buffers, the 2 GiB in which weights go to the servers, fragments."""
_VLLM_GIB: Final = 2.0
_LARGEST: Final = 10**9


@dataclass(frozen=True, slots=True)
class Shape:
    """A dense decoder with grouped attention and a gated MLP (Qwen2, Qwen3, Llama)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool

    @property
    def layer(self) -> int:
        """Parameters of one layer, its norms included."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden + 2 * self.head_dim

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer + self.embedding * (1 if self.tied else 2) + self.hidden


QWEN3: Final = {
    "Qwen3-0.6B": Shape(1024, 28, 16, 8, 128, 3072, 151936, True),
    "Qwen3-1.7B": Shape(2048, 28, 16, 8, 128, 6144, 151936, True),
    "Qwen3-4B": Shape(2560, 36, 32, 8, 128, 9728, 151936, True),
    "Qwen3-8B": Shape(4096, 36, 32, 8, 128, 12288, 151936, False),
    "Qwen3-14B": Shape(5120, 40, 40, 8, 128, 17408, 151936, False),
    "Qwen3-32B": Shape(5120, 64, 64, 8, 128, 25600, 151936, False),
}
"""From the config.json of each, for models that are not on this machine."""


def shape_of(config: Any) -> Shape:  # whatever the file holds
    """The shape in a checkpoint's config.json. Raises ConfigError for one that is not a dense decoder."""
    if not isinstance(config, Mapping):
        raise ConfigError(f"config.json holds no settings but a {type(config).__name__}")
    if any(key in config for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise ConfigError("a mixture of experts has another memory formula; only dense models are estimated")
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        shape = Shape(
            hidden=hidden,
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"config.json has no usable shape ({error}); give the checkpoint of a dense decoder"
        ) from error
    for field in fields(shape):
        if field.name != "tied" and not 1 <= (size := getattr(shape, field.name)) <= _LARGEST:
            raise ConfigError(f"config.json has {field.name} {str(size)[:20]}; give the checkpoint of a dense decoder")
    return shape


@dataclass(frozen=True, slots=True)
class Estimate:
    """GiB on one GPU unless said otherwise."""

    states: float
    """Weights, gradients and Adam during an update; without offload the reference as well."""
    gathered: float
    activations: float
    logits: float
    resting: float
    """What training keeps on the GPU while vLLM generates on it."""
    server_weights: float
    cache_tokens_per_gib: float
    """Of one server, per GiB of cache on each of its GPUs."""
    node_cpu: float
    """CPU memory of one node for what is offloaded."""
    checkpoint: float
    """One checkpoint on disk."""

    @property
    def training(self) -> float:
        """The peak of an update."""
        return self.states + self.gathered + self.activations + self.logits + RESERVE_GIB

    def cache_tokens(self, gpu_gib: float, utilization: float) -> int:
        """Tokens that the cache of one server holds; below 0: not even its weights fit."""
        return int((gpu_gib * utilization - self.server_weights - _VLLM_GIB) * self.cache_tokens_per_gib)

    def generating(self, gpu_gib: float, utilization: float) -> float:
        """The peak of a rollout."""
        return gpu_gib * utilization + self.resting + RESERVE_GIB / 2


def estimate(recipe: Recipe, shape: Shape) -> Estimate:
    """What the module's formula gives for a recipe."""
    c = recipe.cluster
    count, gpus = shape.parameters, c.training
    tokens = c.tokens_per_gpu or -(-(c.max_prompt_tokens + recipe.agent.response_budget) // c.sequence_parallel)
    shard = count / gpus / GIB
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    whole_layer = 2 * tokens * (4 * shape.hidden + 2 * queries + 2 * keys + 4 * shape.intermediate)
    inputs = 2 * tokens * shape.hidden * shape.layers
    reference = 4 * shard if recipe.algorithm.kl_coefficient else 0.0
    kept = 0.0 if c.offload else reference
    return Estimate(
        states=16 * shard + kept,
        gathered=(2 * (2 * shape.layer + shape.embedding) + 4 * shape.layer) / GIB,
        activations=(inputs + whole_layer if recipe.model.gradient_checkpointing else whole_layer * shape.layers) / GIB,
        logits=8 * tokens * shape.vocabulary / GIB,
        resting=0.0 if c.offload or c.mode == "fully_async" else 16 * shard + kept,
        server_weights=2 * count / c.tensor_parallel / GIB,
        cache_tokens_per_gib=GIB * c.tensor_parallel / (4 * shape.layers * keys),
        node_cpu=(12 * shard + reference) * min(gpus, c.gpus_per_node) if c.offload else 0.0,
        checkpoint=16 * count / GIB,
    )
