"""Carry out one parsed action in a sandbox and turn its output into the observation that the policy reads.

A SandboxError passes through: it is never an observation.
"""

import json
from dataclasses import dataclass
from unicodedata import category

from aem_swe.agents.definition import PROGRAMS_AT, AgentDefinition
from aem_swe.sandboxes.base import CommandResult, Sandbox
from aem_swe.types import ToolCall

_KEEP_LINES = 40
"""DeepSWE shows the first and the last 40 lines of a command's output that has more than 80."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One observation, ready for the history."""

    observation: str
    timed_out: bool = False
    over: bool = False
    """The episode has ended with this action, without a call to finish."""


def shorten(text: str) -> str:
    """Cut the middle out of more than 80 lines."""
    lines = text.split("\n")
    if len(lines) <= 2 * _KEEP_LINES:
        return text
    cut = len(lines) - 2 * _KEEP_LINES
    return "\n".join([*lines[:_KEEP_LINES], f"<{cut} lines omitted>", *lines[-_KEEP_LINES:]])


def decode(output: bytes) -> str:
    """Return text without control characters (escape codes would reach terminals and reports); white space stays."""
    text = output.decode("utf-8", "replace").replace("\r\n", "\n")
    return "".join(character if _is_harmless(character) else "\N{REPLACEMENT CHARACTER}" for character in text)


def _is_harmless(character: str) -> bool:
    return character in "\n\t" or character.isprintable() or category(character) == "Zs"


def _output(result: CommandResult) -> str:
    stdout, stderr = decode(result.stdout), decode(result.stderr)
    text = f"[STDOUT]\n{stdout.rstrip()}\n[STDERR]\n{stderr.rstrip()}" if stderr.strip() else stdout.rstrip("\n")
    notes = [
        "<output cut at its limit>" if result.truncated else "",
        "<the command reached its time limit and was killed>" if result.timed_out else "",
        "<the memory limit was reached; all processes were killed>" if result.out_of_memory else "",
    ]
    return "\n".join([text, *(note for note in notes if note)])


def run_tool(call: ToolCall, definition: AgentDefinition, sandbox: Sandbox, *, workdir: str) -> ToolResult:
    """Run `call` (not a finish). Raises SandboxError if the sandbox failed."""
    tool = definition.tools[call.name]
    if tool.shell is not None:
        command = call.arguments[tool.shell]
        first = command.split(maxsplit=1)[:1]
        if first and first[0] in tool.blocked:
            return ToolResult(f"ERROR: {first[0]} is not available here")
        if "\0" in command:
            return ToolResult("ERROR: a command cannot contain a NUL character")
        result = sandbox.run(command, cwd=workdir)
        template = definition.shell_observation
        output = shorten(_output(result))
    else:
        request = json.dumps({"arguments": dict(call.arguments), "options": tool.options}).encode()
        result = sandbox.run(["python3", f"{PROGRAMS_AT}/{tool.program}"], cwd=workdir, stdin=request)
        template = definition.observation
        output = _output(result)
    values = {"tool": call.name, "exit_code": str(result.exit_code), "output": output}
    observation = template
    for key in ("tool", "exit_code", "output"):  # output last: what it contains is never taken for a field
        observation = observation.replace("{" + key + "}", values[key])
    return ToolResult(observation, timed_out=result.timed_out, over=result.over)
