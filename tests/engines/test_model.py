"""Scoring against a plain forward pass, and checkpoints that cannot be used. B row, T token, V vocabulary."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from aem_swe.engines.local import model as model_module
from aem_swe.engines.local.model import BUILTIN, LocalModel, enable_gradient_checkpointing, load_model, score
from aem_swe.errors import ConfigError
from aem_swe.resources import resource

TINY = {"vocab_size": 578, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LocalModel]) -> LocalModel:
    return make_model(3)


def tokens(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 64, (rows, width), generator=torch.Generator().manual_seed(seed))


def some(shape: tuple[int, int], seed: int = 1) -> Tensor:
    """A random choice of sampled tokens, none in column 0."""
    chosen_BT = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    chosen_BT[:, 0] = False
    return chosen_BT


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_are_those_of_a_plain_forward_pass(model: LocalModel, temperature: float) -> None:
    tokens_BT, sampled_BT = tokens(4, 20), some((4, 20))
    with torch.no_grad():
        got = score(model, tokens_BT, sampled_BT, temperature=temperature)
        log_BTV = torch.log_softmax(model.network(input_ids=tokens_BT).logits / temperature, dim=-1)
    for row in range(4):
        for column in range(20):
            if sampled_BT[row, column]:
                log_V = log_BTV[row, column - 1]
                logprob, entropy = log_V[tokens_BT[row, column]], -(log_V.exp() * log_V).sum()
            else:
                logprob, entropy = torch.zeros(()), torch.zeros(())
            assert got.logprobs_BT[row, column].item() == pytest.approx(logprob.item(), abs=1e-5)
            assert got.entropy_BT[row, column].item() == pytest.approx(entropy.item(), abs=1e-5)


def test_padding_on_the_right_changes_nothing_whatever_it_is(model: LocalModel) -> None:
    tokens_BT, sampled_BT = tokens(3, 12), some((3, 12))
    alone = score(model, tokens_BT, sampled_BT, temperature=1.0)
    for padding in (torch.zeros(3, 7, dtype=torch.long), tokens(3, 7, seed=5)):
        wider_BT = torch.cat([tokens_BT, padding], dim=1)
        mask_BT = torch.cat([sampled_BT, torch.zeros(3, 7, dtype=torch.bool)], dim=1)
        padded = score(model, wider_BT, mask_BT, temperature=1.0)
        torch.testing.assert_close(padded.logprobs_BT[:, :12], alone.logprobs_BT, rtol=0, atol=1e-5)
        torch.testing.assert_close(padded.entropy_BT[:, :12], alone.entropy_BT, rtol=0, atol=1e-5)
        assert not padded.logprobs_BT[:, 12:].any()


def gradients(model: LocalModel, tokens_BT: Tensor, sampled_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The scores, and the gradient of a weighted sum of them."""
    scores = score(model, tokens_BT, sampled_BT, temperature=0.9)
    weight_BT = torch.linspace(-1, 1, tokens_BT.numel()).view(tokens_BT.shape)
    (weight_BT * (scores.logprobs_BT + 0.5 * scores.entropy_BT)).sum().backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([p.grad.flatten() for p in model.parameters if p.grad is not None])
    model.network.zero_grad(set_to_none=True)
    return torch.stack([scores.logprobs_BT.detach(), scores.entropy_BT.detach()]), gradient


@pytest.mark.parametrize("tokens_at_once", [1, 7, 1000])
def test_scoring_block_by_block_gives_the_same_values_and_gradients(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch, tokens_at_once: int
) -> None:
    tokens_BT, sampled_BT = tokens(4, 20), some((4, 20))
    values, gradient = gradients(model, tokens_BT, sampled_BT)
    monkeypatch.setattr(model_module, "_LOGITS_AT_ONCE", 64 * tokens_at_once)
    values_again, gradient_again = gradients(model, tokens_BT, sampled_BT)
    torch.testing.assert_close(values_again, values, rtol=0, atol=1e-5)
    assert (gradient_again - gradient).norm() < 1e-5 * gradient.norm()


def test_gradient_checkpointing_computes_the_layers_twice_and_changes_no_gradient(
    make_model: Callable[..., LocalModel],
) -> None:
    model, calls = make_model(3), 0
    tokens_BT, sampled_BT = tokens(4, 20), some((4, 20))
    values, gradient = gradients(model, tokens_BT, sampled_BT)

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    model.network.base_model.layers[0].mlp.register_forward_pre_hook(count)
    enable_gradient_checkpointing(model.network)
    values_again, gradient_again = gradients(model, tokens_BT, sampled_BT)
    assert calls == 2
    torch.testing.assert_close(values_again, values, rtol=0, atol=1e-6)
    assert (gradient_again - gradient).norm() < 1e-6 * gradient.norm()
    assert not any(module.training for module in model.network.modules())


def test_no_sampled_token_gives_zeros(model: LocalModel) -> None:
    scores = score(model, tokens(2, 5), torch.zeros(2, 5, dtype=torch.bool), temperature=1.0)
    assert scores.logprobs_BT.tolist() == scores.entropy_BT.tolist() == [[0.0] * 5] * 2


Damage = Callable[[Path], object]


def weights_without(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.down_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def weights_of_another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(5)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def weights_not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def tokenizer_setting(name: str, value: object) -> Damage:
    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


def saved(network: Callable[[], PreTrainedModel]) -> Damage:
    def change(folder: Path) -> None:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
        network().save_pretrained(folder)

    return change


def gemma() -> PreTrainedModel:
    kinds = ["full_attention"] * 2
    return Gemma2ForCausalLM(Gemma2Config(**TINY, **HEADS, head_dim=8, initializer_range=3.0, layer_types=kinds))


def sliding() -> PreTrainedModel:
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    return Qwen2ForCausalLM(Qwen2Config(**TINY, **HEADS, **window))


def t5() -> PreTrainedModel:
    return T5ForConditionalGeneration(T5Config(vocab_size=578, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def small() -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**{**TINY, "vocab_size": 500}, **HEADS))


BROKEN: dict[str, tuple[Damage, str]] = {
    "folder": (shutil.rmtree, "is not a folder; give a Hugging Face checkpoint folder or one of"),
    "config": (lambda f: (f / "config.json").unlink(), "has no config.json; give a folder saved by save_pretrained"),
    "torn config": (lambda f: (f / "config.json").write_text("{"), r"cannot be loaded \(.*\); save it again"),
    "unknown kind": (lambda f: (f / "config.json").write_text('{"model_type": "nope"}'), r"cannot be loaded \(.*nope"),
    "tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer; save one there with tokenizer\.save_"),
    "torn tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), r"cannot be loaded \(.*\); save it again"),
    "weights": (lambda f: (f / "model.safetensors").unlink(), r"cannot be loaded \(.*model.safetensors.*\); save it"),
    "torn weights": (truncate, r"cannot be loaded \(.*\); save it again or give another checkpoint"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), r"cannot be loaded \(.*\); save it again"),
    "a weight": (weights_without, r"lacks 1 weights .* model\.layers\.2\.mlp\.down_proj\.weight; save it again"),
    "a shape": (weights_of_another_shape, r"lacks 1 weights .* model\.norm\.weight; save it again"),
    "a number": (weights_not_a_number, "gives logits that are not numbers; its weights are broken, use others"),
    "chat template": (tokenizer_setting("chat_template", None), "tokenizer has no .*chat template"),
    "torn template": (tokenizer_setting("chat_template", "{% for"), "chat template"),
    "end of turn": (tokenizer_setting("eos_token", None), "tokenizer has no eos_token"),
    "soft-capping": (saved(gemma), "changes its logits after the output head; engine=local does not support that"),
    "full attention": (saved(sliding), r"has layers of kind \['sliding_attention'\]; engine=local needs full"),
    "a decoder": (saved(t5), r"cannot be loaded \(.*T5Config"),
    "enough embeddings": (saved(small), "tokenizer with 578 entries and embeddings for 500"),
}


@pytest.mark.parametrize("missing", BROKEN)
def test_a_checkpoint_that_cannot_be_used_is_one_line_with_its_path_and_a_remedy(tmp_path: Path, missing: str) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(resource(*BUILTIN["builtin/demo-policy"]), folder)
    damage, message = BROKEN[missing]
    damage(folder)
    with pytest.raises(ConfigError, match=message) as raised:
        load_model(str(folder), device="cpu")
    assert "\n" not in str(raised.value)
    assert "; " in str(raised.value)


def test_another_architecture_loads(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(resource(*BUILTIN["builtin/demo-policy"]), folder)
    ends = {"bos_token_id": 2, "eos_token_id": 2}
    saved(lambda: GPT2LMHeadModel(GPT2Config(vocab_size=578, n_embd=16, n_layer=2, n_head=2, **ends)))(folder)
    model, tokens_BT = load_model(str(folder)), tokens(2, 9)
    got = score(model, tokens_BT, torch.ones_like(tokens_BT).cumsum(1) > 1, temperature=1.0)
    log_BTV = torch.log_softmax(model.network(input_ids=tokens_BT).logits, dim=-1)
    expected_BT = log_BTV[:, :-1].gather(2, tokens_BT[:, 1:, None])[..., 0]
    torch.testing.assert_close(got.logprobs_BT[:, 1:], expected_BT, rtol=0, atol=1e-5)


def test_cuda_without_a_gpu_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU: run with CUDA_VISIBLE_DEVICES=")
    with pytest.raises(ConfigError, match=r"model\.device 'cuda' needs a CUDA GPU and there is none; use"):
        load_model("builtin/demo-policy", device="cuda")


def test_the_shipped_policy_is_small_whole_and_float32_once_loaded(shipped: LocalModel) -> None:
    folder = resource(*BUILTIN["builtin/demo-policy"])
    assert (folder / "model.safetensors").stat().st_size <= 2_000_000
    names = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert names <= {path.name for path in folder.iterdir()}
    assert {weights.dtype for weights in shipped.parameters} == {torch.float32}
