"""What an agent says and may do, read from the declared content in agents/<name>/agent.yaml.

A definition holds texts and tool declarations, no code: prompts, the action format, the form of observations, and for
every tool its parameters and how it is carried out (a program copied into the sandbox, a shell command, or the end).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import YAMLError, safe_load

from aem_swe.errors import ConfigError
from aem_swe.resources import names, resource
from aem_swe.types import Task

PROGRAMS_AT = "/opt/aem/tools"
"""Where the tool programs are visible, read-only, inside every sandbox."""


ActionFormat = Literal["xml", "json", "action"]
"""parser.py says what they look like."""


class Parameter(BaseModel):
    """One declared parameter. Values stay text; `type` is what the policy is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["string", "integer", "boolean", "array"] = "string"
    required: bool = False
    enum: tuple[str, ...] = ()
    description: str = ""


class Tool(BaseModel):
    """One declared tool; exactly one of `program`, `shell` and `finish` says how it is carried out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    description: str
    parameters: dict[str, Parameter]
    program: str | None = None
    """File name in agents/tools; it gets {"arguments", "options"} as JSON on stdin."""
    options: dict[str, bool] = {}
    shell: str | None = None
    """Name of the parameter that holds a command line for bash."""
    blocked: tuple[str, ...] = ()
    """First words that a shell tool refuses (DeepSWE's weak block list)."""
    finish: bool = False


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    action_format: ActionFormat = "xml"
    system: str = ""
    task: str
    observation: str
    shell_observation: str
    steps_remaining: bool
    tools: tuple[Tool, ...]


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """A loaded scaffold."""

    name: str
    action_format: ActionFormat
    system: str
    """System prompt with all its fields filled; empty for none."""
    task: str
    """Template of the first user message, with {statement} and {workdir}."""
    observation: str
    shell_observation: str
    steps_remaining: bool
    tools: Mapping[str, Tool]

    def first_message(self, task: Task) -> str:
        """Return the first user message of a task."""
        return self.task.replace("{workdir}", task.workdir).replace("{statement}", task.text)

    def programs(self) -> dict[str, str]:
        """Return {path inside the sandbox: source} of the tool programs."""
        wanted = sorted({tool.program for tool in self.tools.values() if tool.program})
        return {f"{PROGRAMS_AT}/{name}": resource("agents", f"tools/{name}").read_text() for name in wanted}


_XML_SYNTAX = """A function call has this form; write parameter values as they are, without quoting or escaping:
<function=NAME>
<parameter=KEY>VALUE</parameter>
</function>"""
_JSON_SYNTAX = """A function call has this form, a JSON object between tags:
<tool_call>
{"name": "NAME", "arguments": {"KEY": "VALUE"}}
</tool_call>"""
_ACTION_SYNTAX = "An action has this form:\n<action>TEXT</action>"
_SYNTAX: dict[ActionFormat, str] = {"xml": _XML_SYNTAX, "json": _JSON_SYNTAX, "action": _ACTION_SYNTAX}


def _text(folder: Path, value: str) -> str:
    """Return the file's text where `value` names a .md file beside the definition, else `value` itself."""
    return (folder / value).read_text().strip() if value.endswith(".md") else value


def _declare(tool: Tool) -> str:
    rows = [f"{tool.name}: {tool.description.strip()}"]
    for name, parameter in tool.parameters.items():
        choices = f", one of {', '.join(parameter.enum)}" if parameter.enum else ""
        need = "required" if parameter.required else "optional"
        rows.append(f"  - {name} ({parameter.type}, {need}{choices}): {parameter.description}".rstrip(": "))
    return "\n".join(rows)


@cache
def load_agent(name: str, action_format: str | None = None, workdir: str = "/testbed") -> AgentDefinition:
    """Load agents/<name>/agent.yaml. Raises ConfigError for an unknown name or a malformed definition."""
    folder = resource("agents", name)
    path = folder / "agent.yaml"
    if not path.is_file():
        known = [known for known in names("agents") if resource("agents", f"{known}/agent.yaml").is_file()]
        raise ConfigError(f"agent.definition {name!r} is unknown; choose one of {known}")
    try:
        content = _Content.model_validate(safe_load(path.read_text()))
        system, task = _text(folder, content.system), _text(folder, content.task)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"agent definition {path} is malformed: {where}: {first['msg']}; mend that file") from error
    except (OSError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"agent definition {path} is malformed: {reason}; mend that file") from error
    for tool in content.tools:
        if sum((tool.program is not None, tool.shell is not None, tool.finish)) != 1:
            raise ConfigError(f"tool {tool.name!r} in {path} needs exactly one of program, shell and finish")
        if tool.shell is not None and not (tool.shell in tool.parameters and tool.parameters[tool.shell].required):
            raise ConfigError(f"tool {tool.name!r} in {path} needs a required parameter {tool.shell!r}; declare it")
        if tool.program is not None and not resource("agents", f"tools/{tool.program}").is_file():
            raise ConfigError(f"tool {tool.name!r} in {path} has no program {tool.program!r}; add it to agents/tools")
    chosen = next((known for known in _SYNTAX if known == (action_format or content.action_format)), None)
    if chosen is None:
        raise ConfigError(f"agent.action_format {action_format!r} is unknown; choose one of {sorted(_SYNTAX)}")
    if chosen == "action" and [tool.shell is not None for tool in content.tools] != [True]:
        raise ConfigError(f"agent definition {path} has action_format 'action'; give it one tool, with shell")
    declared = "\n\n".join(_declare(tool) for tool in content.tools)
    fields = {"tools": declared, "call_syntax": _SYNTAX[chosen], "workdir": workdir}
    for key, value in fields.items():
        system = system.replace("{" + key + "}", value)
    return AgentDefinition(
        name=name,
        action_format=chosen,
        system=system,
        task=task,
        observation=content.observation,
        shell_observation=content.shell_observation,
        steps_remaining=content.steps_remaining,
        tools={tool.name: tool for tool in content.tools},
    )
