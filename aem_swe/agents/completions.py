"""What an OpenAI-compatible server answers, as far as a policy needs it; anything malformed fails here."""

import json
from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

_Id = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]


class Logprobs(BaseModel):
    tokens: tuple[str, ...]
    token_logprobs: tuple[FiniteFloat, ...]


class Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    """The thinking, where the server takes it out of the content."""


class Choice(BaseModel):
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    """vLLM: the stop token that ended the response, where it is not the tokenizer's own."""
    prompt_token_ids: tuple[_Id, ...] | None = None
    token_ids: tuple[_Id, ...] | None = None
    logprobs: Logprobs | None = None
    message: Message = Message()
    """Chat mode's answer."""


class Usage(BaseModel):
    prompt_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    completion_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class Answer(BaseModel):
    choices: Annotated[tuple[Choice, ...], Field(min_length=1, max_length=1)]
    usage: Usage | None = None


def paid_for(text: str) -> tuple[int, int]:
    """(prompt, completion) tokens that an answer says it took, be it usable or not; zeros where it does not say."""
    try:
        usage = Usage.model_validate(json.loads(text)["usage"])
    except (ValueError, TypeError, KeyError, RecursionError, ValidationError):
        return 0, 0
    return usage.prompt_tokens, usage.completion_tokens
