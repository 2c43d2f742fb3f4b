"""The protocol of an evaluation: everything beside the model that moves the score, in one file that reports print.

`eval/<name>.yaml` holds it; two results are comparable where the digests of their protocols agree. How fast an
evaluation runs (workers, engines) is not part of it, and what a model costs is not either.
"""

import difflib
import hashlib
import json
import os.path
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from aem_swe.agents.loop import Limits
from aem_swe.config import complaint, read_settings
from aem_swe.errors import ConfigError
from aem_swe.eval.swebench.dataset import require_swebench
from aem_swe.eval.swebench.results import MOST_RUNS
from aem_swe.resources import names, resource
from aem_swe.sandboxes.base import SandboxLimits
from aem_swe.section import Count, CountOrZero, NotNegative, Section

Seconds = Annotated[float, Field(gt=0, le=1e7, strict=True)]
Megabytes = Annotated[int, Field(ge=64, le=1 << 24, strict=True)]


class Play(Section):
    """How the agent plays."""

    agent: str
    """A folder in agents/: prompts, tools, observations."""
    history: Literal["keep_thinking", "strip_thinking"] = "keep_thinking"
    temperature: NotNegative = 1.0
    max_steps: Count = 100
    soft_steps: Count | None = None
    """Steps that the agent is told it has; from then on it is told to submit."""
    context: Count = 65536
    """Tokens of prompt and response together."""
    max_response_tokens: Count | None = None
    max_format_errors: Count | None = None
    trajectory_timeout_s: Seconds | None = None
    command_timeout_s: Seconds = 90.0
    submit_unfinished: bool = True
    """Grade the patch of an episode that ended without `finish`."""

    @model_validator(mode="after")
    def _consistent(self) -> "Play":
        if self.soft_steps and self.soft_steps > self.max_steps:
            raise ValueError(f"play.soft_steps {self.soft_steps} is more than play.max_steps; use less")
        return self

    def limits(self) -> Limits:
        return Limits(
            max_steps=self.max_steps,
            response_budget=self.context,
            max_response_tokens=self.max_response_tokens,
            max_format_errors=self.max_format_errors,
            submit_unfinished=self.submit_unfinished,
            soft_steps=self.soft_steps,
            context=self.context,
        )


class Machine(Section):
    """What an agent's container may use."""

    memory_mb: Megabytes = 4096
    processes: Annotated[int, Field(ge=16, le=1 << 20, strict=True)] = 512
    disk_mb: Megabytes = 4096
    max_output: Count = 100_000
    cpus: Annotated[float, Field(ge=0, le=4096, strict=True)] = 0.0

    def limits(self, command_timeout_s: float) -> SandboxLimits:
        return SandboxLimits(self.memory_mb, self.processes, self.disk_mb, command_timeout_s, self.max_output)


class Grading(Section):
    """How a patch is judged."""

    swebench: str = ""
    """The version of the harness, such as 5.0.2; another installed one is refused. Empty: whichever is installed."""
    timeout_s: Seconds = 1800.0
    network: Literal["none", "bridge"] = "none"
    """Of the harness's containers: none has no way out."""
    memory_mb: Megabytes = 8192

    def require_harness(self) -> None:
        """Raise ConfigError where another version of swebench is installed, or none."""
        installed = require_swebench()
        if self.swebench and installed != self.swebench:
            raise ConfigError(
                f"grading.swebench {self.swebench} is the protocol's harness and {installed} is installed; "
                f"pip install swebench=={self.swebench}, or use grading.swebench={installed}"
            )


class Retries(Section):
    """What is done about a world that fails; none of it concerns what the model says."""

    requests: CountOrZero = 5
    """Of one request: connection, time-out, 408, 409, 429 and 5xx, with growing pauses."""
    answers: CountOrZero = 2
    """Of one request whose answer cannot be used."""
    episodes: CountOrZero = 2
    """Of an episode that ended in an infrastructure error."""
    gradings: CountOrZero = 2


class Protocol(Section):
    """All of it."""

    protocol: str = ""  # its name, set by load_protocol
    dataset: str = ""
    """Rows (parquet, jsonl, json) or a folder of them; --dataset replaces it."""
    runs: Annotated[int, Field(ge=1, le=MOST_RUNS, strict=True)] = 1
    seed: CountOrZero = 1
    play: Play
    machine: Machine = Machine()
    grading: Grading = Grading()
    retries: Retries = Retries()

    @property
    def sha256(self) -> str:
        """Of what moves the score: not of how many runs there are and with which seed, nor of the place of the rows."""
        kept = self.model_dump(exclude={"protocol", "dataset", "runs", "seed", "retries"})
        texts = {path.name: path.read_text("utf-8") for path in _texts(self.play.agent)}
        return hashlib.sha256(json.dumps([kept, texts], sort_keys=True).encode()).hexdigest()


def _texts(agent: str) -> list[Path]:
    folder = resource("agents", agent)
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def load_protocol(name: str, overrides: Sequence[str] = ()) -> Protocol:
    """Read a protocol by its name in eval/ or its path. Raises ConfigError with one line for whatever is wrong."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else resource("eval", f"{name}.yaml")
    if not os.path.isfile(path):
        known = protocols()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {known}, or an existing YAML file"
        raise ConfigError(f"protocol {name!r} is unknown; {hint}")
    values: dict[str, Any] = {"protocol": path.stem, **read_settings(path, overrides, "protocol")}  # checked next
    try:
        return Protocol.model_validate(values)
    except ValidationError as error:
        raise ConfigError(complaint(error, Protocol)) from error


def protocols() -> list[str]:
    """The names of the protocols that ship with the package."""
    return [name for name in names("eval", ".yaml") if not name.startswith("published_")]
