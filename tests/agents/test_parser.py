"""Both action formats: values keep their text, the first block counts, mistakes are named, time is linear."""

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aem_swe.agents.definition import Parameter, Tool, load_agent
from aem_swe.agents.parser import PARSERS, Parser, parse_json, parse_xml
from aem_swe.types import FormatError, ToolCall

TOOLS = load_agent("r2egym").tools
SMALL = {
    "f": Tool(name="f", description="", parameters={"a": Parameter(required=True), "b": Parameter(enum=("x", "y"))}),
    "g": Tool(name="g", description="", parameters={"c": Parameter()}),
}


def xml(name: str, **parameters: str) -> str:
    return (
        f"<function={name}>" + "".join(f"<parameter={k}>{v}</parameter>" for k, v in parameters.items()) + "</function>"
    )


def native(name: object, arguments: object) -> str:
    return "<tool_call>" + json.dumps({"name": name, "arguments": arguments}) + "</tool_call>"


def error(parsed: ToolCall | FormatError) -> str:
    assert isinstance(parsed, FormatError)
    return parsed.message


def call(parsed: ToolCall | FormatError) -> tuple[str, dict[str, str]]:
    assert isinstance(parsed, ToolCall), parsed
    return parsed.name, dict(parsed.arguments)


# --- what the policy wrote is what the tool gets


def test_indentation_of_old_str_is_kept() -> None:
    text = "thinking\n" + xml(
        "file_editor", command="str_replace", path="a.py", old_str="    return 1", new_str="\treturn 2 "
    )
    name, arguments = call(parse_xml(text, TOOLS))
    assert name == "file_editor"
    assert arguments == {"command": "str_replace", "path": "a.py", "old_str": "    return 1", "new_str": "\treturn 2 "}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", ""),
        ("\n", ""),
        ("\n\n", ""),
        ("\n\n\n", "\n"),
        ("\nx\n", "x"),
        ("\n\nx\n\n", "\nx\n"),
        ("\n    x\n", "    x"),
        ("  \nx\n  ", "  \nx\n  "),
        ("\r\nx", "\r\nx"),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
        ("a > b", "a > b"),
        ("<parameter=nested", "<parameter=nested"),
        ("\u2028\x0cx", "\u2028\x0cx"),
    ],
)
def test_at_most_one_newline_is_dropped_at_each_end_and_nothing_else(written: str, read: str) -> None:
    assert call(parse_xml(xml("g", c=written), SMALL)) == ("g", {"c": read})


def test_json_values_are_kept_as_they_are() -> None:
    assert call(parse_json(native("g", {"c": "\n\n  x \n"}), SMALL)) == ("g", {"c": "\n\n  x \n"})


def test_json_values_that_are_not_text_become_their_json() -> None:
    arguments = {"command": "view", "path": "a.py", "view_range": [1, -1], "concise": True}
    assert call(parse_json(native("file_editor", arguments), TOOLS))[1] == {
        "command": "view",
        "path": "a.py",
        "view_range": "[1, -1]",
        "concise": "true",
    }


@pytest.mark.parametrize("action_format", ["xml", "json"])
def test_the_first_block_counts(action_format: str) -> None:
    write: Callable[..., str] = {"xml": xml, "json": lambda name, **values: native(name, values)}[action_format]
    text = "a" + write("g", c="1") + "b" + write("g", c="2")
    assert call(PARSERS[action_format](text, SMALL)) == ("g", {"c": "1"})


def test_the_first_block_counts_even_if_only_the_second_is_right() -> None:
    assert "unknown function 'h'" in error(parse_xml(xml("h") + xml("g"), SMALL))
    assert "not valid JSON" in error(parse_json("<tool_call>{</tool_call>" + native("g", {}), SMALL))


def test_text_between_parameters_and_around_names_is_ignored() -> None:
    assert call(parse_xml("<function= f >\n so <parameter=a>1</parameter>\n and </function> bye", SMALL)) == (
        "f",
        {"a": "1"},
    )


def test_a_json_call_may_leave_out_its_arguments() -> None:
    assert call(parse_json('<tool_call>{"name": "g"}</tool_call>', SMALL)) == ("g", {})


# --- what is wrong is named


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no complete function call"),
        ("<function=g>", "no complete function call"),
        ("</function>", "no complete function call"),
        ("<function=g</function>", "malformed"),
        ("<function=g><parameter=c</parameter></function>", "a parameter of the function call is malformed"),
        ("<function=g><parameter=c>1</function>", "is not closed"),
        ("<function=g><parameter=c>def f(): '</function>'</parameter></function>", "is not closed"),
        (xml("g", c="1")[:-11] + "<parameter=c>2</parameter></function>", "parameter 'c' is given twice"),
        (xml("h"), "unknown function 'h'; use one of f, g"),
        (xml("f", a="1", d="2"), "f has no parameter 'd'; it has a, b"),
        (xml("f", b="x"), "f needs the parameter 'a'"),
        (xml("f", a="1", b="z"), "f b must be one of x, y"),
    ],
)
def test_a_wrong_xml_call_is_told_what_is_wrong(text: str, says: str) -> None:
    assert says in error(parse_xml(text, SMALL))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no complete tool call"),
        ('<tool_call>{"name": "g"}', "no complete tool call"),
        ("<tool_call></tool_call>", "not valid JSON"),
        ("<tool_call>{'name': 'g'}</tool_call>", "not valid JSON"),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "not valid JSON"),
        ('<tool_call>{"name": "g", "arguments": {"c": ' + "1" * 5000 + "}}</tool_call>", "not valid JSON"),
        ("<tool_call>[]</tool_call>", "needs a name"),
        ("<tool_call>{}</tool_call>", "needs a name"),
        (native(["g"], {}), "needs a name"),
        (native("g", ["c"]), "must be an object"),
        (native("g", None), "must be an object"),
        (native("g", {"c": "\ud800"}), "surrogate"),
        (native("g", {"\udfff": "c"}), "surrogate"),
        (native("\ud800", {}), "surrogate"),
        (native("h", {}), "unknown function 'h'"),
        (native("f", {"a": "1", "b": "z"}), "must be one of"),
    ],
)
def test_a_wrong_json_call_is_told_what_is_wrong(text: str, says: str) -> None:
    assert says in error(parse_json(text, SMALL))


def test_nested_json_of_any_depth_is_a_call_or_a_format_error() -> None:
    def nested(depth: int) -> ToolCall | FormatError:
        value = "[" * depth + "]" * depth
        return parse_json(f'<tool_call>{{"name": "g", "arguments": {{"c": {value}}}}}</tool_call>', SMALL)

    calls = [depth for depth in range(1, 1200) if isinstance(nested(depth), ToolCall)]
    assert calls == list(range(1, len(calls) + 1))
    assert len(calls) > 100


def test_a_whole_pair_of_surrogates_is_one_character_and_fine() -> None:
    assert call(parse_json('<tool_call>{"name": "g", "arguments": {"c": "\\ud83d\\ude00"}}</tool_call>', SMALL)) == (
        "g",
        {"c": "\N{GRINNING FACE}"},
    )


def test_messages_hold_no_control_characters_from_the_policy() -> None:
    for parsed in (parse_xml(xml("\x1b[31m"), SMALL), parse_xml(xml("g", **{"\x1b]0;": "1"}), SMALL)):
        assert "\x1b" not in error(parsed)


# --- against slow, obvious references


def position(text: str, wanted: str, start: int) -> int | None:
    return next((i for i in range(start, len(text)) if text[i : i + len(wanted)] == wanted), None)


def slow_block(text: str, opening: str, closing: str, start: int = 0) -> tuple[str, int] | None:
    begin = position(text, opening, start)
    end = None if begin is None else position(text, closing, begin + len(opening))
    return None if begin is None or end is None else (text[begin + len(opening) : end], end + len(closing))


def slow_check(name: str, arguments: dict[str, str]) -> tuple[str, dict[str, str]] | None:
    if name not in SMALL or not set(arguments) <= set(SMALL[name].parameters):
        return None
    missing = [key for key, p in SMALL[name].parameters.items() if p.required and key not in arguments]
    outside = [
        k for k, v in arguments.items() if SMALL[name].parameters[k].enum and v not in SMALL[name].parameters[k].enum
    ]
    return None if missing or outside else (name, arguments)


def slow_xml(text: str) -> tuple[str, dict[str, str]] | None:
    block = slow_block(text, "<function=", "</function>")
    if block is None or ">" not in block[0]:
        return None
    name, body = block[0].split(">", 1)
    arguments, start = {}, 0
    while (parameter := slow_block(body, "<parameter=", "</parameter>", start)) is not None:
        if ">" not in parameter[0]:
            return None
        key, value = parameter[0].split(">", 1)
        if key in arguments:
            return None
        if value[:1] == "\n":
            value = value[1:]
        if value[-1:] == "\n":
            value = value[:-1]
        arguments[key], start = value, parameter[1]
    return None if position(body, "<parameter=", start) is not None else slow_check(name.strip(), arguments)


def slow_json(text: str) -> tuple[str, dict[str, str]] | None:
    block = slow_block(text, "<tool_call>", "</tool_call>")
    try:
        read = json.loads(block[0] if block else "")
    except ValueError:
        return None
    if not (
        isinstance(read, dict) and isinstance(read.get("name"), str) and isinstance(read.get("arguments", {}), dict)
    ):
        return None
    return slow_check(
        read["name"], {k: v if isinstance(v, str) else json.dumps(v) for k, v in read.get("arguments", {}).items()}
    )


XML_PIECES = ["<function=", "<parameter=", "</parameter>", "</function>", *">fghabcxy=</ \n"]
PARTS = st.sampled_from(["a", "b", "c", "x", "\n", "f", ">", "<", "</function>", "  "])
PARAMETERS = st.lists(st.tuples(st.sampled_from("abcd"), st.lists(PARTS, max_size=4).map("".join)), max_size=3)
XML_CALLS = st.builds(
    lambda name, rows: (
        f"<function={name}>" + "".join(f"<parameter={k}>{v}</parameter>" for k, v in rows) + "</function>"
    ),
    st.sampled_from(["f", "g", " f\n", "h"]),
    PARAMETERS,
)
XML_TEXTS = st.lists(st.sampled_from(XML_PIECES) | XML_CALLS, max_size=8).map("".join)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["x", "y", "", "</tool_call>", "\n"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=4,
)
JSON_CALLS = st.builds(
    native, st.sampled_from(["f", "g", "h", 1]), st.dictionaries(st.sampled_from("abcd"), JSON_VALUES) | JSON_VALUES
)
JSON_TEXTS = st.lists(
    st.sampled_from(["<tool_call>", "</tool_call>", "{", "}", "[]", "x"]) | JSON_CALLS, max_size=5
).map("".join)


def fast(parsed: ToolCall | FormatError) -> tuple[str, dict[str, str]] | None:
    return (parsed.name, dict(parsed.arguments)) if isinstance(parsed, ToolCall) else None


@settings(max_examples=250, deadline=None)
@given(XML_TEXTS)
@example(xml("f", a="\n x\n", b="x"))
def test_xml_equals_a_slow_reference(text: str) -> None:
    assert fast(parse_xml(text, SMALL)) == slow_xml(text)


@settings(max_examples=200, deadline=None)
@given(JSON_TEXTS)
@example(native("f", {"a": "1", "b": "x"}))
def test_json_equals_a_slow_reference(text: str) -> None:
    assert fast(parse_json(text, SMALL)) == slow_json(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_value_without_a_closing_tag_survives_a_round_trip(before: str, value: str) -> None:
    if "</" in before + value or "<function=" in before:
        return
    assert call(parse_xml(before + xml("g", c=f"\n{value}\n"), SMALL)) == ("g", {"c": value})


# --- time

ADVERSARIES = {
    "openings": lambda n: "<function=" * (n // 10),
    "parameter openings": lambda n: "<function=g>" + "<parameter=" * (n // 11) + "</function>",
    "parameters": lambda n: (
        "<function=g>" + "".join(f"<parameter=k{i}></parameter>" for i in range(n // 30)) + "</function>"
    ),
    "closings": lambda n: "<function=g>" + "</parameter>" * (n // 12) + "</function>",
    "almost closings": lambda n: "<function=g><parameter=c>" + "</parameter" * (n // 11),
    "newlines": lambda n: xml("g", c="\n" * n),
    "tool calls": lambda n: "<tool_call>" * (n // 11),
    "brackets": lambda n: "<tool_call>" + "[" * n + "</tool_call>",
    "quotes": lambda n: '<tool_call>{"name": "g", "arguments": {"c": "' + '\\"' * (n // 2) + '"}}</tool_call>',
    "keys": lambda n: native("g", {f"k{i}": "" for i in range(n // 14)}),
}


def cpu_seconds(parse: Parser, text: str) -> float:
    times = []
    for _ in range(3):
        started = time.process_time()
        parse(text, SMALL)
        times.append(time.process_time() - started)
    return max(1e-3, min(times))  # below a millisecond, constant costs and the clock decide


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_time_grows_no_faster_than_the_text(adversary: str) -> None:
    small, large = (ADVERSARIES[adversary](size) for size in (1 << 18, 1 << 20))  # 1 MB
    for parse in PARSERS.values():
        ratio = cpu_seconds(parse, large) / cpu_seconds(parse, small)
        assert ratio < 10, "four times the text takes about four times as long; sixteen if time were quadratic"
