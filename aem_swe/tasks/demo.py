"""Demo tasks: a project of two files with two one-line functions each, one of them wrong, and an issue about it.

A task is a pure function of (split, seed). Held-out tasks ("test") never share (specification, right expression, bug)
with training tasks: a hash of the three decides the split. The agent gets the files, an issue, and `run_tests.sh` with
the first case of every function; the grader has all cases.

Grading does not trust the candidate: its functions run in a fresh sandbox, their results are encoded there by
`demo_runner.py` and compared with the expected encodings HERE, by type and value. A candidate that owns its process can
print any result it likes, but has to know the right one.
"""

import hashlib
import json
import random
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aem_swe.errors import TaskError
from aem_swe.sandboxes.base import Sandbox
from aem_swe.tasks.demo_families import Value, Variant, draw_variant
from aem_swe.tasks.demo_runner import encode
from aem_swe.tasks.grading import apply_patch
from aem_swe.types import Graded, Part, Task

Split = Literal["train", "test"]
RUNNER_AT = "/opt/aem/grading/demo_runner.py"
TEST_COMMAND = "sh run_tests.sh"
_NAMES = [
    "grow",
    "shift",
    "twist",
    "pick",
    "part",
    "join",
    "mix",
    "fold",
    "trim",
    "rank",
    "gain",
    "step",
    "span",
    "edge",
    "core",
    "tune",
    "cast",
    "form",
    "heat",
    "load",
]
_FILES = ["basics", "extra", "texts", "data", "maths", "shape", "parts", "lists", "pieces", "things"]
_HELD_OUT_SHARE = 5
"""One signature in five is held out."""


@dataclass(frozen=True, slots=True)
class DemoFunction:
    """One function of the project as it is meant to be."""

    module: str
    name: str
    variant: Variant

    def source(self, expression: str) -> str:
        return f"def {self.name}({', '.join(self.variant.arguments)}):\n    return {expression}\n"


@dataclass(frozen=True, slots=True)
class DemoProblem:
    """Everything about one task, the fix included. Only its `task` reaches an agent."""

    id: str
    functions: tuple[DemoFunction, ...]
    broken: int
    """Index of the function that holds the bug."""
    bug: str

    @property
    def target(self) -> DemoFunction:
        return self.functions[self.broken]

    def files(self) -> dict[str, str]:
        """Return {file name: source} with the bug in place."""
        sources: dict[str, str] = {}
        for index, function in enumerate(self.functions):
            expression = self.bug if index == self.broken else function.variant.good
            name = f"{function.module}.py"
            sources[name] = sources.get(name, "") + function.source(expression)
        return sources

    @property
    def issue(self) -> str:
        return f"{self.target.name} should {self.target.variant.spec}"

    def task(self) -> Task:
        files = {**self.files(), "run_tests.sh": _visible_tests(self)}
        return Task(
            self.id, (Part("text", self.issue),), files=tuple((name, text.encode()) for name, text in files.items())
        )

    def grader(self) -> "DemoGrader":
        calls = tuple((f.module, f.name, case) for f in self.functions for case in f.variant.cases)
        expected = tuple(
            encode(evaluate(f.variant.good, f.variant.arguments, case))
            for f in self.functions
            for case in f.variant.cases
        )
        return DemoGrader(calls, expected)


def evaluate(expression: str, names: tuple[str, ...], values: tuple[Value, ...]) -> object:
    """Evaluate an expression of ours (never a candidate's) on one case; an exception is returned as its type's name."""
    try:
        return eval(expression, {}, dict(zip(names, values, strict=True)))
    except TypeError as error:
        return type(error).__name__


def _is_detected(variant: Variant, bug: str) -> bool:
    good = [encode(evaluate(variant.good, variant.arguments, case)) for case in variant.cases]
    return good != [encode(evaluate(bug, variant.arguments, case)) for case in variant.cases]


def _held_out(variant: Variant, bug: str) -> bool:
    digest = hashlib.sha256(f"{variant.spec}|{variant.good}|{bug}".encode()).digest()
    return digest[0] % _HELD_OUT_SHARE == 0


def make_problem(split: Split, seed: int) -> DemoProblem:
    """Draw problems from the stream (split, seed) until one fits the split, is detected by its cases and is
    unambiguous."""
    if split not in ("train", "test"):
        raise TaskError(f"demo split {split!r} is unknown; choose one of ['test', 'train']")
    stream = random.Random(f"{split}/{seed}")
    while True:
        names, modules = stream.sample(_NAMES, 4), stream.sample(_FILES, 2)
        functions = tuple(DemoFunction(modules[i // 2], names[i], draw_variant(stream)) for i in range(4))
        broken = stream.randrange(4)
        variant = functions[broken].variant
        bug = stream.choice(variant.bugs)
        ambiguous = any(bug in f.variant.good for i, f in enumerate(functions) if i != broken)
        if _held_out(variant, bug) == (split == "test") and _is_detected(variant, bug) and not ambiguous:
            return DemoProblem(f"demo-{split}-{seed}", functions, broken, bug)


def _visible_tests(problem: DemoProblem) -> str:
    """A shell script that runs the first case of every function and prints "4 passed" or the first failure."""
    rows = []
    for f in problem.functions:
        case = f.variant.cases[0]
        expected = evaluate(f.variant.good, f.variant.arguments, case)
        rows.append(f"    ({f.module!r}, {f.name!r}, {case!r}, {expected!r}),")
    return _TESTS.replace("ROWS", "\n".join(rows))


_TESTS = """exec python3 -S - <<'END'
import importlib, sys
sys.dont_write_bytecode = True
sys.path.insert(0, ".")
failed = []
cases = [
ROWS
]
for module, name, arguments, expected in cases:
    try:
        assert getattr(importlib.import_module(module), name)(*arguments) == expected
    except Exception as error:
        failed.append(name + " " + type(error).__name__)
print("%d failed %s" % (len(failed), failed[0]) if failed else "%d passed" % len(cases))
sys.exit(bool(failed))
END
"""


@dataclass(frozen=True, slots=True)
class DemoGrader:
    """All cases of a problem: (module, function, arguments) and, apart from them, the expected encodings."""

    calls: tuple[tuple[str, str, tuple[Value, ...]], ...]
    expected: tuple[str, ...]

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        refused = apply_patch(task, diff, sandbox)
        if refused is not None:
            return refused
        marker = secrets.token_hex(16)
        request = json.dumps({"marker": marker, "workdir": task.workdir, "calls": self.calls}).encode()
        result = sandbox.run(["python3", RUNNER_AT], cwd="/", stdin=request)
        if result.timed_out:
            return Graded(0.0, "tests_timeout")
        lines = result.stdout.split(b"\n")
        if len(lines) != 2 or lines[1] or not lines[0].startswith(marker.encode() + b" "):
            return Graded(0.0, "forged", output="the result or its end marker is missing or not the only output")
        try:
            outcomes = json.loads(lines[0].partition(b" ")[2])
        except (ValueError, RecursionError):
            return Graded(0.0, "forged", output="the result is not JSON")
        if not isinstance(outcomes, list) or len(outcomes) != len(self.expected):
            return Graded(0.0, "forged", output="the result has another number of outcomes than calls")
        wrong = [i for i, (got, wanted) in enumerate(zip(outcomes, self.expected, strict=True)) if got != wanted]
        if not wrong:
            return Graded(1.0, "tests_passed")
        module, name, arguments = self.calls[wrong[0]]
        return Graded(
            0.0,
            "tests_failed",
            output=f"{len(wrong)} of {len(outcomes)} cases differ, first {module}.{name}{arguments!r}",
        )


def grading_programs() -> dict[str, str]:
    """Return {path inside the sandbox: source} of the trusted runner."""
    return {RUNNER_AT: Path(__file__).with_name("demo_runner.py").read_text()}
