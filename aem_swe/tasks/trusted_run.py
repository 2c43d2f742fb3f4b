"""Run tests under the trusted parent and decide whether what they printed can be believed.

It is believed if the tests' process handed back its nonce with the exit code that it then ended with, printed exactly
one summary, and if the lines of that summary agree with pytest's own counts and with the exit code. Anything else is
the reason `forged`. What this cannot tell is said in docs/grading.md.
"""

import base64
import json
import re
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # replies are JSON

from aem_swe.errors import SandboxError
from aem_swe.sandboxes.base import Sandbox
from aem_swe.tasks import patch_policy, pytest_child, pytest_parent
from aem_swe.tasks.patch_policy import Prepared
from aem_swe.tasks.status_map import HEADER
from aem_swe.types import Graded, Task

PARENT_AT = "/opt/aem/grading/pytest_parent.py"
MAX_OUTPUT = 16 << 20
"""Bytes of a test run's output. All options keep it short, so more of it is no test result."""
KEPT_VARIABLES = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM", "TMPDIR", "HOSTNAME",
    "VIRTUAL_ENV", "CONDA_*", "NVM_DIR", "DEBIAN_FRONTEND", "DISPLAY", "QT_*", "XDG_*", "SSL_CERT_*",
)  # fmt: skip
"""What tests see of the sandbox's environment, beside what the task and the run set."""
FLAGS = ("-I", "-S", "-B")
_QUIET = "ignore::UserWarning", "ignore::SyntaxWarning", "ignore"
_SUMMARY = re.compile(rf"^=* ?{HEADER} ?=*\s*$", re.MULTILINE)
_STATUS = re.compile(r"^(PASSED|FAILED|ERROR)(?=[ \t])", re.MULTILINE)
_COUNTS = re.compile(r"^=* ?((?:\d+ [a-z]+(?:, )?)+|no tests ran) in [\d.]+s.*$", re.MULTILINE)
_COUNT = re.compile(r"(\d+) (passed|failed|error)")
_SHOWN = 3000


@dataclass(frozen=True, slots=True)
class FixedCommand:
    """How tests are run: pytest with `arguments`, or a `script` of the grader's that prints such a summary."""

    python: str
    """The image's interpreter, relative to the workdir or absolute."""
    arguments: tuple[str, ...] = ()
    script: str = ""
    wrapper: tuple[str, ...] = ()
    """Command that runs the interpreter, for tests that need a display."""
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary that can be believed."""

    text: str
    """What pytest printed from the head of its summary on."""
    exit_code: int
    shown: str
    """The end of all output, for people."""


def run_tests(task: Task, sandbox: Sandbox, run: FixedCommand, prepared: Prepared, timeout: float) -> Summary | Graded:
    """Return the tests' summary, or a reward of 0 with its reason. Raises SandboxError where nothing can be started."""
    marker = secrets.token_hex(16)
    request = {
        "marker": marker,
        "argv": [*run.wrapper, run.python, *FLAGS, *(word for rule in _QUIET for word in ("-W", rule))],
        "source": Path(pytest_child.__file__).read_text("utf-8"),
        "settings": {
            "names": prepared.names,
            "configurations": prepared.configurations,
            "cache": f"/tmp/.aem-{secrets.token_hex(8)}",
            "arguments": run.arguments,
            "script": run.script,
        },
        "environment": {"PYTHONWARNINGS": ",".join(_QUIET[:2]), **dict(task.env), **dict(run.environment)},
        "keep": KEPT_VARIABLES,
        "workdir": task.workdir,
        "max_output": MAX_OUTPUT,
    }
    result = sandbox.run(
        ["python3", PARENT_AT], cwd="/", stdin=json.dumps(request).encode(), timeout=timeout, max_output=2 * MAX_OUTPUT
    )
    if result.timed_out:
        return Graded(0.0, "tests_timeout", output=f"the tests were still running after {timeout:g} s")
    if result.out_of_memory:
        return Graded(0.0, "tests_failed", output="the tests reached the memory limit of their sandbox")
    head, _, line = result.stdout.partition(b" ")
    if head != marker.encode() or result.exit_code != 0:
        said = result.stderr[-300:].decode("utf-8", "replace")
        return Graded(0.0, "forged", output=f"the trusted parent of the tests was ended or gave no answer: {said}")
    reply = json.loads(line)
    if reply["started"] is not None:
        raise SandboxError(f"{task.id}: the image cannot start its tests: {reply['started']}")
    return believe(reply, has_counts=not run.script)


def believe(reply: Mapping[str, Any], *, has_counts: bool) -> Summary | Graded:
    """Check the parent's reply. has_counts: pytest's own counts come with the nonce; else the last line has them."""
    output = _text(reply["stdout"])
    shown = f"{output[-_SHOWN:]}\n{_text(reply['stderr'])[-_SHOWN:]}".strip()
    told = _told(reply["told"])
    if told is None:
        return _forged(f"the tests' process ended with {reply['exit_code']} before pytest had returned", shown)
    if reply["truncated"]:
        return _forged(f"the tests printed more than {MAX_OUTPUT} bytes", shown)
    code = told["code"]
    if code & 0xFF != reply["exit_code"]:
        return _forged(f"pytest returned {code}, and its process ended with {reply['exit_code']}", shown)
    if code not in (0, 1, 2):
        return Graded(0.0, "tests_failed", output=f"the tests could not be run (pytest's exit code {code})\n{shown}")
    heads = list(_SUMMARY.finditer(output))
    if code == 2 and HEADER not in output:
        return Graded(0.0, "tests_failed", output=f"the tests were interrupted\n{shown}")
    if len(heads) != 1 or output.count(HEADER) != 1:
        return _forged(f"{max(len(heads), output.count(HEADER))} summaries instead of one", shown)
    text = output[heads[0].start() :]
    lines = dict.fromkeys(("PASSED", "FAILED", "ERROR"), 0)
    for status in _STATUS.findall(text):
        lines[status] += 1
    counted = told["counts"] if has_counts else _counted(text)
    if counted is None or any(counted[name.lower()] != number for name, number in lines.items()):
        return _forged(f"the summary lists {lines}, and the tests counted {counted}", shown)
    if (code == 0) != (lines["FAILED"] + lines["ERROR"] == 0):
        return _forged(f"the summary lists {lines}, and the exit code is {code}", shown)
    return Summary(text, code, shown)


def programs() -> dict[str, str]:
    """{path in a sandbox: source} of what grading runs in the sandbox's own interpreter."""
    return {**patch_policy.programs(), PARENT_AT: Path(pytest_parent.__file__).read_text("utf-8")}


def _told(said: str | None) -> dict[str, Any] | None:
    """What came back with the nonce, or None if that cannot have come from us."""
    if said is None:
        return None
    try:
        told = json.loads(said)
    except (ValueError, RecursionError):
        return None
    match told:
        case {"code": int(), "counts": None}:
            return dict(told)
        case {"code": int(), "counts": {"passed": int(), "failed": int(), "error": int()}}:
            return dict(told)
    return None


def _counted(text: str) -> dict[str, int] | None:
    """The counts of the last line of a summary; None unless there is exactly one such line."""
    found = _COUNTS.findall(text)
    if len(found) != 1:
        return None
    counted = dict.fromkeys(("passed", "failed", "error"), 0)
    return counted | {name: int(number) for number, name in _COUNT.findall(found[0])}


def _forged(why: str, shown: str) -> Graded:
    return Graded(0.0, "forged", output=f"{why}\n{shown}")


def _text(packed: str) -> str:
    return zlib.decompress(base64.b64decode(packed)).decode("utf-8", "replace")
