"""A model that answers: behind an endpoint, served by vLLM for as long as it is needed, or in this process."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.endpoint import EndpointPolicy
from aem_swe.agents.policy import Policy
from aem_swe.agents.probe import probe
from aem_swe.engines.paths import BUILTIN, model_path
from aem_swe.errors import ConfigError
from aem_swe.vllm_server import serving

_EDGE = 1 << 20
"""Bytes; reading all weights of a large model takes minutes."""


@dataclass(frozen=True, slots=True)
class Model:
    """Which model, and where it answers. Without `url` it is a checkpoint here."""

    model: str
    """The name at the endpoint, or the checkpoint."""
    url: str = ""
    api_key: str = ""
    tokenizer: str = ""
    """Of a model at `url`: prompts and answers are then exact token ids. Empty: chat messages."""
    timeout_s: float = 1800.0
    """Of one request."""
    embedded: bool = False
    """A checkpoint answers in this process, one request at a time, instead of being served with vLLM."""
    tensor_parallel: int = 1
    vllm_arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What predictions and reports call the model; of a checkpoint of ours, RUN-step_N."""
        if self.url:
            return self.model
        path = Path(model_path(self.model) if self.model in BUILTIN else self.model).absolute()
        if self.model in BUILTIN:
            return Path(self.model).name
        return f"{path.parents[1].name}-{path.name}" if path.parent.name == "checkpoints" else path.name

    def identity(self) -> dict[str, Any]:
        """What makes two evaluations those of one model asked in one way; where it is served is not part of it."""
        served = not self.url and not self.embedded
        return {
            "model": self.model if self.url or self.model in BUILTIN else str(Path(self.model).absolute()),
            "weights": None if self.url else _fingerprint(Path(model_path(self.model))),
            "mode": "embedded" if self.embedded else "tokens" if served or self.tokenizer else "chat",
            "vllm_arguments": list(self.vllm_arguments),
        }

    def check(self) -> None:
        """Raise ConfigError for what cannot be meant."""
        if self.url and self.embedded:
            raise ConfigError(
                "--embedded runs a checkpoint in this process and --endpoint asks another; give one of them"
            )
        if self.tokenizer and not self.url:
            raise ConfigError("--tokenizer is for a model at --endpoint; a checkpoint has its own: leave it out")
        if (self.url or self.embedded) and (self.vllm_arguments or self.tensor_parallel > 1):
            raise ConfigError("--tensor-parallel and --vllm-arg are for vLLM served here; leave them out")
        if not self.url:
            require_checkpoint(self.model)


def _fingerprint(folder: Path) -> str:
    """Of a checkpoint: its configuration, and of every file of weights its size, its beginning and its end."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name == "config.json" or path.suffix in (".safetensors", ".bin"):
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(f"{path.name} {size} ".encode() + file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                digest.update(file.read())
    return digest.hexdigest()


@contextmanager
def open_model(
    model: Model,
    *,
    log: Path,
    context: int,
    temperature: float,
    seed: int,
    retries: int,
    say: Callable[[str], None],
) -> Iterator[tuple[Policy, ChatFormat | None]]:
    """Yield a policy that has answered once, with its chat format (None: it takes messages).

    log: of the server, where one is started. retries: of a request. Raises ConfigError or PolicyError in one line.
    """
    if model.embedded:
        yield _embedded(model, context=context, temperature=temperature, seed=seed)
        return
    with ExitStack() as resources:
        url, chat = model.url, _chat_of(model.tokenizer) if model.tokenizer else None
        if not url:
            chat = _chat_of(model.model)
            say(f"starting vLLM for {model.model}; its log is {log}")
            server = serving(
                model_path(model.model),
                name=model.name,
                log=log,
                context=context,
                tensor_parallel=model.tensor_parallel,
                arguments=model.vllm_arguments,
            )
            url = resources.enter_context(server).url
        policy = EndpointPolicy(
            base_url=url,
            model=model.name,
            chat=chat,
            temperature=temperature,
            seed=seed,
            api_key=model.api_key,
            timeout_s=model.timeout_s,
            retries=retries,
        )
        resources.enter_context(policy)
        probe(policy, context=context)
        yield policy, chat


def _chat_of(path: str) -> ChatFormat:
    from aem_swe.engines.tokenizer import load_chat  # slow to import, and a chat endpoint needs none

    return load_chat(path)


def require_checkpoint(name: str) -> None:
    """Raise ConfigError where `name` is neither a folder with a model nor one that ships with the package."""
    if name not in BUILTIN and not (Path(name) / "config.json").is_file():
        raise ConfigError(
            f"model {name!r} is no checkpoint folder (with a config.json); name one, or give --endpoint URL for one "
            "that is served"
        )


def _embedded(model: Model, *, context: int, temperature: float, seed: int) -> tuple[Policy, ChatFormat]:
    from aem_swe.engines.local.generate import OneAtATime  # torch, which an endpoint does not need
    from aem_swe.engines.local.model import load_model

    loaded = load_model(model.model, device="auto")
    longest = getattr(loaded.network.config, "max_position_embeddings", None)
    if isinstance(longest, int) and longest < context:
        raise ConfigError(
            f"play.context {context} is more than the {longest} tokens that {model.model} can hold; use "
            f"play.context={longest}, or a protocol for small models (-c swebench_demo)"
        )
    return OneAtATime(loaded, context=context, temperature=temperature, seed=seed), loaded.chat
