"""Agent definitions: the shipped ones are complete, a malformed one is one line that names the file and the mistake."""

import ast
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types

from aem_swe.agents.definition import PROGRAMS_AT, AgentDefinition, load_agent
from aem_swe.errors import ConfigError

SMALLEST = {
    "task": "{statement}",
    "observation": "{output}",
    "shell_observation": "{output}",
    "steps_remaining": False,
    "tools": [{"name": "finish", "description": "End.", "parameters": {}, "finish": True}],
}
SHELL = {"name": "bash", "description": "", "shell": "cmd", "parameters": {"cmd": {"required": True}}}


def written(folder: Path, content: object) -> str:
    """Write a definition; return its name, which may be a path."""
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / "agent.yaml").write_bytes(text.encode("latin-1"))
    return str(folder)


def mistake(folder: Path, content: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_agent(written(folder, content))
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder / "agent.yaml") in message
    return message


def with_tool(**changes: object) -> dict[str, object]:
    return {**SMALLEST, "tools": [{**SHELL, **changes}]}


@pytest.mark.parametrize("name", ["r2egym", "demo"])
def test_shipped_definitions_have_the_four_tools_and_their_programs(name: str) -> None:
    definition = load_agent(name)
    assert sorted(definition.tools) == ["execute_bash", "file_editor", "finish", "search"]
    assert [tool.name for tool in definition.tools.values() if tool.finish] == ["finish"]
    assert definition.tools["execute_bash"].shell == "cmd"
    assert sorted(definition.programs()) == [f"{PROGRAMS_AT}/file_editor.py", f"{PROGRAMS_AT}/search.py"]
    for source in definition.programs().values():
        ast.parse(source, feature_version=(3, 6))


@pytest.mark.parametrize("action_format", ["xml", "json"])
def test_the_system_prompt_names_every_tool_and_parameter_and_the_call_syntax(action_format: str) -> None:
    definition = load_agent("r2egym", action_format, "/some/where")
    for tool in definition.tools.values():
        assert f"\n{tool.name}: {tool.description.strip()}" in definition.system
        for name, parameter in tool.parameters.items():
            need = "required" if parameter.required else "optional"
            assert f"  - {name} ({parameter.type}, {need}" in definition.system
            assert ", ".join(parameter.enum) in definition.system
    assert ("<function=NAME>" in definition.system) == (action_format == "xml")
    assert ("<tool_call>" in definition.system) == (action_format == "json")
    assert "/some/where" in definition.system
    for field in ("{tools}", "{call_syntax}", "{workdir}"):
        assert field not in definition.system
    assert "{statement}" in definition.task


def test_the_demo_definition_has_no_system_prompt_and_shows_plain_output() -> None:
    definition = load_agent("demo")
    assert (definition.system, definition.task, definition.observation) == ("", "{statement}", "{output}")
    assert not definition.steps_remaining


def test_an_unknown_name_is_told_the_known_ones() -> None:
    known = ["alfworld", "alfworld_small", "demo", "r2egym"]
    with pytest.raises(ConfigError, match=re.escape(f"agent.definition 'r2e' is unknown; choose one of {known}")):
        load_agent("r2e")


def test_an_unknown_action_format_is_told_the_known_ones() -> None:
    known = ["action", "json", "xml"]
    with pytest.raises(ConfigError, match=re.escape(f"agent.action_format 'yaml' is unknown; choose one of {known}")):
        load_agent("demo", "yaml")


def test_the_smallest_definition_loads(tmp_path: Path) -> None:
    definition = load_agent(written(tmp_path, SMALLEST))
    assert isinstance(definition, AgentDefinition)
    assert (definition.action_format, definition.system, definition.programs()) == ("xml", "", {})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("tools: [", "while parsing"),
        ("a: b: c", "mapping values are not allowed here"),
        ("task: \xff", "codec can't decode"),
        ("", "Input should be a valid dictionary"),
        ("[1]", "Input should be a valid dictionary"),
        ({**SMALLEST, "tsak": ""}, "tsak: Extra inputs are not permitted"),
        ({key: value for key, value in SMALLEST.items() if key != "task"}, "task: Field required"),
        ({**SMALLEST, "action_format": "yaml"}, "action_format: Input should be 'xml', 'json' or 'action'"),
        ({**SMALLEST, "system": "missing.md"}, "No such file"),
        (with_tool(parameters={"cmd": {"type": "text"}}), "tools.0.parameters.cmd.type: Input should be 'string'"),
        (with_tool(shell=None), "tool 'bash'"),
        (with_tool(finish=True), "needs exactly one of program, shell and finish"),
        (with_tool(program="search.py"), "needs exactly one of program, shell and finish"),
        (with_tool(shell="command"), "needs a required parameter 'command'"),
        (with_tool(parameters={"cmd": {}}), "needs a required parameter 'cmd'"),
        (with_tool(shell=None, program="missing.py"), "has no program 'missing.py'"),
    ],
)
def test_a_malformed_definition_is_one_line_that_names_the_mistake(tmp_path: Path, content: object, says: str) -> None:
    assert says in mistake(tmp_path, content)


def test_prompts_may_stand_in_files_beside_the_definition(tmp_path: Path) -> None:
    (tmp_path / "system.md").write_text("\nUse {tools} in {workdir}.\n{call_syntax}\n")
    definition = load_agent(written(tmp_path, {**SMALLEST, "system": "system.md"}))
    assert definition.system.startswith("Use finish: End. in /testbed.\nA function call has this form")
