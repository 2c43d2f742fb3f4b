"""What long contexts rest on: recomputed layers, logits in blocks, a prefill in parts. Small and exact, on the CPU.

Shapes: B row, T token.
"""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from gpu_scene import TINY, random_model
from gpu_step import measure_step
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aem_swe.agents.loop import AskPolicy
from aem_swe.engines.local import generate
from aem_swe.engines.local import model as local_model
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import LocalModel, enable_gradient_checkpointing, score

CONTEXT = 96


@pytest.fixture
def model() -> LocalModel:
    bfloat16 = random_model(TINY, torch.device("cpu"))
    return LocalModel(bfloat16.network.float(), bfloat16.chat, bfloat16.device)


@pytest.fixture
def layer_calls(model: LocalModel) -> Iterator[list[int]]:
    """One entry per start of the first layer's MLP: recomputation stops as soon as it has what the gradient needs."""
    calls: list[int] = []
    mlp = model.network.base_model.layers[0].mlp
    handle = mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


def gradients(model: LocalModel) -> list[Tensor]:
    """Of the scores of a batch with two lengths, by backward through log-probs and entropies."""
    tokens_BT = torch.arange(64, 64 + 2 * CONTEXT).view(2, CONTEXT)
    sampled_BT = torch.zeros(2, CONTEXT, dtype=torch.bool)
    sampled_BT[0, 10:], sampled_BT[1, 20:50] = True, True
    scores = score(model, tokens_BT, sampled_BT, temperature=0.9)
    (scores.logprobs_BT.sum() + scores.entropy_BT.sum()).backward()  # type: ignore[no-untyped-call]  # torch's
    found = [parameter.grad for parameter in model.parameters if parameter.grad is not None]
    model.network.zero_grad(set_to_none=True)
    return found


def sampled(model: LocalModel) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Two turns of three rows of different lengths, the second with a longer observation."""
    sampler = Sampler(model, rows=3, context=CONTEXT, temperature=1.0, seed=1)
    prompts = [tuple(range(100, 100 + length)) for length in (41, 7, 23)]
    answers = []
    for turn in range(2):
        asks = [AskPolicy((), prompt, 8, (turn, row)) for row, prompt in enumerate(prompts)]
        responses = [response for response in sampler.respond_batch(asks) if response is not None]
        answers += [(response.response_ids, response.logprobs) for response in responses]
        prompts = [p + r.response_ids + tuple(range(200, 220)) for p, r in zip(prompts, responses, strict=True)]
    return answers


def test_checkpointed_layers_run_again_in_the_backward_pass_with_the_same_gradients(
    model: LocalModel, layer_calls: list[int]
) -> None:
    expected = gradients(model)
    assert len(layer_calls) == 1
    enable_gradient_checkpointing(model.network)
    got = gradients(model)
    assert len(layer_calls) == 3
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert not any(module.training for module in model.network.modules())


def test_scoring_without_gradients_recomputes_nothing(model: LocalModel, layer_calls: list[int]) -> None:
    enable_gradient_checkpointing(model.network)
    with torch.no_grad():
        score(model, torch.full((1, 8), 70), torch.tensor([[False] + [True] * 7]), temperature=1.0)
    assert len(layer_calls) == 1


def test_the_sampler_keeps_its_cache_when_layers_are_checkpointed(model: LocalModel) -> None:
    expected = sampled(model)
    enable_gradient_checkpointing(model.network)
    assert sampled(model) == expected


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's
    """Counts the tensors of one shape that are alive at once."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.shape, self.now, self.made, self.most = shape, 0, 0, 0

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # Any: torch's own signature
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.shape == self.shape:
            self.now, self.made = self.now + 1, self.made + 1
            self.most = max(self.most, self.now)
            weakref.finalize(result.untyped_storage(), self._end)
        return result

    def _end(self) -> None:
        self.now -= 1


def test_no_more_than_one_block_of_logits_is_alive_in_a_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = TINY.network["vocab_size"]
    monkeypatch.setattr(local_model, "_LOGITS_AT_ONCE", 97 * vocabulary)
    with Alive((97, vocabulary)) as alive:
        measure_step(TINY, torch.device("cpu"))
    # One block has up to ten such tensors in its backward pass; each of the other ten blocks would add two or more.
    assert alive.made > 200
    assert alive.most < 15


def test_logits_in_blocks_have_the_same_gradients(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients(model)
    monkeypatch.setattr(local_model, "_LOGITS_AT_ONCE", 7 * TINY.network["vocab_size"])
    # blocks are summed in another order, and steep logits (GAIN) magnify that
    torch.testing.assert_close(gradients(model), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 5, 20, 41])
def test_a_prefill_in_parts_samples_the_same(model: LocalModel, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    expected = sampled(model)
    monkeypatch.setattr(generate, "_MASK_AT_ONCE", size * 3 * CONTEXT)
    for (ids, logprobs), (expected_ids, expected_logprobs) in zip(sampled(model), expected, strict=True):
        assert ids == expected_ids
        assert logprobs == pytest.approx(expected_logprobs, abs=1e-4)
