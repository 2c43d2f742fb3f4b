"""The nouns of the package, from a task to a finished trajectory. Frozen data, picklable, no behaviour to speak of.

Shape suffixes elsewhere: B trajectory or row, T token, R response (one assistant turn), G group (one prompt).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

FinishReason = Literal["stop", "length"]


class Termination(StrEnum):
    """Why an episode ended; exactly one per trajectory."""

    FINISHED = "finished"
    MAX_STEPS = "max_steps"
    TOKEN_BUDGET = "token_budget"
    TIMEOUT = "timeout"
    FORMAT_ERRORS = "format_errors"
    INFRASTRUCTURE_ERROR = "infrastructure_error"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a task statement."""

    kind: Literal["text"]
    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """What the agent may know about one problem. The trusted tests live in its Grader (tasks/grading.py), never
    here."""

    id: str
    statement: tuple[Part, ...]
    image: str = ""
    """Container image; empty where `files` is the whole environment."""
    files: tuple[tuple[str, bytes], ...] = ()
    """(path relative to workdir, content), written when a sandbox is prepared."""
    workdir: str = "/testbed"
    setup: str = ""
    """Bash script that turns the image into what an agent may see; run once per image, its result is kept."""
    env: tuple[tuple[str, str], ...] = ()
    """Added to the environment of every command."""

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.statement)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One parsed action. `arguments` keep their text exactly as the policy wrote it."""

    name: str
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class FormatError:
    """A response without a usable action; `message` is what the policy gets to read."""

    message: str


@dataclass(frozen=True, slots=True)
class Response:
    """What a policy answered. Log-probs are at the sampling temperature; both tuples are empty in chat mode."""

    text: str
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    policy_version: int = 0
    usage: tuple[int, int] | None = None
    """Tokens of the prompt and of the response as a server counted them; None where it does not say."""
    seconds: tuple[float, float] | None = field(default=None, compare=False)
    """(prefill, decode): from the question to the first token, and from there to the last; None: not timed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn and what came back. `prompt_ids` + `response_ids` is all that the policy saw and said."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    policy_version: int
    text: str
    action: ToolCall | FormatError
    observation: str = ""
    """What the environment answered; empty after the last turn."""


@dataclass(frozen=True, slots=True)
class Graded:
    """The verdict of a grader: 1 or 0 with a reason, or None where the infrastructure failed."""

    reward: float | None
    reason: str
    diff: bytes = b""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One finished episode, a bad one included: a failed rollout is data, not a crash."""

    task_id: str
    group: int
    rollout: int
    """0-based index within the group."""
    turns: tuple[Turn, ...]
    termination: Termination
    reward: float | None
    reward_reason: str
    diff: bytes = b""
    retries: tuple[str, ...] = ()
    """One line for each action or sandbox that had to be tried again."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds spent per stage: sandbox, tools, reward (policy time belongs to the cohort)."""
