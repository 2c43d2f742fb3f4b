"""Small models: random ones that load in no time, and the policy that ships with the package."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_runs import train, updates
from transformers import Qwen3Config, Qwen3ForCausalLM

from aem_swe.engines.local.model import LocalModel, load_model

MakeModel = Callable[..., LocalModel]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shipped() -> LocalModel:
    """The demo's starting policy. Do not train it: all tests share it."""
    return load_model("builtin/demo-policy")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps without AEM that nobody disturbed. Copy it before changing it."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    train(run_dir)
    assert updates(run_dir) >= 2
    return run_dir


@pytest.fixture(scope="session")
def make_model(shipped: LocalModel) -> MakeModel:
    """make_model(seed, vocabulary=) -> a random Qwen3 whose distributions differ from token to token."""

    def make(seed: int, *, vocabulary: int = 64) -> LocalModel:
        torch.manual_seed(seed)
        shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
        config = Qwen3Config(vocab_size=vocabulary, initializer_range=0.4, tie_word_embeddings=False, **shape, **heads)
        return LocalModel(Qwen3ForCausalLM(config).eval(), shipped.chat, torch.device("cpu"))

    return make
