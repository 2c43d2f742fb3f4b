"""What R2E-Gym reads from a test log, and when it calls two readings equal: the reward `r2e`, kept to the letter.

Only what follows the first "short test summary info" counts. A line is about a test if it holds PASSED, FAILED or ERROR
anywhere, asked in this order; the test is named by what follows the first "::" with further ones as dots, cut at
" - " unless it passed. A line without "::" names the empty test. These oddities are in the expected results of the
data set as well, so both sides have to be read like this. Where the public revisions of the original differ (the empty
name; a test that is not expected), the reading is the one that DeepSWE's rows were validated with.
"""

import re
from collections.abc import Mapping

HEADER = "short test summary info"
_COLOUR_AND_RETURN = re.compile(r"\x1b\[[0-9;]*m|\r")
_COLOUR = re.compile(r"\x1b\[\d+m")


def read_status_map(log: str) -> dict[str, str]:
    """{test: PASSED, FAILED or ERROR} of a log; the last line about a test wins."""
    _, header, summary = _COLOUR_AND_RETURN.sub("", log).partition(HEADER)
    if not header:
        return {}
    summary = summary.partition(HEADER)[0]
    statuses = {}
    for line in summary.strip().split("\n"):
        name = ".".join(line.split("::")[1:])
        if "PASSED" in line:
            statuses[name] = "PASSED"
        elif "FAILED" in line:
            statuses[name.split(" - ")[0]] = "FAILED"
        elif "ERROR" in line:
            statuses[name.split(" - ")[0]] = "ERROR"
    return statuses


def listed_statuses(summary: str) -> dict[str, str]:
    """The same of a summary's own lines alone: those that begin with a status, without the reason that follows " - ".

    A reason is text of the code under test: "FAILED a::b - ValueError: PASSED" would otherwise read as passed, and so
    would the reason of a skipped test.
    """
    lines = [HEADER]
    for line in summary.split("\n"):
        status, _, rest = line.partition(" ")
        if status in ("PASSED", "FAILED", "ERROR"):
            name = rest.partition(" - ")[0]
            lines.append(f"{status} {name if status == 'PASSED' else name.replace('PASSED', 'passed')}")
    return read_status_map("\n".join(lines))


def normalised(statuses: Mapping[str, str]) -> dict[str, str]:
    """Names without colour and without what follows " - "; of names that become equal the last in order wins."""
    plain = {_COLOUR.sub("", name): status for name, status in statuses.items()}
    return {name.split(" - ")[0]: plain[name] for name in sorted(plain)}


def difference(found: Mapping[str, str], expected: Mapping[str, str]) -> str | None:
    """None if the original would give the reward 1, else the first difference in words. Both sides are normalised."""
    found, expected = normalised(found), normalised(expected)
    if len(found) != len(expected):
        missing = [name for name in expected if name not in found]
        first = f", {missing[0]!r} is missing" if missing else ""
        return f"{len(found)} tests in the summary instead of {len(expected)}{first}"
    wrong = [name for name in found if name and found[name] != expected.get(name)]
    if not wrong:
        return None
    name = wrong[0]
    wanted = expected.get(name, "not in the summary")
    return f"{len(wrong)} of {len(expected)} tests differ, first {name!r}: {found[name]} instead of {wanted}"
