"""Actions in a real sandbox: the exact observation of each tool, and failures that never become one."""

from collections.abc import Callable, Iterator

import pytest

from aem_swe.agents.definition import load_agent
from aem_swe.agents.tools import ToolResult, decode, run_tool, shorten
from aem_swe.errors import SandboxError
from aem_swe.sandboxes import Sandbox, Sandboxes, SandboxLimits, open_sandboxes, unavailable_reason
from aem_swe.types import Part, Task, ToolCall

TASK = Task("t", (Part("text", "fix it"),), files=(("a.py", b"def f():\n    return 1\n"), ("b.py", b"f = 2\r\n")))
DEEPSWE, DEMO = load_agent("r2egym"), load_agent("demo")
Act = Callable[..., ToolResult]


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandboxes]:
    if reason := unavailable_reason("local"):
        pytest.skip(reason)
    limits = SandboxLimits(memory_mb=128, command_timeout_s=1.0, max_output=20_000)
    with open_sandboxes("local", limits=limits, programs=DEEPSWE.programs()) as opened:
        yield opened


@pytest.fixture
def sandbox(sandboxes: Sandboxes) -> Iterator[Sandbox]:
    with sandboxes.open(TASK) as opened:
        yield opened


@pytest.fixture
def act(sandbox: Sandbox) -> Act:
    def call(name: str, **arguments: str) -> ToolResult:
        return run_tool(ToolCall(name, arguments), DEEPSWE, sandbox, workdir=TASK.workdir)

    return call


def shell(exit_code: int, output: str) -> str:
    return f"Exit code: {exit_code}\nExecution output of [execute_bash]:\n{output}"


def test_a_command_shows_its_exit_code_and_output(act: Act) -> None:
    assert act("execute_bash", cmd="pwd; ls") == ToolResult(shell(0, "/testbed\na.py\nb.py"))
    assert act("execute_bash", cmd="  true\n") == ToolResult(shell(0, ""))
    assert act("execute_bash", cmd="") == ToolResult(shell(0, ""))
    assert act("execute_bash", cmd="exit 3") == ToolResult(shell(3, ""))


def test_standard_error_is_set_apart(act: Act) -> None:
    assert act("execute_bash", cmd="echo out; echo err >&2; false") == ToolResult(
        shell(1, "[STDOUT]\nout\n[STDERR]\nerr")
    )


def test_a_long_output_loses_its_middle(act: Act) -> None:
    lines = [str(i) for i in range(1, 82)]
    assert act("execute_bash", cmd="seq 80").observation == shell(0, "\n".join(lines[:80]))
    cut = [*lines[:40], "<1 lines omitted>", *lines[41:]]
    assert act("execute_bash", cmd="seq 81").observation == shell(0, "\n".join(cut))
    assert shorten("\n".join(str(i) for i in range(1000))).count("\n") == 80


def test_an_output_beyond_its_limit_is_cut_and_says_so(act: Act) -> None:
    observation = act("execute_bash", cmd="head -c 30000 /dev/zero | tr '\\0' x").observation
    assert observation == shell(0, "x" * 20_000 + "\n<output cut at its limit>")


def test_a_command_at_its_time_limit_is_killed_and_marked(act: Act) -> None:
    result = act("execute_bash", cmd="echo before; sleep 30")
    assert result.timed_out
    assert result.observation.endswith("before\n<the command reached its time limit and was killed>")
    assert act("execute_bash", cmd="echo after") == ToolResult(shell(0, "after"))


def test_a_command_at_the_memory_limit_is_killed_and_says_so(act: Act) -> None:
    observation = act("execute_bash", cmd="python3 -c 'x = bytearray(1 << 29); print(len(x))'").observation
    assert "<the memory limit was reached; all processes were killed>" in observation


@pytest.mark.parametrize(
    "command", ["git log", "  git", "\ngit status", "ipython", "jupyter notebook", "nohup sleep 9 &"]
)
def test_blocked_first_words_are_refused(act: Act, command: str) -> None:
    assert act("execute_bash", cmd=command) == ToolResult(f"ERROR: {command.split()[0]} is not available here")


def test_a_command_with_a_nul_character_is_refused_and_the_sandbox_lives(act: Act) -> None:
    assert act("execute_bash", cmd="echo a\0b") == ToolResult("ERROR: a command cannot contain a NUL character")
    assert act("execute_bash", cmd="echo ok").observation == shell(0, "ok")


def test_a_command_that_is_too_long_for_the_system_is_the_agents_mistake(act: Act) -> None:
    observation = act("execute_bash", cmd="echo " + "x" * 300_000).observation
    assert observation.startswith("Exit code: 126\n")
    assert "Argument list too long" in observation
    assert act("execute_bash", cmd="echo ok").observation == shell(0, "ok")


def test_escape_codes_and_other_control_characters_reach_nobody(act: Act) -> None:
    observation = act("execute_bash", cmd=r"printf 'a\033[31mred\033]0;title\007\tb\n\x9b\xff\r\u202e'").observation
    assert observation == shell(0, "a\ufffd[31mred\ufffd]0;title\ufffd\tb\n\ufffd\ufffd\ufffd\ufffd")


@pytest.mark.parametrize("text", ["ok é \N{GRINNING FACE}", "a\u00a0b\u3000c\u2009d", "\ta\n\n"])
def test_text_and_white_space_of_any_language_is_shown_as_it_is(text: str) -> None:
    assert decode(text.encode()) == text


def test_carriage_returns_before_newlines_are_not_shown_and_others_are_marked() -> None:
    assert decode(b"a\r\nb\r50%\r100%\r\n") == "a\nb\ufffd50%\ufffd100%\n"


def test_file_tools_work_in_the_project_folder(act: Act, sandbox: Sandbox) -> None:
    head = "Execution output of [file_editor]:\n"
    view = act("file_editor", command="view", path="a.py").observation
    assert view == head + "Here is the result of running `cat -n` on a.py:\n     1\tdef f():\n     2\t    return 1"
    edit = act(
        "file_editor", command="str_replace", path="/testbed/a.py", old_str="    return 1", new_str="    return 2"
    )
    assert edit.observation.startswith(head + "The file /testbed/a.py was edited.\n")
    assert sandbox.read("a.py") == b"def f():\n    return 2\n"
    act("file_editor", command="undo_edit", path="a.py")
    assert sandbox.diff() == b""


def test_errors_of_file_tools_are_observations(act: Act) -> None:
    result = act("file_editor", command="view", path="missing.py")
    assert result == ToolResult("Execution output of [file_editor]:\nERROR: missing.py is not a file")


def test_search_works_in_the_project_folder(act: Act) -> None:
    head = "Execution output of [search]:\n"
    assert act("search", search_term="f").observation == head + "Matches per file:\na.py: 1\nb.py: 1"
    assert act("search", search_term="return", path="a.py").observation == head + "2:    return 1"


def test_a_viewed_file_keeps_its_middle(act: Act) -> None:
    act("file_editor", command="create", path="c.txt", file_text="".join(f"line {i}\n" for i in range(200)))
    observation = act("file_editor", command="view", path="c.txt").observation
    assert "line 100\n" in observation
    assert "omitted" not in observation


def test_values_are_never_taken_for_fields_of_the_template(act: Act) -> None:
    assert act("execute_bash", cmd="echo '{output} {exit_code} {tool}'").observation == shell(
        0, "{output} {exit_code} {tool}"
    )


def test_values_reach_the_tool_character_for_character(act: Act, sandbox: Sandbox) -> None:
    text = "  'a' \"b\" $HOME `id` \\n {x}\t\u00e9\N{GRINNING FACE}\n\n"
    act("file_editor", command="create", path="new dir/c d.txt", file_text=text)
    assert sandbox.read("new dir/c d.txt") == text.encode()


def test_the_demo_scaffold_shows_the_bare_output(sandbox: Sandbox) -> None:
    def demo(name: str, **arguments: str) -> str:
        return run_tool(ToolCall(name, arguments), DEMO, sandbox, workdir=TASK.workdir).observation

    assert demo("search", search_term="return") == "a.py:2:    return 1"
    assert demo("file_editor", command="view", path="b.py") == "f = 2"
    assert (
        demo("file_editor", command="str_replace", path="b.py", old_str="2", new_str="3") == "The file b.py was edited."
    )
    assert demo("execute_bash", cmd="echo hi; false") == "hi"


def test_a_sandbox_that_is_gone_is_an_error_and_never_an_observation(act: Act, sandbox: Sandbox) -> None:
    sandbox.close()
    for name, arguments in (("execute_bash", {"cmd": "echo hi"}), ("search", {"search_term": "f"})):
        with pytest.raises(SandboxError):
            act(name, **arguments)
