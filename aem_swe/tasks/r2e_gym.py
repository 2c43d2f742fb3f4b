"""R2E-Gym's rows as tasks: an image, an issue, hidden tests and the results that they are expected to give.

    loaded = load("R2E-Gym-Subset.parquet", reward="hardened")
    loaded.problems, loaded.bad

Two rewards. `hardened` (hardened.py) is the default. `r2e` is the original's, to the letter: the tests run as the image
has them, with whatever the patch brings, and the log is believed. The policy is in docs/grading.md.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aem_swe.errors import ConfigError, TaskError
from aem_swe.resources import resource
from aem_swe.sandboxes.base import Sandbox
from aem_swe.tasks.grading import Grader, Problem
from aem_swe.tasks.hardened import TIMEOUT_S, HardenedGrader, fixed_command
from aem_swe.tasks.hidden_tests import FOLDER, HiddenTests, seal_key
from aem_swe.tasks.parsed_commit import gold_patch
from aem_swe.tasks.patch_policy import Patch, prepare
from aem_swe.tasks.rows import BadRow, Row, decoded, leave_out, read_rows, text
from aem_swe.tasks.status_map import difference, read_status_map
from aem_swe.types import Graded, Part, Task

Reward = Literal["hardened", "r2e"]
REWARDS = ("hardened", "r2e")
COLUMNS = (
    "repo_name",
    "docker_image",
    "commit_hash",
    "parsed_commit_content",
    "execution_result_content",
    "expected_output_json",
    "problem_statement",
)
"""What a row needs; the rest of it is not read."""
PATH = "/root/.venv/bin:/root/.local/bin:/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of every command, as in R2E-Gym's runtime."""
_ISSUE = re.compile(r"\[ISSUE\](.*)\[/ISSUE\]", re.DOTALL)
_STATUSES = {"PASSED", "FAILED", "ERROR"}
_MAX_LOG = 64 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """Problems, and the rows that are none."""

    problems: tuple[Problem, ...]
    bad: tuple[BadRow, ...]


def load(
    path: Path | str, *, reward: Reward = "hardened", without: Iterable[str] = (), timeout_s: float = TIMEOUT_S
) -> Loaded:
    """Read the rows of a file or folder; `without` names repositories to leave out. Raises ConfigError."""
    rows = leave_out(read_rows(path, columns=COLUMNS), without)
    return separated(problems(rows, reward=reward, timeout_s=timeout_s))


def separated(rows: Iterable[Problem | BadRow]) -> Loaded:
    """Sort rows into problems and bad ones; a second problem with the same id is a bad row."""
    good: dict[str, Problem] = {}
    bad = []
    for row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
        elif row.task.id in good:
            bad.append(BadRow(row.task.id, "another row before it has the same id"))
        else:
            good[row.task.id] = row
    return Loaded(tuple(good.values()), tuple(bad))


def problems(
    rows: Iterable[Row | BadRow], *, reward: Reward = "hardened", timeout_s: float = TIMEOUT_S
) -> Iterator[Problem | BadRow]:
    """Turn each row into a Problem, or into a BadRow that says why not."""
    if reward not in REWARDS:
        raise ConfigError(f"reward {reward!r} is unknown for R2E-Gym's tasks; choose one of {list(REWARDS)}")
    for number, row in enumerate(rows):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield make_problem(row, reward=reward, timeout_s=timeout_s)
        except TaskError as error:
            yield BadRow(_id(row) or f"row {number}", str(error))


def make_problem(row: Row, *, reward: Reward = "hardened", timeout_s: float = TIMEOUT_S) -> Problem:
    """One row as a problem. Raises TaskError with the reason where it is none."""
    repository, tests = text(row, "repo_name"), _tests(row)
    expected = _expected(row)
    task = Task(
        id=f"{repository}__{text(row, 'commit_hash')[:12]}",
        statement=(Part("text", _statement(row)),),
        image=text(row, "docker_image"),
        setup=setup_script(key=tests.key),
        env=(("PATH", PATH),),
    )
    grader: Grader
    if reward == "r2e":
        grader = OriginalGrader(tests, expected, timeout_s)
    else:
        names = tuple(path.removeprefix(f"{FOLDER}/") for path, _ in tests.files)
        grader = HardenedGrader(tests, expected, fixed_command(repository, names), timeout_s)
    return Problem(task, grader, gold_patch(decoded(row, "parsed_commit_content", dict)))


def setup_script(*, key: str = "") -> str:
    """The script that hides tests and history in an image; with a key, of an R2E-Gym image."""
    settings = f"AEM_R2E=1\nAEM_SEAL={key}\n" if key else ""
    return settings + resource("sandboxes", "r2e_setup.sh").read_text("utf-8")


def _id(row: Row) -> str:
    names = [row.get("repo_name"), row.get("commit_hash")]
    return "__".join(str(name)[: 12 if index else None] for index, name in enumerate(names) if name)


def _statement(row: Row) -> str:
    statement = text(row, "problem_statement")
    tagged = _ISSUE.search(statement)
    statement = (tagged[1] if tagged else statement).strip()
    if not statement:
        raise TaskError("column 'problem_statement' holds no text between its tags")
    return statement


def _tests(row: Row) -> HiddenTests:
    result = decoded(row, "execution_result_content", dict)
    names, codes = result.get("test_file_names"), result.get("test_file_codes")
    if not isinstance(names, list) or not isinstance(codes, list) or not names or not codes:
        raise TaskError("column 'execution_result_content' holds no hidden tests")
    files = {f"{FOLDER}/__init__.py": b""}
    for name, code in zip(names, codes, strict=False):  # as R2E-Gym wrote them
        if not isinstance(name, str) or not isinstance(code, str) or not _is_file_name(name):
            raise TaskError(f"column 'execution_result_content' names a test file {name!r}, which is no file name")
        files[f"{FOLDER}/{name}"] = code.encode("utf-8", "surrogatepass")
    return HiddenTests(tuple(files.items()), seal_key("\0".join(map(str, [*names, *codes]))))


def _is_file_name(name: str) -> bool:
    return (
        "/" not in name
        and "\0" not in name
        and name not in ("", ".", "..")
        and len(name.encode("utf-8", "replace")) < 256
    )


def _expected(row: Row) -> tuple[tuple[str, str], ...]:
    expected = decoded(row, "expected_output_json", dict)
    if not expected:
        raise TaskError("column 'expected_output_json' expects no test at all")
    wrong = {str(status) for status in expected.values()} - _STATUSES
    if wrong:
        raise TaskError(f"column 'expected_output_json' holds {sorted(wrong)[0]!r}; only {sorted(_STATUSES)} are known")
    return tuple(expected.items())


@dataclass(frozen=True, slots=True)
class OriginalGrader:
    """R2E-Gym's own grading: its run_tests.sh, its places, its reading of the log. A patch can forge the result."""

    tests: HiddenTests
    expected: tuple[tuple[str, str], ...]
    timeout_s: float = TIMEOUT_S
    home: str = "/root"
    """Where the original keeps tests and command, out of the agent's way."""

    def grade(self, task: Task, diff: bytes, sandbox: Sandbox) -> Graded:
        files = self.tests.collect(task, sandbox)
        command = files.pop("run_tests.sh", None)
        if command is None:
            raise TaskError(f"{task.id}: its image has no run_tests.sh, which the reward 'r2e' runs")
        tests_at, command_at = f"{self.home}/{FOLDER}", f"{self.home}/run_tests.sh"
        placed = {f"{self.home}/{path}": content for path, content in files.items()}
        prepared = prepare(
            task,
            sandbox,
            [Patch(diff)],
            files={**placed, command_at: command},
            clear=[FOLDER, tests_at],
        )
        if isinstance(prepared, Graded):
            return prepared
        sandbox.run(["ln", "-s", tests_at, FOLDER])
        together = ["bash", "-c", 'exec bash "$0" 2>&1', command_at]
        result = sandbox.run(together, timeout=self.timeout_s, max_output=_MAX_LOG)
        if result.timed_out:
            return Graded(0.0, "tests_timeout", output=f"the tests were still running after {self.timeout_s:g} s")
        log = result.stdout.decode("utf-8", "replace")
        differs = difference(read_status_map(log), dict(self.expected))
        if differs is None:
            return Graded(1.0, "tests_passed")
        return Graded(0.0, "tests_failed", output=f"{differs}\n{log[-3000:]}")
