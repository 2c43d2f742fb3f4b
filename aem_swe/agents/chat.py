"""Turn messages into token ids with the tokenizer's own chat template, so that nothing is tokenised twice.

Under `keep_thinking` the ids of turn k start with all ids of turn k-1: the first prompt is rendered once, and later
only
the observation and the template's text around it are appended. Under `strip_thinking` the same is done with responses
whose thinking was taken out, so prompts are no longer prefixes of each other (Qwen3's own default). The fixed text is
read off the template itself, by rendering a short conversation with markers. Text that comes from outside (statement,
observation) is encoded with special tokens switched off, so an observation with "<|im_end|>" in it cannot end a turn.
Threads may share a ChatFormat.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jinja2 import TemplateError

from aem_swe.errors import ConfigError

Message = dict[str, str]
_THINK_END = "</think>"
_ASK, _ANSWER, _NEXT = "\u2402ask\u2402", "\u2402answer\u2402", "\u2402next\u2402"


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that is used here."""

    eos_token_id: int | None

    def apply_chat_template(
        self, conversation: list[Message], *, tokenize: bool, add_generation_prompt: bool
    ) -> str: ...

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A tokenizer with the fixed parts of its chat template."""

    tokenizer: Tokenizer
    _outside_tokenizer: Tokenizer
    """A copy that only ever encodes text from outside: switching special tokens on and off changes a tokenizer's state,
    which threads share."""
    end_id: int
    """The end-of-turn token that the policy samples."""
    _before: tuple[int, ...]
    """From the end of an assistant message (its end-of-turn token left out) to the next user text."""
    _after: tuple[int, ...]
    """From the end of a user text to the start of the next response."""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "ChatFormat":
        """Read the template. Raises ConfigError if the tokenizer has no usable chat template or end-of-turn token."""
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no eos_token; set it in tokenizer_config.json to the end-of-turn token"
            )
        messages = [
            {"role": "user", "content": _ASK},
            {"role": "assistant", "content": _ANSWER},
            {"role": "user", "content": _NEXT},
        ]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (ValueError, TemplateError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"the tokenizer has no usable chat template ({reason}); mend chat_template in tokenizer_config.json"
            ) from error
        if text.count(_ANSWER) != 1 or text.count(_NEXT) != 1:
            raise ConfigError("the chat template does not show every message once; use a plain multi-turn template")
        between, after = text.split(_ANSWER)[1].split(_NEXT)
        before_ids = tokenizer.encode(between, add_special_tokens=False, split_special_tokens=False)
        if not before_ids or before_ids[0] != tokenizer.eos_token_id:
            raise ConfigError(
                "the chat template does not end an assistant message with the tokenizer's eos_token; mend one of them"
            )
        after_ids = tokenizer.encode(after, add_special_tokens=False, split_special_tokens=False)
        outside = copy.deepcopy(tokenizer)
        outside.encode("", add_special_tokens=False, split_special_tokens=True)  # sets its state while nobody shares it
        return cls(tokenizer, outside, tokenizer.eos_token_id, tuple(before_ids[1:]), tuple(after_ids))

    def first_prompt(self, system: str, task: str) -> tuple[int, ...]:
        """Return the ids of the prompt of turn 1."""
        messages = [{"role": "system", "content": system}] if system else []
        text = self.tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": _ASK}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(_ASK)
        ids = self.tokenizer.encode(before, add_special_tokens=False, split_special_tokens=False)
        ids += self._outside(task)
        return tuple(ids + self.tokenizer.encode(after, add_special_tokens=False, split_special_tokens=False))

    def extend(self, ids: Sequence[int], observation: str) -> tuple[int, ...]:
        """Return the next prompt: `ids` (a prompt and its whole response), the observation, the start of a response."""
        closed = () if ids[-1] == self.end_id else (self.end_id,)
        return (*ids, *closed, *self._before, *self._outside(observation), *self._after)

    def without_thinking(self, response_ids: Sequence[int]) -> tuple[int, ...]:
        """Return a response as history=strip_thinking keeps it: what follows its last </think>, encoded again."""
        text = self.text(response_ids)
        if _THINK_END not in text:
            return tuple(response_ids)
        return (*self._outside(text.rpartition(_THINK_END)[2].lstrip("\n")), self.end_id)

    def text(self, response_ids: Sequence[int]) -> str:
        """Decode a response without its end-of-turn token."""
        ids = response_ids[:-1] if response_ids and response_ids[-1] == self.end_id else response_ids
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def _outside(self, text: str) -> list[int]:
        return self._outside_tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
