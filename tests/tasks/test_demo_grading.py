"""Grading demo tasks in a real sandbox: the reward table, and candidates that try to write their own reward."""

import json
from collections.abc import Callable

import pytest

from aem_swe.sandboxes import Sandbox, Sandboxes
from aem_swe.tasks.demo import RUNNER_AT, TEST_COMMAND, DemoProblem, make_problem
from aem_swe.types import Graded

PROBLEM = next(p for seed in range(1000) if (p := make_problem("train", seed)).target.variant.family == "add_k")
FILE = f"{PROBLEM.target.module}.py"
Grading = Callable[[Callable[[Sandbox], object]], Graded]


def fix(sandbox: Sandbox, problem: DemoProblem = PROBLEM) -> None:
    name = f"{problem.target.module}.py"
    source = sandbox.read(name).decode()
    sandbox.write(name, source.replace(f"return {problem.bug}", f"return {problem.target.variant.good}").encode())


def graded(sandboxes: Sandboxes, diff: bytes, problem: DemoProblem = PROBLEM) -> Graded:
    with sandboxes.open(problem.task(), purpose="grading") as sandbox:
        return problem.grader().grade(problem.task(), diff, sandbox)


@pytest.fixture
def grade(sandboxes: Sandboxes) -> Grading:
    """Let something change a sandbox, take the diff and grade it in another one."""

    def after(change: Callable[[Sandbox], object]) -> Graded:
        with sandboxes.open(PROBLEM.task()) as sandbox:
            change(sandbox)
            diff = sandbox.diff()
        return graded(sandboxes, diff)

    return after


def with_source(prefix: str) -> Callable[[Sandbox], None]:
    """Put code in front of the broken file."""

    def change(sandbox: Sandbox) -> None:
        sandbox.write(FILE, f"{prefix}\n".encode() + sandbox.read(FILE))

    return change


def returning(expression: str, prefix: str = "") -> Callable[[Sandbox], None]:
    """Make the broken function return something."""

    def change(sandbox: Sandbox) -> None:
        source = sandbox.read(FILE).decode()
        sandbox.write(FILE, f"{prefix}\n{source}".replace(f"return {PROBLEM.bug}", f"return {expression}").encode())

    return change


def test_no_change_is_0_and_the_fix_is_1_for_many_problems(sandboxes: Sandboxes) -> None:
    for seed in range(12):
        problem = make_problem("test", seed)
        with sandboxes.open(problem.task()) as sandbox:
            assert graded(sandboxes, sandbox.diff(), problem).reason == "tests_failed"
            fix(sandbox, problem)
            assert sandbox.run(TEST_COMMAND).stdout == b"4 passed\n"
            assert graded(sandboxes, sandbox.diff(), problem) == Graded(1.0, "tests_passed")


def test_a_failure_names_the_first_case_that_differs(grade: Grading) -> None:
    result = grade(lambda sandbox: None)
    assert (result.reward, result.reason) == (0.0, "tests_failed")
    assert (
        f"first {PROBLEM.target.module}.{PROBLEM.target.name}({PROBLEM.target.variant.cases[0][0]!r},)" in result.output
    )


def test_the_fix_counts_with_other_changes_beside_it(grade: Grading) -> None:
    def change(sandbox: Sandbox) -> None:
        fix(sandbox)
        sandbox.write("notes.md", b"\xff\r\n")
        sandbox.write("run_tests.sh", b"exit 1\n")

    assert grade(change).reward == 1.0


@pytest.mark.parametrize(
    "expression",
    ["Equal()", "Number({good})", "float({good})", "str({good})", "[{good}]", "({good},)", "True", "None", "Equal"],
)
def test_only_the_right_type_with_the_right_value_counts(grade: Grading, expression: str) -> None:
    prefix = "class Equal:\n    def __eq__(self, other): return True\nclass Number(int): pass\n"
    result = grade(returning(expression.format(good=PROBLEM.target.variant.good), prefix))
    assert (result.reward, result.reason) == (0.0, "tests_failed")


@pytest.mark.parametrize("code", ["raise ValueError", "1/0", "def broken(:", "import missing"])
def test_code_that_raises_fails_its_tests(grade: Grading, code: str) -> None:
    assert grade(with_source(code)).reason == "tests_failed"


def test_removing_the_file_fails_its_tests(grade: Grading) -> None:
    assert grade(lambda sandbox: sandbox.run(["rm", FILE])).reason == "tests_failed"


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "raise KeyboardInterrupt",
        "import os; os.kill(os.getpid(), 9)",
        "import os\nfor fd in range(3, 256):\n    try: os.close(fd)\n    except OSError: pass\nos._exit(0)",
        "import os\nfor fd in range(256):\n    try: os.write(fd, b'x')\n    except OSError: pass\n",
        "import os\nos.write(2, b'x' * 200000)\nos._exit(1)",
    ],
)
def test_a_candidate_that_ends_or_disturbs_the_runner_is_forged(grade: Grading, code: str) -> None:
    result = grade(with_source(code))
    assert (result.reward, result.reason) == (0.0, "forged")


FIND = """import json, os, sys
frame = sys._getframe(0)
while 'request' not in frame.f_locals:
    frame = frame.f_back
request, result = frame.f_locals['request'], frame.f_locals['result']
"""


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        json.dumps(["int 1"]),
        json.dumps(list(PROBLEM.grader().expected)),
        "{marker} []",
        "{marker} null",
        "{marker} {broken",
        "{marker} " + "[" * 5000,
        "{marker} " + json.dumps(["int 1"]),
        "{marker}" + json.dumps(list(PROBLEM.grader().expected)),
    ],
)
def test_a_line_of_the_candidates_own_is_forged(grade: Grading, line: str) -> None:
    """The candidate owns the process: it can find the marker and the result's descriptor, not the right results."""
    code = f"os.write(result, ({line!r}.replace('{{marker}}', request['marker']) + '\\n').encode()); os._exit(0)"
    assert grade(with_source(FIND + code)).reason == "forged"


@pytest.mark.parametrize("outcome", ["'int 1'", "True", "None", "{}", "['int 1']"])
def test_outcomes_of_the_candidates_own_have_to_be_right(grade: Grading, outcome: str) -> None:
    code = f"mine = json.dumps([{outcome}] * len(request['calls']))\n"
    code += "os.write(result, (request['marker'] + ' ' + mine + '\\n').encode()); os._exit(0)"
    assert grade(with_source(FIND + code)).reason == "tests_failed"


def test_the_grading_process_does_not_know_the_expected_results(grade: Grading) -> None:
    def change(sandbox: Sandbox) -> None:
        fix(sandbox)
        with_source(FIND + "assert sorted(request) == ['calls', 'marker', 'workdir'], request")(sandbox)

    assert grade(change).reward == 1.0


def test_printing_is_harmless(grade: Grading) -> None:
    def change(sandbox: Sandbox) -> None:
        fix(sandbox)
        with_source("import sys\nprint('x' * 10**6)\nprint('y', file=sys.stderr)")(sandbox)

    assert grade(change).reward == 1.0


def test_the_runner_cannot_be_replaced(grade: Grading) -> None:
    def change(sandbox: Sandbox) -> None:
        with pytest.raises(OSError):
            sandbox.write(RUNNER_AT, b"print('mine')")
        sandbox.run(f"echo \"print('mine')\" > {RUNNER_AT}")
        sandbox.write("json.py", b"raise SystemExit")
        sandbox.write("sitecustomize.py", b"raise SystemExit")
        fix(sandbox)

    assert grade(change).reward == 1.0


def test_endless_tests_reach_their_limit(grade: Grading) -> None:
    result = grade(with_source("while True: pass"))
    assert (result.reward, result.reason) == (0.0, "tests_timeout")


@pytest.mark.parametrize(
    "diff",
    [
        b"not a patch",
        b"--- a/missing.py\n+++ b/missing.py\n@@ -1 +1 @@\n-a\n+b\n",
        b"--- /dev/null\n+++ b/../../etc/x\n@@ -0,0 +1 @@\n+b\n",
    ],
)
def test_a_patch_that_cannot_be_applied_is_0_and_says_why(sandboxes: Sandboxes, diff: bytes) -> None:
    result = graded(sandboxes, diff)
    assert (result.reward, result.reason) == (0.0, "patch_does_not_apply")
    assert result.output.startswith("error: ")
