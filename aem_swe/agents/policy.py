"""What a policy is: it answers AskPolicy with a Response. The embedded model (engines/local), endpoints and scripts
are all this.

A policy that samples derives its random stream from `ask.seed` alone, so the same seed gives the same run whatever else
happens at the same time.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.loop import AskPolicy
from aem_swe.types import Response


class Policy(Protocol):
    """Answers one request. Raises PolicyError where no usable response can be had."""

    def respond(self, ask: AskPolicy) -> Response: ...


class BatchPolicy(Protocol):
    """Answers one request per row of a fixed cohort; None in, None out (an episode that is over)."""

    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]: ...


AsyncPolicy = Callable[[AskPolicy], Awaitable[Response]]
"""An awaitable policy, for frameworks that run an event loop."""

Script = Callable[[AskPolicy], str]
"""Returns the text of the next response."""


class ScriptedPolicy:
    """Says what a function says, as real token ids of a real tokenizer. For tests, demonstrations and gold runs."""

    def __init__(self, script: Script, chat: ChatFormat) -> None:
        self._script, self._chat = script, chat

    def respond(self, ask: AskPolicy) -> Response:
        text = self._script(ask)
        ids = [
            *self._chat.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False),
            self._chat.end_id,
        ]
        cut = len(ids) > ask.max_tokens
        if cut:
            ids = ids[: ask.max_tokens]
            text = self._chat.text(ids)
        return Response(text, tuple(ids), (0.0,) * len(ids), "length" if cut else "stop")

    def respond_batch(self, asks: Sequence[AskPolicy | None]) -> list[Response | None]:
        return [None if ask is None else self.respond(ask) for ask in asks]


def turn_of(ask: AskPolicy) -> int:
    """The 0-based turn that `ask` wants: the last word of its seed."""
    return ask.seed[-1]
