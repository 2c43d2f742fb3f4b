"""A causal language model for the embedded engine: any small Hugging Face checkpoint, on the CPU or on one CUDA GPU.

`score` is the one forward pass that everything after the rollout is made from: log-probs of the sampled tokens and the
entropy of the policy there, at the sampling temperature (AEM eq. 13 wants both from the same pass). Rows are padded
on the
right and attention is causal, so padding needs no mask and a pad token that the policy sampled is a token like any
other.
Not covered: models that change their logits after the output head (soft-capping, scaling); `load_model` refuses them.
"""

import os.path
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_layers import GradientCheckpointingLayer

from aem_swe.agents.chat import ChatFormat, Tokenizer
from aem_swe.algorithms import token_logprobs_and_entropy
from aem_swe.engines.paths import BUILTIN
from aem_swe.errors import ConfigError
from aem_swe.resources import resource

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}
"""What `model.dtype` computes in. Weights stay float32: AdamW at a learning rate of 1e-6 moves hardly any bfloat16
weight, the update is smaller than the last bit."""
_LOGITS_AT_ONCE = 1 << 27
"""Elements of one block of logits (512 MiB in float32): longer rows are scored block by block."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A loaded model with its tokenizer. `network` is a transformers PreTrainedModel."""

    network: Any  # transformers' classes are generated per architecture
    chat: ChatFormat
    device: torch.device
    autocast: torch.dtype | None = None
    """Compute in this type; None: in the weights' own."""

    def precision(self) -> torch.autocast:
        """A context in which forward passes are to be made."""
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        return list(self.network.parameters())


@dataclass(frozen=True, slots=True)
class Scores:
    """Per sampled token of a batch, 0 elsewhere; float32, entropy in nats."""

    logprobs_BT: Tensor
    entropy_BT: Tensor


def model_folder(path: str) -> Path:
    """Resolve `model.path`. Raises ConfigError where no checkpoint with a tokenizer is found there."""
    folder = resource(*BUILTIN[path]) if path in BUILTIN else Path(path).expanduser()
    if not os.path.isdir(folder):  # unlike Path.is_dir, it says no to a name that is too long
        raise ConfigError(
            f"model.path {path!r} is not a folder; give a Hugging Face checkpoint folder or one of {sorted(BUILTIN)}"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(f"model.path {path!r} has no config.json; give a folder saved by save_pretrained")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ConfigError(
            f"model.path {path!r} has no tokenizer; save one there with tokenizer.save_pretrained({path!r})"
        )
    return folder


def pick_device(name: str) -> torch.device:
    """Return the device of `auto`, `cpu` or `cuda`. Raises ConfigError for cuda without a GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("model.device 'cuda' needs a CUDA GPU and there is none; use model.device=cpu")
    return torch.device(name)


def first_line(error: Exception) -> str:
    """Return what an error of a library says in one line; its type where it says nothing."""
    return next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)


def load_model(path: str, *, device: str = "auto", dtype: str = "float32") -> LocalModel:
    """Load a checkpoint folder. Raises ConfigError with the remedy where it is missing, broken or of an unfit kind."""
    folder = model_folder(path)
    target = pick_device(device)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(  # Any: a model and a report, which its types do not say
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ConfigError(
            f"model.path {path!r} cannot be loaded ({first_line(error)}); save it again or give another checkpoint"
        ) from error
    network, report = loaded
    # transformers fills what is not there with random numbers and says so in a log
    absent = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if absent:
        raise ConfigError(
            f"model.path {path!r} lacks {len(absent)} weights that its config.json asks for, the first {absent[0]};"
            " save it again or give another checkpoint"
        )
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"model.path {path!r} has a tokenizer with {len(tokenizer)} entries and embeddings for {rows};"
            " they do not belong together, save both again"
        )
    return wrap_model(network, cast(Tokenizer, tokenizer), target, path, autocast=AUTOCAST[dtype])


def wrap_model(
    network: Any,  # see LocalModel
    tokenizer: Tokenizer,
    device: torch.device,
    name: str,
    *,
    autocast: torch.dtype | None = None,
) -> LocalModel:
    """Check that `network` is one that `score` understands and put it on `device`, in evaluation mode (no dropout)."""
    _require_full_attention(network, name)
    network.to(device).eval()
    network.config.use_cache = True
    vocabulary = network.get_output_embeddings().weight.shape[0]
    probe = torch.arange(4, device=device).remainder(vocabulary)[None]
    with torch.no_grad():
        whole = network(input_ids=probe, use_cache=False).logits
        parts = network.get_output_embeddings()(network.base_model(input_ids=probe, use_cache=False).last_hidden_state)
    if whole.isnan().any():
        raise ConfigError(f"model.path {name!r} gives logits that are not numbers; its weights are broken, use others")
    if not torch.allclose(whole.float(), parts.float(), atol=1e-3):
        raise ConfigError(
            f"model.path {name!r} changes its logits after the output head; engine=local does not support that"
        )
    return LocalModel(network, ChatFormat.of(tokenizer), device, autocast)


def _require_full_attention(network: Any, name: str) -> None:  # Any: see LocalModel
    """The sampler attends to the whole past and keeps it in its own cache; other kinds would sample from another policy
    than `score` sees."""
    config = network.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if getattr(config, "sliding_window", None) and not getattr(config, "layer_types", None):
        kinds.add("sliding_attention")
    if getattr(network, "_is_stateful", False):  # transformers' word for state-space models
        kinds.add("state space")
    other = sorted(kinds - {"full_attention"})
    if other:
        raise ConfigError(f"model.path {name!r} has layers of kind {other}; engine=local needs full attention in all")


def enable_gradient_checkpointing(network: Any) -> None:  # Any: see LocalModel
    """Keep only the inputs of the layers for the backward pass of `score`, which computes the rest of them again."""
    enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def _recomputed_layers(network: Any) -> Iterator[None]:  # Any: see LocalModel
    """Make gradient checkpointing take effect: transformers ignores it, silently, in a layer that is not in training.

    Only the flag of the layers themselves is set: the modules inside them stay in evaluation mode (no dropout). And
    only here, because a checkpointed layer in training mode drops the sampler's cache.
    """
    layers = [
        module
        for module in (network.modules() if torch.is_grad_enabled() else ())
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def score(model: LocalModel, tokens_BT: Tensor, sampled_BT: Tensor, *, temperature: float) -> Scores:
    """Score the tokens where `sampled_BT` is True: log-prob and entropy of the policy that predicted each of them.

    tokens_BT (B, T) right-padded ids, sampled_BT (B, T) bool, never True in column 0. Differentiable.
    """
    with model.precision(), _recomputed_layers(model.network):
        hidden_BTD = model.network.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    where_BT = sampled_BT[:, 1:]
    hidden_ND = hidden_BTD[:, :-1][where_BT]
    ids_N = tokens_BT[:, 1:][where_BT]
    head = model.network.get_output_embeddings()

    def block(hidden: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        with model.precision():
            logits = head(hidden)
        statistics = token_logprobs_and_entropy(logits, ids, temperature=temperature)
        return statistics.logprobs_N, statistics.entropy_N

    size = max(1, _LOGITS_AT_ONCE // head.weight.shape[0])
    blocks = []
    for start in range(0, len(ids_N), size):
        pair = hidden_ND[start : start + size], ids_N[start : start + size]
        # several blocks of logits would not fit beside each other: compute each again in the backward pass
        again = len(ids_N) > size and torch.is_grad_enabled()
        blocks.append(checkpoint(block, *pair, use_reentrant=False) if again else block(*pair))
    zeros = torch.zeros(tokens_BT.shape, dtype=torch.float32, device=tokens_BT.device)
    where = torch.cat([torch.zeros_like(sampled_BT[:, :1]), where_BT], dim=1)
    if not blocks:
        return Scores(zeros, zeros)
    logprobs_N, entropy_N = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return Scores(zeros.masked_scatter(where, logprobs_N), zeros.masked_scatter(where, entropy_N))
