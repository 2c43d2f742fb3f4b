"""A policy behind an OpenAI-compatible endpoint (vLLM, SGLang and their like), through the `openai` package.

Tokens mode (a ChatFormat is given): the prompt goes to /v1/completions as its exact ids, and the response comes back as
the ids that were sampled, with their log-probs. Nothing is tokenised twice, so the ids of turn k start with all ids of
turn k-1. A server that does not say which ids it sampled, or drops the end-of-turn token, is refused: its text could
only be tokenised again, and that gives other ids than the policy said.

Chat mode (chat=None): messages go to /v1/chat/completions and text comes back. `token_exact` is False: for evaluation,
never for training. Filters like top_p are switched off in tokens mode and left to the server in chat mode.

The openai client tries connection errors, time-outs and the status codes 408, 409, 429 and 5xx again, with growing
pauses; every other refusal fails at once. All become a PolicyError of one line without the API key.

Not covered: log-probs are what the server reports. vLLM reports them before the temperature is applied, unless it was
started with `--logprobs-mode processed_logprobs`; at temperature 1 there is no difference.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Self

import openai
from pydantic import ValidationError

from aem_swe.agents import connections
from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.completions import Answer, Choice, Usage, paid_for
from aem_swe.agents.loop import AskPolicy
from aem_swe.errors import ConfigError, ContextExceeded, PolicyError, UnusableAnswer
from aem_swe.types import FinishReason, Response

_RETRIED = (408, 409, 429)
_REMEDIES = {
    400: "check that the server's context holds prompt + max_tokens, and that it serves this kind of request",
    401: "check the API key",
    403: "check the API key",
    404: "check the URL (it usually ends in /v1) and the name of the model",
    429: "lower the number of episodes at a time",
}
_TOO_LONG = re.compile(r"context.?length|maximum model length|max_model_len|prompt is too long", re.IGNORECASE)
_OWN_ENDINGS = ("tool_calls", "function_call", "content_filter")
"""In chat mode: what the model itself did, and no fault of the world's."""
_EXACT_IDS = "serve with vLLM 0.10.2 or newer, or evaluate in chat mode"
_TOKEN_ID = "token_id:"
"""How vLLM writes a token when asked for return_tokens_as_token_ids."""


def request_seed(seed: int, words: Sequence[int]) -> int:
    """Return the number (31 bits) that seeds one response: a function of the run's seed and `ask.seed` alone."""
    digest = hashlib.sha256(json.dumps([seed, *words]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class EndpointPolicy:
    """A Policy (`respond`) and an AsyncPolicy (`arespond`, one event loop) over a model that is served elsewhere.

    Safe to share between threads. Use it as a context manager; with `arespond`, as an asynchronous one.
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        chat: ChatFormat | None,
        temperature: float,
        seed: int | None,
        api_key: str = "",
        timeout_s: float = 1800.0,
        retries: int = 5,
    ) -> None:
        """seed: None leaves it to the server, whose sampling is slower where every request has a generator of its own.
        timeout_s: of one try. Raises ConfigError for a malformed URL or key."""
        self._name = connections.shown(base_url)
        if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise ConfigError("the API key holds white space or characters that a header cannot have; copy it again")
        self.model, self.chat, self._temperature, self._seed = model, chat, temperature, seed
        self._key, self._timeout_s, self._retries = api_key, timeout_s, retries
        self._path = "/completions" if chat else "/chat/completions"
        key = api_key or "none"  # left out, the client would take one from the environment
        named: dict[str, Any] = {"base_url": base_url, "api_key": key, "timeout": timeout_s, "max_retries": retries}
        self.client = openai.OpenAI(**named, http_client=connections.client(timeout_s))
        self._async_client = openai.AsyncOpenAI(**named, http_client=connections.async_client(timeout_s))

    @property
    def token_exact(self) -> bool:
        """Whether responses carry the sampled ids and their log-probs, which training needs."""
        return self.chat is not None

    def respond(self, ask: AskPolicy) -> Response:
        """Answer one request. Raises PolicyError where the server gives no usable response."""
        try:
            text = self.client.post(self._path, cast_to=str, body=self._body(ask))
        except openai.APIError as error:
            raise self._refused(error) from None  # the cause's text may hold the key
        return self._read(ask, text)

    async def arespond(self, ask: AskPolicy) -> Response:
        """The same on an event loop."""
        try:
            text = await self._async_client.post(self._path, cast_to=str, body=self._body(ask))
        except openai.APIError as error:
            raise self._refused(error) from None  # as above
        return self._read(ask, text)

    def close(self) -> None:  # the connections of `respond`
        self.client.close()

    async def aclose(self) -> None:
        """Close all connections."""
        self.client.close()
        await self._async_client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _body(self, ask: AskPolicy) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self.model,
            "max_tokens": ask.max_tokens,
            "temperature": self._temperature,
        }
        if self._seed is not None:
            body["seed"] = request_seed(self._seed, ask.seed)
        if self.chat is None:
            return body | {"messages": ask.messages}
        return body | {
            "prompt": ask.prompt_ids,
            "stop_token_ids": [self.chat.end_id],
            "logprobs": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            # the policy itself, not what the model's generation_config.json makes of it
            "top_p": 1.0,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }

    def _read(self, ask: AskPolicy, text: str) -> Response:
        try:
            return self._response(ask, text)
        except UnusableAnswer as error:
            error.usage = paid_for(text)
            raise

    def _response(self, ask: AskPolicy, text: str) -> Response:
        try:
            answer = Answer.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise self._error(f"sent a malformed answer ({where or 'body'}: {first['msg']})", "see its log") from None
        choice = answer.choices[0]
        if choice.finish_reason not in ("stop", "length", *(() if self.chat else _OWN_ENDINGS)):
            reason = choice.finish_reason
            raise self._error(f"ended the response for the reason {reason!r}", "only stop and length can be used")
        if self.chat is None:
            response = self._chat_response(choice, answer.usage)
        else:
            response = self._exact_response(ask, choice, self.chat)
        count = len(response.response_ids) or (response.usage[1] if response.usage else 0)
        if count > ask.max_tokens:
            what = f"sent {count} tokens where {ask.max_tokens} were asked for"
            raise self._error(what, "use a server that keeps to max_tokens")
        return response

    def _chat_response(self, choice: Choice, usage: Usage | None) -> Response:
        message = choice.message
        thought = f"<think>\n{message.reasoning_content}\n</think>\n\n" if message.reasoning_content else ""
        finish: FinishReason = "length" if choice.finish_reason == "length" else "stop"
        counted = (usage.prompt_tokens, usage.completion_tokens) if usage else None
        return Response(thought + (message.content or ""), (), (), finish, usage=counted)

    def _exact_response(self, ask: AskPolicy, choice: Choice, chat: ChatFormat) -> Response:
        if choice.logprobs is None:
            raise self._error("sent no log-probs", _EXACT_IDS)
        ids = self._ids_of(choice.logprobs.tokens) if choice.token_ids is None else choice.token_ids
        logprobs = choice.logprobs.token_logprobs
        if len(ids) != len(logprobs):
            raise self._error(f"sent {len(logprobs)} log-probs for {len(ids)} tokens", "see its log")
        if choice.prompt_token_ids not in (None, ask.prompt_ids):
            raise self._error("changed the ids of the prompt", _EXACT_IDS)
        stopped = choice.finish_reason == "stop"
        if not ids or (stopped and ids[-1] not in (chat.end_id, choice.stop_reason)):
            raise self._error(f"left out the end-of-turn token {chat.end_id}", _EXACT_IDS)
        return Response(chat.text(ids), ids, logprobs, "stop" if stopped else "length")

    def _ids_of(self, tokens: tuple[str, ...]) -> tuple[int, ...]:
        numbers = [token.removeprefix(_TOKEN_ID) for token in tokens if token.startswith(_TOKEN_ID)]
        if len(numbers) != len(tokens) or not all(n.isascii() and n.isdecimal() and len(n) < 10 for n in numbers):
            raise self._error("does not say which token ids it sampled", _EXACT_IDS)
        return tuple(int(number) for number in numbers)

    def _refused(self, error: openai.APIError) -> PolicyError:
        tries = f" in {self._retries + 1} tries" if self._retries else ""
        if isinstance(error, openai.APIStatusError):
            status = error.status_code
            retried = tries if status in _RETRIED or status >= 500 else ""
            line = self._line(f"answered {status}{retried}: {_said(error)}", _REMEDIES.get(status, "see its log"))
            # in tokens mode it is no end of an episode but a server that was started with too little
            full = status == 400 and self.chat is None and _TOO_LONG.search(line)
            return ContextExceeded(line) if full else PolicyError(line)
        if isinstance(error, openai.APITimeoutError):
            what = f"gave no answer within {self._timeout_s:g} s{tries}"
            return PolicyError(self._line(what, "raise timeout_s or lower the load"))
        what = f"cannot be reached{tries} ({error.__cause__ or error})"
        return PolicyError(self._line(what, "check the URL and that the server is up"))

    def _error(self, what: str, remedy: str) -> UnusableAnswer:
        return UnusableAnswer(self._line(what, remedy))

    def _line(self, what: str, remedy: str) -> str:
        if self._key:
            what = what.replace(self._key, "***")
        line = " ".join("".join(character if character.isprintable() else " " for character in what).split())
        line = f"{line[:400]}..." if len(line) > 400 else line
        return f"the endpoint {self._name} (model {self.model!r}) {line}; {remedy}"


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return str(body or "no message")
