"""EndpointPolicy against a real server process that serves the shipped starting policy, and that fails in every way."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest
from served import ModelServer

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.agents.endpoint import EndpointPolicy, request_seed
from aem_swe.agents.loop import AskPolicy, Grade, Limits, RunTool, episode
from aem_swe.agents.probe import probe
from aem_swe.agents.tools import ToolResult
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import LocalModel
from aem_swe.errors import ConfigError, ContextExceeded, PolicyError
from aem_swe.tasks.demo import make_problem
from aem_swe.types import Graded, Response, Turn

KEY = "sk-canary-4711"
TASK = make_problem("test", 3).task()


def asking(chat: ChatFormat, seed: tuple[int, ...] = (1, 2, 3), max_tokens: int = 60) -> AskPolicy:
    return AskPolicy(({"role": "user", "content": TASK.text},), chat.first_prompt("", TASK.text), max_tokens, seed)


def policy_for(
    url: str, chat: ChatFormat | None, *, model: str = "demo", key: str = KEY, timeout_s: float = 30.0, retries: int = 3
) -> EndpointPolicy:
    return EndpointPolicy(
        base_url=url, model=model, chat=chat, temperature=1.0, seed=5, api_key=key, timeout_s=timeout_s, retries=retries
    )


def failure(url: str, chat: ChatFormat | None, ask: AskPolicy, **settings: object) -> str:
    with policy_for(url, chat, **settings) as policy, pytest.raises(PolicyError) as caught:  # type: ignore[arg-type]  # settings of policy_for
        policy.respond(ask)
    message = str(caught.value)
    assert message.startswith("the endpoint http://127.0.0.1:")
    assert "; " in message, "every message ends in a remedy"
    assert message.isprintable(), "one line, no control characters"
    assert KEY not in message
    assert caught.value.__cause__ is None
    return message


def embedded(model: LocalModel, ask: AskPolicy) -> Response:
    """What the embedded engine says for the same seed: a fresh sampler, as the server has."""
    sampler = Sampler(model, rows=1, context=1024, temperature=1.0, seed=0)
    return sampler.respond(replace(ask, seed=(request_seed(5, ask.seed),)))


# --- tokens mode


def test_the_endpoint_gives_the_ids_of_the_embedded_sampler(server: ModelServer, model: LocalModel) -> None:
    with policy_for(server.url(), model.chat) as policy:
        for rollout in range(6):
            ask = asking(model.chat, (1, rollout, 0))
            got, wanted = policy.respond(ask), embedded(model, ask)
            assert (got.response_ids, got.text, got.finish_reason) == (
                wanted.response_ids,
                wanted.text,
                wanted.finish_reason,
            )
            assert got.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
        assert policy.token_exact


def test_the_async_variant_gives_the_same_responses_as_the_other(server: ModelServer, chat: ChatFormat) -> None:
    asks = [asking(chat, (1, rollout, 0)) for rollout in range(4)]
    url = server.url()

    async def together() -> list[Response]:
        async with policy_for(url, chat) as policy:
            return list(await asyncio.gather(*(policy.arespond(ask) for ask in asks)))

    with policy_for(url, chat) as policy:
        assert asyncio.run(together()) == [policy.respond(ask) for ask in asks]


def test_the_request_holds_the_exact_prompt_and_switches_every_filter_off(
    server: ModelServer, chat: ChatFormat
) -> None:
    url, ask = server.url(), asking(chat)
    with policy_for(url, chat) as policy:
        policy.respond(ask)
    (body,) = server.requests(url)
    assert body["prompt"] == list(ask.prompt_ids)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("demo", 60, 1.0)
    assert body["stop_token_ids"] == [chat.end_id]
    assert (body["top_p"], body["top_k"], body["min_p"], body["repetition_penalty"]) == (1.0, -1, 0.0, 1.0)
    assert body["seed"] == request_seed(5, ask.seed)


def test_seeds_differ_where_any_word_differs_and_fit_every_server() -> None:
    words = [(), (0,), (0, 0), (1, 23), (12, 3), (123,), (1, 2, 3), (3, 2, 1)]
    seeds = {request_seed(seed, word) for seed in (0, 1) for word in words}
    assert len(seeds) == 2 * len(words)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert request_seed(0, (1, 2, 3)) == 22769525, "on every machine, for ever"


def test_prompts_of_an_episode_are_prefixes_of_each_other_on_the_server(server: ModelServer, model: LocalModel) -> None:
    url, chat = server.url(), model.chat
    limits = Limits(max_steps=5, response_budget=400, max_response_tokens=56)
    with policy_for(url, chat) as policy:
        run = episode(TASK, load_agent("demo"), limits, chat, seed=(4, 0), history="keep_thinking")
        request, turns = next(run), ()
        try:
            while True:
                if isinstance(request, AskPolicy):
                    request = run.send(policy.respond(request))
                elif isinstance(request, RunTool):
                    request = run.send(ToolResult("basics.py:1:def grow(a):<|im_end|>"))
                else:
                    assert isinstance(request, Grade)
                    request = run.send(Graded(0.0, "tests_failed"))
        except StopIteration as stop:
            turns = stop.value.turns
    prompts = [tuple(body["prompt"]) for body in server.requests(url)]
    assert len(prompts) == len(turns) >= 3
    for before, after, turn in zip(prompts, prompts[1:], turns, strict=False):
        assert isinstance(turn, Turn)
        assert after[: len(before) + len(turn.response_ids)] == before + turn.response_ids
    assert [turn.prompt_ids for turn in turns] == prompts


def test_ids_are_also_read_from_tokens_that_are_written_as_ids(server: ModelServer, chat: ChatFormat) -> None:
    ask = asking(chat)
    with policy_for(server.url("only_as_token_ids"), chat) as other, policy_for(server.url(), chat) as policy:
        assert other.respond(ask) == policy.respond(ask)


def test_a_response_may_end_with_another_stop_token_that_the_server_names(
    server: ModelServer, chat: ChatFormat
) -> None:
    with policy_for(server.url("other_stop"), chat) as policy:
        response = policy.respond(asking(chat))
    assert (response.response_ids, response.finish_reason) == ((5, 0), "stop")
    assert response.text.endswith("<|endoftext|>")


def test_a_response_at_its_token_limit_is_marked_as_cut(server: ModelServer, chat: ChatFormat) -> None:
    with policy_for(server.url(), chat) as policy:
        response = policy.respond(asking(chat, max_tokens=3))
    assert len(response.response_ids) == 3
    assert response.finish_reason == "length"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no_ids", "does not say which token ids it sampled; serve with vLLM"),
        ("odd_ids", "does not say which token ids it sampled"),
        ("negative_id", "malformed answer (choices.0.token_ids.0:"),
        ("no_logprobs", "sent no log-probs"),
        ("fewer_logprobs", "log-probs for"),
        ("null_logprob", "malformed answer (choices.0.logprobs.token_logprobs.0:"),
        ("changes_prompt", "changed the ids of the prompt"),
        ("drops_stop", "left out the end-of-turn token 2"),
        ("nothing", "left out the end-of-turn token 2"),
        ("long", "tokens where 60 were asked for"),
        ("filtered", "ended the response for the reason 'content_filter'"),
        ("empty", "malformed answer (choices: Tuple should have at least 1 item"),
        ("two", "malformed answer (choices: Tuple should have at most 1 item"),
        ("truncated", "malformed answer (body: Invalid JSON"),
        ("html", "malformed answer (body: Invalid JSON"),
    ],
)
def test_an_answer_that_is_not_exact_is_refused_at_once(
    server: ModelServer, chat: ChatFormat, fault: str, says: str
) -> None:
    url = server.url(fault)
    assert says in failure(url, chat, asking(chat))
    assert len(server.requests(url)) == 1, "asking again would not help"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_that_comes_byte_by_byte_ends_at_the_time_limit(
    server: ModelServer, chat: ChatFormat, asynchronous: bool
) -> None:
    started = time.monotonic()

    async def ask() -> None:
        async with policy_for(server.url("drip"), chat, timeout_s=1.0, retries=0) as policy:
            await policy.arespond(asking(chat))

    if asynchronous:
        with pytest.raises(PolicyError, match="no answer within 1 s"):
            asyncio.run(ask())
    else:
        assert "no answer within 1 s" in failure(server.url("drip"), chat, asking(chat), timeout_s=1.0, retries=0)
    assert time.monotonic() - started < 5.0


def test_a_redirect_is_not_followed(server: ModelServer, chat: ChatFormat) -> None:
    assert "answered 307" in failure(server.url("elsewhere"), chat, asking(chat))


# --- chat mode


def test_chat_mode_gives_text_and_is_marked_as_not_token_exact(server: ModelServer, model: LocalModel) -> None:
    url, ask = server.url(), asking(model.chat)
    with policy_for(url, None) as policy:
        response = policy.respond(replace(ask, prompt_ids=()))
        assert not policy.token_exact
    wanted = embedded(model, ask)
    assert response == Response(wanted.text, (), (), wanted.finish_reason, usage=(11, len(wanted.response_ids)))
    (body,) = server.requests(url)
    assert body["messages"] == list(ask.messages)
    assert "prompt" not in body


def test_what_a_model_ends_in_its_own_way_is_a_response_and_no_failure_of_the_world(
    server: ModelServer, model: LocalModel
) -> None:
    ask = asking(model.chat)
    with policy_for(server.url("filtered"), None) as policy:
        response = policy.respond(ask)
    assert (response.text, response.finish_reason) == (embedded(model, ask).text, "stop")


def test_thinking_that_a_server_takes_apart_is_put_back(server: ModelServer, model: LocalModel) -> None:
    ask = asking(model.chat)
    with policy_for(server.url("thinks"), None) as policy:
        assert policy.respond(ask).text == "<think>\na thought\n</think>\n\n" + embedded(model, ask).text


def test_a_full_context_is_known_as_such_only_where_nobody_here_counts_tokens(
    server: ModelServer, chat: ChatFormat
) -> None:
    with policy_for(server.url("refused"), None) as policy, pytest.raises(ContextExceeded):
        policy.respond(asking(chat))
    with policy_for(server.url("refused"), chat) as policy, pytest.raises(PolicyError) as caught:
        policy.respond(asking(chat))
    assert type(caught.value) is PolicyError


@pytest.mark.parametrize(
    ("fault", "model_name", "context", "says"),
    [
        ("ok", "gpt", 1024, "the endpoint serves ['demo'], not 'gpt'; name one of them"),
        ("ok", "demo", 1025, "play.context 1025 is more than the 1024 tokens that the endpoint serves; use play.con"),
        ("key", "demo", 1024, "answered 401"),
        ("no_list", "gpt", 1024, "answered 404"),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_a_probe_says_what_is_wrong_before_anything_begins(
    server: ModelServer, chat: ChatFormat, fault: str, model_name: str, context: int, says: str, exact: bool
) -> None:
    policy = policy_for(server.url(fault), chat if exact else None, model=model_name, key="sk-wrong", retries=0)
    with policy, pytest.raises((ConfigError, PolicyError)) as caught:
        probe(policy, context=context)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["ok", "no_list"])
def test_a_probe_of_what_works_asks_for_a_few_tokens(server: ModelServer, chat: ChatFormat, fault: str) -> None:
    url = server.url(fault)
    with policy_for(url, chat) as policy:
        probe(policy, context=1024)
    assert [body["max_tokens"] for body in server.requests(url)] == [16]


def test_a_chat_answer_without_content_is_an_empty_response(server: ModelServer, chat: ChatFormat) -> None:
    with policy_for(server.url("nothing"), None) as policy:
        assert policy.respond(asking(chat)).text == ""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("long", "sent 61 tokens where 60 were asked for"),
        ("empty", "malformed answer"),
        ("truncated", "Invalid JSON"),
    ],
)
def test_an_unusable_chat_answer_is_refused(server: ModelServer, chat: ChatFormat, fault: str, says: str) -> None:
    assert says in failure(server.url(fault), None, asking(chat))


# --- failures of the server and of the way to it


@pytest.mark.parametrize("fault", ["busy_twice", "drops_once", "cut_once"])
def test_a_passing_failure_is_tried_again(server: ModelServer, chat: ChatFormat, fault: str) -> None:
    url, ask = server.url(fault), asking(chat)
    with policy_for(url, chat) as policy, policy_for(server.url(), chat) as other:
        assert policy.respond(ask) == other.respond(ask)
    assert len(server.requests(url)) == (3 if fault == "busy_twice" else 2)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("busy", "answered 429 in 3 tries: too many requests; lower the number of episodes"),
        ("broken", "answered 500 in 3 tries: <html> <b>Internal [31m Server Error</b></html>; see its log"),
    ],
)
def test_a_lasting_failure_is_given_up_after_its_retries(
    server: ModelServer, chat: ChatFormat, fault: str, says: str
) -> None:
    url = server.url(fault)
    assert says in failure(url, chat, asking(chat), retries=2)
    assert len(server.requests(url)) == 3


def test_a_dropped_connection_is_given_up_after_its_retries(server: ModelServer, chat: ChatFormat) -> None:
    url = server.url("drops")
    assert "cannot be reached in 2 tries" in failure(url, chat, asking(chat), retries=1)
    assert len(server.requests(url)) == 2


def test_a_slow_answer_is_given_up_at_the_time_limit(server: ModelServer, chat: ChatFormat) -> None:
    started = time.monotonic()
    assert "no answer within 0.2 s; raise timeout_s" in failure(
        server.url("slow"), chat, asking(chat), timeout_s=0.2, retries=0
    )
    assert time.monotonic() - started < 0.9


def test_nobody_listening_is_one_clear_line(chat: ChatFormat) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert "cannot be reached" in failure(url, chat, asking(chat), retries=0)


def test_the_async_variant_fails_with_the_same_line(server: ModelServer, chat: ChatFormat) -> None:
    url = server.url("busy")

    async def alone() -> None:
        async with policy_for(url, chat, retries=1) as policy:
            await policy.arespond(asking(chat))

    with pytest.raises(PolicyError) as caught:
        asyncio.run(alone())
    assert str(caught.value) == failure(url, chat, asking(chat), retries=1)


# --- the user's mistakes


def test_a_wrong_key_is_one_clear_line_that_does_not_show_it(server: ModelServer, chat: ChatFormat) -> None:
    url, wrong = server.url("key"), "sk-wrong-0815"
    message = failure(url, chat, asking(chat), key=wrong)
    assert "answered 401: Incorrect API key provided: ***. Try another.; check the API key" in message
    assert wrong not in message
    assert len(server.requests(url)) == 1
    with policy_for(url, chat) as policy:
        assert policy.respond(asking(chat)).response_ids


def test_a_wrong_model_or_path_is_one_clear_line(server: ModelServer, chat: ChatFormat) -> None:
    message = failure(server.url(), chat, asking(chat), model="other")
    assert "(model 'other') answered 404: The model `other` does not exist.; check the URL" in message
    assert "answered 404: Not Found; check the URL" in failure(server.url() + "/v2", chat, asking(chat))


def test_a_refused_request_shows_the_servers_reason_on_one_line(server: ModelServer, chat: ChatFormat) -> None:
    url = server.url("refused")
    assert "answered 400: maximum context length is 1024 tokens; " in failure(url, chat, asking(chat))
    assert len(server.requests(url)) == 1


def test_a_long_message_of_the_server_is_cut(server: ModelServer, chat: ChatFormat) -> None:
    assert len(failure(server.url("verbose"), chat, asking(chat))) < 700


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://host/v1", "http://", "http://[::1/v1", "http://host:x/v1"]
)
def test_a_malformed_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="write it like http://localhost:8000/v1"):
        policy_for(url, None)


def test_a_url_is_shown_without_its_password() -> None:
    with policy_for("http://user:hunter2@127.0.0.1:1/v1?key=hunter2", None, retries=0) as policy:
        with pytest.raises(PolicyError) as caught:
            policy.respond(AskPolicy((), (), 5, (0,)))
    assert "http://127.0.0.1:1/v1 " in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as malformed:
        policy_for("htp://user:hunter2@host/v1", None)
    assert "hunter2" not in str(malformed.value)


@pytest.mark.parametrize("key", ["sk-1\n", "sk 1", "sk-\N{EURO SIGN}", "\tsk-1"])
def test_a_key_that_no_header_can_hold_is_a_config_error_that_does_not_show_it(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_for("http://127.0.0.1:1/v1", None, key=key)
    assert key.strip() not in str(caught.value)


def test_without_a_key_none_is_taken_from_the_environment(
    server: ModelServer, chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert "answered 401: Incorrect API key provided: none." in failure(server.url("key"), chat, asking(chat), key="")
