"""The episode as a sans-IO generator: it decides what happens next and does none of it.

It yields AskPolicy, RunTool or Grade and is sent a Response, a ToolResult or a Graded; it returns an Ending. Whoever
drives it (rollout.py) owns the model, the sandbox, the clock and every failure; when the time is over or the
infrastructure has failed it sends an Abort in place of a result, and the episode ends with what it has.

DeepSWE's rules: the response budget counts assistant and observation tokens of the whole episode, a call may use what
is left of it, and running out is a truncation; an episode without `finish` is not graded in training.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Literal

from aem_swe.agents.chat import ChatFormat, Message
from aem_swe.agents.definition import AgentDefinition
from aem_swe.agents.parser import PARSERS
from aem_swe.agents.tools import ToolResult
from aem_swe.types import FormatError, Graded, Response, Task, Termination, ToolCall, Turn

History = Literal["keep_thinking", "strip_thinking"]
_LAST_STEP = "The next step is the last one. Submit your work now."
_NO_STEPS_LEFT = "All steps are used. Submit your work now."
_BYTES_PER_TOKEN = 2
"""To guess at most how long a text is where no tokenizer is at hand; the server's next count corrects it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When an episode ends by itself. Tokens and turns only, so that a slow machine changes nothing."""

    max_steps: int
    response_budget: int
    """Tokens after the first prompt: assistant and observation tokens of all turns (strip_thinking: those kept)."""
    max_response_tokens: int | None = None
    """Cap of one turn; None: what is left of the budget (DeepSWE)."""
    max_format_errors: int | None = None
    """Responses without a usable action, in a row, that end the episode; None: no such end."""
    submit_unfinished: bool = False
    """Grade an episode that ended without `finish` (evaluation protocols that do so); False in training."""
    soft_steps: int | None = None
    """Steps that the policy is told it has, fewer than max_steps; later turns are told to submit. None: max_steps."""
    context: int | None = None
    """Tokens of a prompt and its response together (the model's context); None: only response_budget counts."""


@dataclass(frozen=True, slots=True)
class AskPolicy:
    """Give me the next response."""

    messages: tuple[Message, ...]
    """The whole conversation as text; all that a chat endpoint without token ids can use."""
    prompt_ids: tuple[int, ...]
    """The same as token ids; empty in chat mode."""
    max_tokens: int
    seed: tuple[int, ...]
    """Names this response among all of a run; a policy that samples derives its random stream from it alone."""


@dataclass(frozen=True, slots=True)
class RunTool:
    """Carry out this action in the episode's sandbox."""

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Grade:
    """Take the diff and grade it in a fresh sandbox."""


@dataclass(frozen=True, slots=True)
class Abort:
    """Sent instead of a result: the episode ends here, for this reason."""

    termination: Literal[Termination.TIMEOUT, Termination.TOKEN_BUDGET, Termination.INFRASTRUCTURE_ERROR]


@dataclass(frozen=True, slots=True)
class Ending:
    """How an episode ended."""

    turns: tuple[Turn, ...]
    termination: Termination
    graded: Graded | None
    """None where nothing was graded."""


Request = AskPolicy | RunTool | Grade
Result = Response | ToolResult | Graded | Abort
Episode = Generator[Request, Result, Ending]


def _action(response: Response, definition: AgentDefinition) -> ToolCall | FormatError:
    if response.finish_reason == "length":
        return FormatError("the response was cut at its token limit")
    return PARSERS[definition.action_format](response.text, definition.tools)


def _remaining(observation: str, definition: AgentDefinition, left: int) -> str:
    if not definition.steps_remaining:
        return observation
    advice = _NO_STEPS_LEFT if left < 1 else _LAST_STEP if left == 1 else ""
    return f"{observation}\n\nSteps Remaining: {max(left, 0)}\n{advice}".rstrip("\n")


def episode(
    task: Task,
    definition: AgentDefinition,
    limits: Limits,
    chat: ChatFormat | None,
    *,
    seed: tuple[int, ...],
    history: History,
) -> Episode:
    """Run one episode of `task`. `chat=None` is chat mode: messages only, and tokens are counted as the server says."""
    turns: list[Turn] = []
    termination = yield from _converse(turns, task, definition, limits, chat, seed, history)
    failed = termination is Termination.INFRASTRUCTURE_ERROR
    if failed or (termination is not Termination.FINISHED and not limits.submit_unfinished):
        return Ending(tuple(turns), termination, None)
    graded = yield Grade()
    if isinstance(graded, Abort):
        return Ending(tuple(turns), graded.termination, None)
    assert isinstance(graded, Graded)
    return Ending(tuple(turns), termination, graded)


def _converse(
    turns: list[Turn],
    task: Task,
    definition: AgentDefinition,
    limits: Limits,
    chat: ChatFormat | None,
    seed: tuple[int, ...],
    history: History,
) -> Generator[Request, Result, Termination]:
    """Take turns until one of the reasons to end; fills `turns`."""
    task_text = definition.first_message(task)
    messages: list[Message] = [{"role": "system", "content": definition.system}] if definition.system else []
    messages.append({"role": "user", "content": task_text})
    ids = chat.first_prompt(definition.system, task_text) if chat else ()
    first = len(ids)
    size = first if chat or not limits.context else sum(_guess(message["content"]) for message in messages)
    errors_in_a_row = 0
    while True:
        left = limits.response_budget - (size - first)
        left = min(left, limits.context - size) if limits.context else left
        allowed = min(left, limits.max_response_tokens or left)
        if allowed < 1:
            return Termination.TOKEN_BUDGET
        response = yield AskPolicy(tuple(messages), ids, allowed, (*seed, len(turns)))
        if isinstance(response, Abort):
            return response.termination
        assert isinstance(response, Response)
        action = _action(response, definition)
        turns.append(_turn(ids, response, action))
        if response.finish_reason == "length":
            return Termination.TOKEN_BUDGET
        if isinstance(action, FormatError):
            errors_in_a_row += 1
            observation = action.message
        elif definition.tools[action.name].finish:
            return Termination.FINISHED
        else:
            errors_in_a_row = 0
            result = yield RunTool(action)
            if isinstance(result, Abort):
                return result.termination
            assert isinstance(result, ToolResult)
            observation = result.observation
            if result.over:
                turns[-1] = replace(turns[-1], observation=observation)
                return Termination.FINISHED
        observation = _remaining(observation, definition, (limits.soft_steps or limits.max_steps) - len(turns))
        turns[-1] = replace(turns[-1], observation=observation)
        if limits.max_format_errors is not None and errors_in_a_row >= limits.max_format_errors:
            return Termination.FORMAT_ERRORS
        if len(turns) >= limits.max_steps:
            return Termination.MAX_STEPS
        messages += [{"role": "assistant", "content": response.text}, {"role": "user", "content": observation}]
        if chat:
            kept = response.response_ids if history == "keep_thinking" else chat.without_thinking(response.response_ids)
            ids = chat.extend((*ids, *kept), observation)
            size = len(ids)
        elif response.usage:
            first = first or response.usage[0]
            size = sum(response.usage) + _guess(observation)


def _guess(text: str) -> int:
    return len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN


def _turn(prompt_ids: tuple[int, ...], response: Response, action: ToolCall | FormatError) -> Turn:
    return Turn(
        prompt_ids=prompt_ids,
        response_ids=response.response_ids,
        logprobs=response.logprobs,
        finish_reason=response.finish_reason,
        policy_version=response.policy_version,
        text=response.text,
        action=action,
    )
