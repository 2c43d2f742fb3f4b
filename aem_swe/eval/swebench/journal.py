"""The turns of one instance as they are made, so that a kill loses no answer that a model has given.

One file of JSON lines per run and instance, only ever appended to: `asked` before a request, `answered` after it, `did`
after a tool, `failed` when an attempt ended for a reason of the world's. An attempt that is begun again gets its
answers and observations from here; whatever was asked and not answered is lost, and counted.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any  # JSON values

from aem_swe.agents.tools import ToolResult
from aem_swe.errors import RunError
from aem_swe.metrics import drop_torn_line
from aem_swe.types import Response


@dataclass(slots=True)
class Spent:
    """What was paid for."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    policy_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, with its price."""

    response: Response
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class Journal:
    """For one thread. It is a rollout.Memory: it gives back what the policy has read in an earlier process."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises RunError where it cannot be read or written."""
        self.path = path
        self.attempt = 1
        self.failures: list[str] = []
        """Why each earlier attempt ended."""
        self.lost = Spent()
        """Of answers that became no turn."""
        self.lost_requests = 0
        self._answers: dict[int, Answer] = {}
        self._results: dict[int, ToolResult] = {}
        self._pending: int | None = None
        """Prompt tokens of a request that has no answer yet; 0 where nobody counted them."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            drop_torn_line(path)
            content = path.read_bytes() if path.exists() else b""
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise RunError(f"{path} cannot be used ({error.strerror}); mend it, or choose another --out") from error
        for number, line in enumerate(content.splitlines(), 1):
            try:
                self._read(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                self._file.close()
                raise RunError(
                    f"{path}, line {number}, is no entry of a journal; delete the file to begin anew"
                ) from error
        self._lose_pending()

    def close(self) -> None:
        self._file.close()

    @property
    def lost_tokens(self) -> int:
        return self.lost.tokens

    @property
    def turns(self) -> int:
        return len(self._answers)

    @property
    def answers(self) -> Mapping[int, Answer]:
        """Of the present attempt, by turn."""
        return self._answers

    @property
    def spent(self) -> Spent:
        """On the turns of the present attempt."""
        all_of_them = self._answers.values()
        return Spent(
            sum(answer.prompt_tokens for answer in all_of_them),
            sum(answer.completion_tokens for answer in all_of_them),
            sum(answer.seconds for answer in all_of_them),
        )

    def answer(self, turn: int) -> Response | None:
        """What the policy said in this turn, or None if it has not been asked successfully."""
        return self._answers[turn].response if turn in self._answers else None

    def asked(self, turn: int, prompt_tokens: int) -> None:
        """Before a request. prompt_tokens: 0 where nobody has counted them."""
        self._write({"asked": turn, "prompt_tokens": prompt_tokens})

    def answered(
        self, turn: int, response: Response, prompt_tokens: int, completion_tokens: int, seconds: float
    ) -> None:
        """Log-probs are not kept: an evaluation has no use for them."""
        said = {**asdict(response), "logprobs": ()}
        self._write({"answered": turn, "response": said, "tokens": [prompt_tokens, completion_tokens], "s": seconds})

    def unanswered(self, reason: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """A request was refused, or its answer cannot be used; tokens: those of such an answer."""
        self._write({"unanswered": reason, "tokens": [prompt_tokens, completion_tokens]})

    def recorded(self, action: int) -> ToolResult | None:
        return self._results.get(action)

    def record(self, action: int, result: ToolResult) -> None:
        self._write({"did": action, **asdict(result)})

    def failed(self, reason: str) -> None:
        """The attempt is over without a result; the next one begins with nothing."""
        self._write({"failed": reason})

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row).encode() + b"\n"
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); free space, then go on") from error
        self._read(row)

    def _read(self, row: dict[str, Any]) -> None:
        if "asked" in row:
            self._lose_pending()
            self._pending = row["prompt_tokens"]
        elif "answered" in row:
            self._pending = None
            said = row["response"]
            response = Response(
                said["text"],
                tuple(said["response_ids"]),
                (),
                said["finish_reason"],
                usage=tuple(said["usage"]) if said["usage"] else None,
            )
            self._answers[row["answered"]] = Answer(response, row["tokens"][0], row["tokens"][1], row["s"])
        elif "unanswered" in row:
            self._pending = None
            self._lose(*row["tokens"])
        elif "did" in row:
            self._results[row["did"]] = ToolResult(row["observation"], row["timed_out"])
        elif "failed" in row:
            self._lose(self.spent.prompt_tokens, self.spent.completion_tokens)
            self.failures.append(row["failed"])
            self.attempt += 1
            self._answers.clear()
            self._results.clear()
        else:
            raise ValueError("it is of no known kind")

    def _lose_pending(self) -> None:
        """A request without an answer was under way when the process ended."""
        if self._pending is not None:
            self.lost_requests += 1
            self._lose(self._pending, 0)
            self._pending = None

    def _lose(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.lost.prompt_tokens += prompt_tokens
        self.lost.completion_tokens += completion_tokens
