"""The original's status map, against cases worked out by hand and a second reading of its rules."""

from collections.abc import Mapping

from hypothesis import example, given
from hypothesis import strategies as st

from aem_swe.tasks.status_map import HEADER, difference, listed_statuses, normalised, read_status_map

HEAD = "=========================== short test summary info ============================"


def summary(*lines: str) -> str:
    return "\n".join(["collected 3 items", "", HEAD, *lines, "=== 1 failed, 2 passed in 0.01s ==="])


def test_a_plain_summary() -> None:
    log = summary(
        "PASSED r2e_tests/test_1.py::test_a",
        "PASSED r2e_tests/test_1.py::TestB::test_c[1-2]",
        "FAILED r2e_tests/test_1.py::test_d - AssertionError: assert 1 == 2",
        "ERROR r2e_tests/test_2.py::test_e - fixture 'x' not found",
    )
    assert read_status_map(log) == {
        "test_a": "PASSED",
        "TestB.test_c[1-2]": "PASSED",
        "test_d": "FAILED",
        "test_e": "ERROR",
    }


def test_nothing_before_the_first_summary_and_nothing_after_a_second_one_counts() -> None:
    log = f"PASSED x.py::early\n{HEAD}\nPASSED x.py::a\n{HEAD}\nPASSED x.py::late\n"
    assert read_status_map(log) == {"a": "PASSED"}
    assert read_status_map("PASSED x.py::a") == {}
    assert read_status_map("") == {}


def test_the_words_count_anywhere_in_a_line_and_in_this_order() -> None:
    log = summary(
        "FAILED x.py::a - AssertionError: 'PASSED' != 'OK'",  # a failure that says PASSED passes, with its message
        "ERROR x.py::b - FAILED to load",
        "SKIPPED [1] x.py:3: ERROR in set-up",  # no "::": the empty name
        "XFAIL x.py::c - reason",
        "XPASS x.py::d",
    )
    assert read_status_map(log) == {
        "a - AssertionError: 'PASSED' != 'OK'": "PASSED",
        "b": "FAILED",
        "": "ERROR",
    }


def test_the_last_line_about_a_test_wins_and_files_do_not_distinguish_tests() -> None:
    log = summary("PASSED one.py::test_a", "FAILED two.py::test_a - no", "ERROR three.py - ImportError: x")
    assert read_status_map(log) == {"test_a": "FAILED", "": "ERROR"}


def test_a_message_with_colons_becomes_part_of_the_name_and_is_cut_off() -> None:
    log = summary("FAILED x.py::a - Error: std::vector::at", "PASSED x.py::T::b[a - b]")
    assert read_status_map(log) == {"a": "FAILED", "T.b[a - b]": "PASSED"}
    assert difference(read_status_map(log), {"a": "FAILED", "T.b[a": "PASSED"}) is None


def test_colour_and_carriage_returns_vanish() -> None:
    log = f"\x1b[36m{HEAD}\x1b[0m\r\n\x1b[32mPASSED\x1b[0m x.py::\x1b[1mtest_a\x1b[0m\r\n"
    assert read_status_map(log) == {"test_a": "PASSED"}
    assert difference({"test_a": "PASSED"}, {"\x1b[1mtest_a\x1b[0m": "PASSED"}) is None


def test_equal_needs_the_same_number_and_every_named_test() -> None:
    assert difference({"a": "PASSED", "b": "FAILED"}, {"b": "FAILED", "a": "PASSED"}) is None
    assert difference({"a": "PASSED"}, {"a": "PASSED", "b": "PASSED"}) == (
        "1 tests in the summary instead of 2, 'b' is missing"
    )
    assert difference({"a": "PASSED", "x": "PASSED"}, {"a": "PASSED"}) == "2 tests in the summary instead of 1"
    assert difference({"a": "PASSED"}, {"a": "FAILED"}) == "1 of 1 tests differ, first 'a': PASSED instead of FAILED"
    assert "not in the summary" in str(difference({"a": "PASSED"}, {"c": "PASSED"}))


def test_the_empty_name_counts_as_one_test_whatever_its_status() -> None:
    assert difference({"": "ERROR", "a": "PASSED"}, {"": "FAILED", "a": "PASSED"}) is None
    assert difference({"": "ERROR", "a": "PASSED"}, {"z": "PASSED", "a": "PASSED"}) is None
    assert difference({"": "ERROR", "a": "PASSED"}, {"a": "PASSED"}) is not None


def test_names_that_become_equal_are_one_test_with_the_status_of_the_last_in_order() -> None:
    found = {"a - 1": "PASSED", "a - 2": "FAILED"}
    assert difference(found, {"a": "FAILED"}) is None
    assert difference(found, {"a": "PASSED"}) is not None


def slow_map(log: str) -> dict[str, str]:
    """The rules again, character by character where that is possible."""
    import re

    log = re.sub("\r", "", re.sub("\x1b\\[[0-9;]*m", "", log))
    pieces = log.split("short test summary info")
    found: dict[str, str] = {}
    for line in pieces[1].strip().split("\n") if len(pieces) > 1 else []:
        for word in ("PASSED", "FAILED", "ERROR"):
            if word in line:
                name = ".".join(line.split("::")[1:])
                found[name if word == "PASSED" else name.split(" - ")[0]] = word
                break
    return found


def slow_equal(found: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    import re

    sides = []
    for side in (found, expected):
        plain = {re.sub("\x1b\\[\\d+m", "", key): value for key, value in side.items()}
        cut = {}
        for key in sorted(plain):
            cut[key.split(" - ")[0]] = plain[key]
        sides.append(cut)
    one, two = sides
    return len(one) == len(two) and all(key == "" or (key in two and two[key] == one[key]) for key in one)


PIECES = st.sampled_from(
    [
        "PASSED",
        "FAILED",
        "ERROR",
        " ",
        " - ",
        "::",
        "a",
        "b[1]",
        "x.py",
        HEAD,
        "\n",
        "\r",
        "\x1b[1m",
        "\x1b[0;31m",
        "=== ",
    ]
)
LOGS = st.lists(PIECES, max_size=40).map("".join)


@given(LOGS)
@example(HEAD)
def test_every_log_is_read_as_the_rules_say(log: str) -> None:
    assert read_status_map(log) == slow_map(log)


NAMES = st.lists(st.sampled_from(["a", "b", " - ", "\x1b[1m", "\x1b[0;1m", ""]), max_size=3).map("".join)
MAPS = st.dictionaries(NAMES, st.sampled_from(["PASSED", "FAILED", "ERROR"]), max_size=4)


@given(MAPS, MAPS)
def test_maps_are_compared_as_the_rules_say(found: dict[str, str], expected: dict[str, str]) -> None:
    assert (difference(found, expected) is None) == slow_equal(found, expected)


@given(MAPS)
def test_a_map_equals_itself(found: dict[str, str]) -> None:
    assert difference(found, found) is None


def test_listed_statuses_do_not_believe_reasons() -> None:
    summary = "\n".join(
        [
            f"==== {HEADER} ====",
            "PASSED r2e_tests/test_1.py::test_a",
            "PASSED r2e_tests/test_1.py::test_b[x - y]",
            "FAILED r2e_tests/test_1.py::test_c - ValueError: PASSED",
            "ERROR r2e_tests/test_1.py::test_d - PASSED",
            "XFAIL r2e_tests/test_1.py::test_e - PASSED ::test_e",
            "SKIPPED [1] r2e_tests/test_1.py:5: PASSED ::test_f",
            "==== 2 passed, 1 failed ====",
        ]
    )
    found = listed_statuses(summary)
    assert found == {"test_a": "PASSED", "test_b[x": "PASSED", "test_c": "FAILED", "test_d": "ERROR"}
    honest = "\n".join(
        line for line in summary.split("\n") if not line.startswith(("XFAIL", "SKIPPED", "FAILED", "ERROR"))
    )
    assert normalised(read_status_map(honest)) == {"test_a": "PASSED", "test_b[x": "PASSED"}
