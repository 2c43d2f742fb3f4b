"""Read the action out of a response: the first call block counts, and parameter values keep their text.

Three formats behind one interface, PARSERS[format](text, tools) -> ToolCall | FormatError:
xml   <function=NAME><parameter=KEY>VALUE</parameter>...</function>   (R2E-Gym, DeepSWE)
json  <tool_call>{"name": NAME, "arguments": {KEY: VALUE}}</tool_call>  (native calls of Qwen and others)
action  <action>TEXT</action>  the text is the command of the one tool there is; never a format error (text games)

R2E-Gym's own parser strips every value, so `old_str` loses its leading indentation; here at most one newline at each
end of a value is dropped. Both parsers take time linear in the text (find, no backtracking regular expressions).
Not covered (xml): values that contain the literal text "</parameter>", which ends the value, or "</function>", which is
answered with a format error and never taken for a shorter call.
"""

import json
from collections.abc import Callable, Mapping

from aem_swe.agents.definition import Tool
from aem_swe.types import FormatError, ToolCall

Parser = Callable[[str, Mapping[str, Tool]], ToolCall | FormatError]


def _trim(value: str) -> str:
    """Drop at most one newline at each end."""
    value = value.removeprefix("\n")
    return value.removesuffix("\n")


def _between(text: str, opening: str, closing: str, start: int) -> tuple[str, int] | None:
    """Return the text between the next `opening` and `closing` after `start`, and the position behind it."""
    begin = text.find(opening, start)
    if begin < 0:
        return None
    begin += len(opening)
    end = text.find(closing, begin)
    if end < 0:
        return None
    return text[begin:end], end + len(closing)


def _checked(name: str, arguments: dict[str, str], tools: Mapping[str, Tool]) -> ToolCall | FormatError:
    """Compare a call with the declarations."""
    if name not in tools:
        return FormatError(f"ERROR: unknown function {name!r}; use one of {', '.join(tools)}")
    declared = tools[name].parameters
    for key in arguments:
        if key not in declared:
            return FormatError(f"ERROR: {name} has no parameter {key!r}; it has {', '.join(declared)}")
    for key, parameter in declared.items():
        if parameter.required and key not in arguments:
            return FormatError(f"ERROR: {name} needs the parameter {key!r}")
        if parameter.enum and key in arguments and arguments[key] not in parameter.enum:
            return FormatError(f"ERROR: {name} {key} must be one of {', '.join(parameter.enum)}")
    return ToolCall(name, arguments)


def parse_xml(text: str, tools: Mapping[str, Tool]) -> ToolCall | FormatError:
    """Read the first <function=...> block."""
    block = _between(text, "<function=", "</function>", 0)
    if block is None:
        return FormatError("ERROR: no complete function call found")
    name, closed, body = block[0].partition(">")
    if not closed:
        return FormatError("ERROR: the function call is malformed")
    arguments: dict[str, str] = {}
    position = 0
    while (parameter := _between(body, "<parameter=", "</parameter>", position)) is not None:
        key, closed, value = parameter[0].partition(">")
        if not closed:
            return FormatError("ERROR: a parameter of the function call is malformed")
        if key in arguments:
            return FormatError(f"ERROR: parameter {key!r} is given twice")
        arguments[key] = _trim(value)
        position = parameter[1]
    if "<parameter=" in body[position:]:  # for example because its value holds "</function>"
        return FormatError("ERROR: a parameter of the function call is not closed")
    return _checked(name.strip(), arguments, tools)


def parse_json(text: str, tools: Mapping[str, Tool]) -> ToolCall | FormatError:
    """Read the first <tool_call> block; values that are not text are kept as their JSON."""
    block = _between(text, "<tool_call>", "</tool_call>", 0)
    if block is None:
        return FormatError("ERROR: no complete tool call found")
    try:
        call = json.loads(block[0])
    except (ValueError, RecursionError):
        return FormatError("ERROR: the tool call is not valid JSON")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return FormatError("ERROR: the tool call needs a name")
    arguments = call.get("arguments", {})
    if not isinstance(arguments, dict):
        return FormatError("ERROR: the arguments of the tool call must be an object")
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in arguments.items()}
    try:  # JSON can spell half a surrogate pair ("\\ud800"), which no program or file could be given
        "".join((call["name"], *texts, *texts.values())).encode()
    except UnicodeEncodeError:
        return FormatError("ERROR: the tool call holds half of a surrogate pair")
    return _checked(call["name"], texts, tools)


def parse_action(text: str, tools: Mapping[str, Tool]) -> ToolCall | FormatError:
    """Read the first <action> block; a response without one is an empty move, which the game does not admit."""
    name, tool = next(iter(tools.items()))
    parameter = tool.shell or next(iter(tool.parameters))
    block = _between(text, "<action>", "</action>", 0)
    return ToolCall(name, {parameter: block[0].strip() if block else ""})


PARSERS: dict[str, Parser] = {"xml": parse_xml, "json": parse_json, "action": parse_action}
