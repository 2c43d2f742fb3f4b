"""The sampling loop: what is drawn, with which log-probs, and what has no influence on it. B row, T token."""

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from scipy.stats import chisquare

from aem_swe.agents.loop import AskPolicy
from aem_swe.engines.local import generate
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import LocalModel, score
from aem_swe.types import Response

VOCABULARY = 578
CONTEXT = 120


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LocalModel]) -> LocalModel:
    """A random model with the shipped tokenizer's vocabulary."""
    return make_model(3, vocabulary=VOCABULARY)


def prompts(*lengths: int, seed: int = 0) -> list[list[int]]:
    stream = random.Random(seed)
    return [[stream.randrange(3, VOCABULARY) for _ in range(length)] for length in lengths]


def ask(prompt: Sequence[int], *seed: int, max_tokens: int = 12) -> AskPolicy:
    return AskPolicy((), tuple(prompt), max_tokens, seed)


def sampler(model: LocalModel, rows: int, *, temperature: float = 1.0, seed: int = 1) -> Sampler:
    return Sampler(model, rows=rows, context=CONTEXT, temperature=temperature, seed=seed)


def respond(loop: Sampler, asks: Sequence[AskPolicy | None]) -> list[Response]:
    answers = loop.respond_batch(asks)
    assert [answer is None for answer in answers] == [one is None for one in asks]
    return [answer for answer in answers if answer is not None]


def scored(model: LocalModel, prompt: Sequence[int], response: Response, temperature: float) -> list[float]:
    tokens_BT = torch.tensor([[*prompt, *response.response_ids]])
    sampled_BT = torch.arange(tokens_BT.shape[1])[None] >= len(prompt)
    with torch.no_grad():
        scores = score(model, tokens_BT, sampled_BT, temperature=temperature)
    kept: list[float] = scores.logprobs_BT[sampled_BT].tolist()
    return kept


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.3])
def test_log_probs_are_those_of_the_scoring_pass_over_several_turns(model: LocalModel, temperature: float) -> None:
    loop, said = sampler(model, 4, temperature=temperature), prompts(20, 3, 9, 31)
    for turn in range(3):
        answers = respond(loop, [ask(prompt, 0, row, turn) for row, prompt in enumerate(said)])
        for prompt, answer in zip(said, answers, strict=True):
            assert list(answer.logprobs) == pytest.approx(scored(model, prompt, answer, temperature), abs=1e-5)
        observations = prompts(5, 2, 1, 8, seed=turn)
        said = [p + list(a.response_ids) + o for p, a, o in zip(said, answers, observations, strict=True)]


def test_the_shipped_policy_scores_what_it_sampled_alike(shipped: LocalModel) -> None:
    said = [list(shipped.chat.first_prompt("", f"grow should add {n} to n")) for n in range(3)]
    answers = respond(sampler(shipped, 3), [ask(p, 0, row, 0, max_tokens=56) for row, p in enumerate(said)])
    for prompt, answer in zip(said, answers, strict=True):
        assert list(answer.logprobs) == pytest.approx(scored(shipped, prompt, answer, 1.0), abs=1e-5)
        assert answer.text == shipped.chat.text(answer.response_ids)


def test_greedy_is_what_transformers_generates(shipped: LocalModel) -> None:
    said = [list(shipped.chat.first_prompt("", text)) for text in ("grow should add 3 to n", "join should reverse s")]
    answers = respond(sampler(shipped, 2, temperature=0.0), [ask(p, 0, 0, 0, max_tokens=40) for p in said])
    for prompt, answer in zip(said, answers, strict=True):
        ids = shipped.network.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=40, attention_mask=torch.ones(1, len(prompt)),
            temperature=None, eos_token_id=shipped.chat.end_id, pad_token_id=0,
        )  # fmt: skip
        assert list(answer.response_ids) == ids[0, len(prompt) :].tolist()


def test_what_a_row_samples_does_not_depend_on_the_content_of_the_others(model: LocalModel) -> None:
    own, first, second = prompts(15)[0], prompts(15, 15, seed=1), prompts(15, 15, seed=2)
    # 15 + 12 tokens are fewer than 32, so the attended width (a shape, which may change the rounding) stays the same
    one = respond(sampler(model, 3), [ask(own, 7), ask(first[0], 8), ask(first[1], 9)])
    other = respond(sampler(model, 3), [ask(own, 7), ask(second[0], 10), ask(second[1], 11)])
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_a_later_turn_from_the_kept_cache_equals_one_from_a_fresh_cache(model: LocalModel) -> None:
    kept, said = sampler(model, 2), prompts(10, 20)
    for turn in range(3):
        asks = [ask(prompt, row, turn) for row, prompt in enumerate(said)]
        answers, fresh = respond(kept, asks), respond(sampler(model, 2), asks)
        for answer, again in zip(answers, fresh, strict=True):
            assert answer.response_ids == again.response_ids
            assert list(answer.logprobs) == pytest.approx(again.logprobs, abs=1e-5)
        said = [prompt + list(answer.response_ids) + [9, 8, 7] for prompt, answer in zip(said, answers, strict=True)]


def test_prompts_that_do_not_continue_each_other_are_read_anew(model: LocalModel) -> None:
    loop, first = sampler(model, 2), prompts(30, 12)
    respond(loop, [ask(prompt, row, 0) for row, prompt in enumerate(first)])
    cut = [[*first[0][:11], 5, 6, 7], prompts(40, seed=4)[0]]  # shorter with a common start, and another one altogether
    for prompt, answer in zip(cut, respond(loop, [ask(p, row, 1) for row, p in enumerate(cut)]), strict=True):
        assert list(answer.logprobs) == pytest.approx(scored(model, prompt, answer, 1.0), abs=1e-5)


def test_a_prompt_is_answered_again_after_itself(model: LocalModel) -> None:
    loop, prompt = sampler(model, 1), prompts(17)[0]
    one, other = respond(loop, [ask(prompt, 1)])[0], respond(loop, [ask(prompt, 1)])[0]
    assert one.response_ids == other.response_ids


def test_a_long_prompt_read_part_by_part_gives_the_same(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = [ask(prompt, row) for row, prompt in enumerate(prompts(61, 7, 30))]
    whole = respond(sampler(model, 3), asks)
    monkeypatch.setattr(generate, "_MASK_AT_ONCE", 3 * CONTEXT * 4)  # four new tokens of three rows at once
    for answer, expected in zip(respond(sampler(model, 3), asks), whole, strict=True):
        assert answer.response_ids == expected.response_ids
        assert list(answer.logprobs) == pytest.approx(expected.logprobs, abs=1e-5)


def test_new_weights_need_a_reset_and_get_their_version(make_model: Callable[..., LocalModel]) -> None:
    model, prompt = make_model(3, vocabulary=VOCABULARY), prompts(25)[0]
    loop = sampler(model, 1)
    assert respond(loop, [ask(prompt, 1)])[0].policy_version == 0
    with torch.no_grad():
        for weights in model.parameters:
            weights.mul_(1.1)
    loop.reset(5)
    answer = respond(loop, [ask(prompt, 1)])[0]
    assert answer.policy_version == 5
    assert list(answer.logprobs) == pytest.approx(scored(model, prompt, answer, 1.0), abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_first_token_is_drawn_from_the_softmax(make_model: Callable[..., LocalModel], temperature: float) -> None:
    model, prompt, draws = make_model(3), [5, 9, 11], 4000
    loop = sampler(model, 200, temperature=temperature)
    counts = torch.zeros(64)
    for start in range(0, draws, 200):
        asks = [ask(prompt, start + row, max_tokens=1) for row in range(200)]
        for answer in respond(loop, asks):
            counts[answer.response_ids[0]] += 1
    with torch.no_grad():
        p_V = torch.softmax(model.network(input_ids=torch.tensor([prompt])).logits[0, -1] / temperature, dim=-1)
    frequent = p_V * draws >= 5  # chi-square wants five expected in every bin; the rest share one
    assert frequent.sum() >= 10
    observed = [*counts[frequent].tolist(), counts[~frequent].sum().item()]
    expected = torch.cat([p_V[frequent], p_V[~frequent].sum()[None]]).double()
    assert chisquare(observed, (expected / expected.sum() * draws).tolist()).pvalue > 0.001


def test_a_token_that_cannot_be_sampled_is_not_sampled_at_the_edge_of_a_draw(model: LocalModel) -> None:
    never = -torch.inf
    logits_BV = torch.tensor([[never, 0.0, never, 0.0, never]] * 3)
    ids, logprobs = sampler(model, 3)._sample(logits_BV, [0.0, 0.5, 1 - 2**-53])
    assert ids == [1, 3, 3]
    assert logprobs == pytest.approx([-0.6931472] * 3)


def test_the_pad_id_may_be_sampled_and_does_not_end_a_response(make_model: Callable[..., LocalModel]) -> None:
    model = make_model(3)
    with torch.no_grad():  # a policy that says the pad id, 0, and little else
        model.network.get_output_embeddings().weight.mul_(0.0)
        hidden = model.network.base_model(input_ids=torch.tensor([[5, 6]])).last_hidden_state[0, -1]
        model.network.get_output_embeddings().weight[0] = hidden
    answers = respond(sampler(model, 2), [ask([5, 6], 0), ask([5, 6], 1)])
    for answer in answers:
        assert answer.response_ids[0] == 0
        assert len(answer.response_ids) > 1
        assert list(answer.logprobs) == pytest.approx(scored(model, [5, 6], answer, 1.0), abs=1e-5)


def test_the_seed_words_alone_decide_what_is_sampled(model: LocalModel) -> None:
    prompt = prompts(12)[0]
    answers = respond(sampler(model, 4), [ask(prompt, 0, 3), ask(prompt, 0, 3), ask(prompt, 0, 4), ask(prompt, 1, 3)])
    assert answers[0].response_ids == answers[1].response_ids
    assert len({answer.response_ids for answer in answers}) == 3
    assert respond(sampler(model, 4, seed=2), [ask(prompt, 0, 3)] * 4)[0].response_ids != answers[0].response_ids


def test_fewer_requests_than_rows_and_rows_that_are_over(model: LocalModel) -> None:
    loop, said = sampler(model, 4), prompts(9, 14)
    answers = respond(loop, [ask(said[0], 1), None, ask(said[1], 2)])
    for prompt, answer in zip(said, answers, strict=True):
        assert list(answer.logprobs) == pytest.approx(scored(model, prompt, answer, 1.0), abs=1e-5)
    assert loop.respond_batch([None, None]) == [None, None]
    assert loop.respond(ask(said[0], 1)).response_ids == answers[0].response_ids


def test_a_response_ends_at_its_end_token_or_at_its_limit(make_model: Callable[..., LocalModel]) -> None:
    model = make_model(3)
    end, limits = model.chat.end_id, [1, 2, 5, 30]
    for seed in range(4):
        asks = [ask([5, 6, 7], seed, row, max_tokens=limit) for row, limit in enumerate(limits)]
        for limit, answer in zip(limits, respond(sampler(model, 4), asks), strict=True):
            assert answer.finish_reason == ("stop" if answer.response_ids[-1] == end else "length")
            assert len(answer.response_ids) == limit or answer.finish_reason == "stop"
            assert end not in answer.response_ids[:-1]
            assert len(answer.logprobs) == len(answer.response_ids) <= limit


def test_a_response_may_fill_the_context_to_the_last_position(model: LocalModel) -> None:
    prompt = prompts(CONTEXT - 6)[0]
    answer = respond(sampler(model, 1), [ask(prompt, 3, max_tokens=50)])[0]
    assert len(answer.response_ids) == 6
    assert answer.finish_reason == "length"
    assert list(answer.logprobs) == pytest.approx(scored(model, prompt, answer, 1.0), abs=1e-5)
