"""SWE-bench's rows as training tasks: SWE-bench, Lite, Verified, and custom rows in their form, from local files.

    loaded = load("swe_bench_lite_dev.json", reward="hardened")

Two rewards. `hardened` (the default) runs a fixed pytest command under the trusted parent; a row whose tests are not
run by pytest is judged by its eval_script. `swebench` runs the eval_script of every row. Rows made before swebench 5
have none: those of repositories that are tested with plain `pytest -rA` work all the same, others are bad rows.
"""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from aem_swe.errors import ConfigError, TaskError
from aem_swe.tasks.grading import Grader, Problem
from aem_swe.tasks.r2e_gym import Loaded, separated, setup_script
from aem_swe.tasks.rows import BadRow, Row, decoded, leave_out, read_rows, text
from aem_swe.tasks.swebench_grading import HardenedSweBench, OfficialSweBench, Oracle, changed_paths, harness
from aem_swe.tasks.trusted_run import FixedCommand
from aem_swe.types import Part, Task

Reward = Literal["hardened", "swebench"]
REWARDS = ("hardened", "swebench")
COLUMNS = (
    "instance_id",
    "repo",
    "base_commit",
    "patch",
    "test_patch",
    "problem_statement",
    "version",
    "FAIL_TO_PASS",
    "PASS_TO_PASS",
    "image",
    "eval_script",
    "log_parser",
    "eval_type",
)
"""What a row may need; the rest of it is not read."""
TIMEOUT_S = 1800.0
"""As the official harness has it."""
ENVIRONMENT = "/opt/miniconda3/envs/testbed"
"""Where SWE-bench's images have the Python that tests run in."""
PLAIN_PYTEST = frozenset(
    {
        "astropy/astropy",
        "marshmallow-code/marshmallow",
        "matplotlib/matplotlib",
        "mwaskom/seaborn",
        "pallets/flask",
        "psf/requests",
        "pvlib/pvlib-python",
        "pydata/xarray",
        "pydicom/pydicom",
        "pylint-dev/astroid",
        "pylint-dev/pylint",
        "pyvista/pyvista",
        "scikit-learn/scikit-learn",
        "sqlfluff/sqlfluff",
    }
)
"""Repositories whose official command is `pytest -rA` with the files of the test patch (pytest's own is not among them:
it would test itself)."""
_MARKED = re.compile(r">>>>> Start Test Output'?\n(.*?)\n[^\n]*>>>>> End Test Output", re.DOTALL)
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def load(
    path: Path | str, *, reward: Reward = "hardened", without: Iterable[str] = (), timeout_s: float = TIMEOUT_S
) -> Loaded:
    """Read the rows of a file or folder; `without` names repositories to leave out. Raises ConfigError."""
    return separated(problems(leave_out(read_rows(path, columns=COLUMNS), without), reward=reward, timeout_s=timeout_s))


def problems(
    rows: Iterable[Row | BadRow], *, reward: Reward = "hardened", timeout_s: float = TIMEOUT_S
) -> Iterator[Problem | BadRow]:
    """Turn each row into a Problem, or into a BadRow that says why not. Raises ConfigError without swebench."""
    if reward not in REWARDS:
        raise ConfigError(f"reward {reward!r} is unknown for SWE-bench's tasks; choose one of {list(REWARDS)}")
    harness("log_parsers")
    for number, row in enumerate(rows):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            yield make_problem(row, reward=reward, timeout_s=timeout_s)
        except TaskError as error:
            yield BadRow(str(row.get("instance_id") or f"row {number}"), str(error))


def make_problem(row: Row, *, reward: Reward = "hardened", timeout_s: float = TIMEOUT_S) -> Problem:
    """One row as a problem. Raises TaskError with the reason where it is none."""
    identity, repository = text(row, "instance_id"), text(row, "repo")
    task = Task(
        id=identity,
        statement=(Part("text", text(row, "problem_statement").strip()),),
        image=str(row.get("image") or default_image(identity)),
        setup=setup_script(),
        env=(
            ("PATH", f"{ENVIRONMENT}/bin:/opt/miniconda3/condabin:{_SYSTEM_PATH}"),
            ("CONDA_PREFIX", ENVIRONMENT),
            ("CONDA_DEFAULT_ENV", "testbed"),
        ),
    )
    oracle = _oracle(row, repository)
    test_patch = text(row, "test_patch").encode("utf-8", "surrogateescape")
    command = _pytest_command(row, repository, test_patch) if reward == "hardened" else None
    grader: Grader
    if command is not None:
        grader = HardenedSweBench(oracle, test_patch, command, timeout_s)
    else:
        grader = OfficialSweBench(
            _spec(row, task.image, oracle), str(row.get("base_commit") or ""), test_patch, timeout_s
        )
    return Problem(task, grader, text(row, "patch").encode("utf-8", "surrogateescape"))


def default_image(identity: str) -> str:
    """The name under which SWE-bench publishes an instance's image."""
    return f"swebench/sweb.eval.x86_64.{identity.replace('__', '_1776_')}:latest".lower()


def _oracle(row: Row, repository: str) -> Oracle:
    wanted, kept = decoded(row, "FAIL_TO_PASS", list), decoded(row, "PASS_TO_PASS", list)
    if not wanted or not all(isinstance(name, str) for name in (*wanted, *kept)):
        raise TaskError("column 'FAIL_TO_PASS' names no tests, or one of the two lists holds something else")
    parsers = harness("log_parsers").PARSER_REGISTRY
    parser = row.get("log_parser")
    if not parser:
        known = harness("log_parsers.python").MAP_REPO_TO_PARSER_PY
        if repository not in known:
            raise TaskError(f"column 'log_parser' is missing, and swebench knows no parser for {repository}")
        parser = known[repository].__name__
    if parser not in parsers:
        raise TaskError(f"column 'log_parser' names {parser!r}, which the installed swebench does not have")
    kinds = [kind.value for kind in harness("constants").EvalType]
    kind = row.get("eval_type") or kinds[0]
    if kind not in kinds:
        raise TaskError(f"column 'eval_type' is {kind!r}; swebench knows {kinds}")
    return Oracle(text(row, "instance_id"), tuple(wanted), tuple(kept), parser, kind)


def _pytest_command(row: Row, repository: str, test_patch: bytes) -> FixedCommand | None:
    """The row's own pytest command with the interpreter of SWE-bench's images, or None if it is tested differently."""
    script = row.get("eval_script")
    if script:
        marked = _MARKED.search(str(script))
        words = _words(marked[1]) if marked and "conda activate testbed" in str(script) else []
        arguments = tuple(words[1:]) if words[:1] == ["pytest"] else ()
        if not arguments or repository == "pytest-dev/pytest":
            return None
    else:
        if repository not in PLAIN_PYTEST:
            return None
        files = [
            path for path in changed_paths(test_patch) if path.endswith(".py") and not path.endswith("conftest.py")
        ]
        if not files:
            raise TaskError("column 'test_patch' changes no test file that pytest could run")
        arguments = ("-rA", *files)
    return FixedCommand(f"{ENVIRONMENT}/bin/python", arguments)


def _words(command: str) -> list[str]:
    """The words of a single plain command, else nothing."""
    try:
        return shlex.split(command) if "\n" not in command and not re.search(r"[;&|<>$`]", command) else []
    except ValueError:
        return []


def _spec(row: Row, image: str, oracle: Oracle) -> str:
    """What swebench's make_test_spec needs of a row."""
    if not row.get("eval_script"):
        raise TaskError(
            "column 'eval_script' is missing: the row was made for swebench < 5, and its repository is not tested with "
            "plain pytest; use the data set in its present form, which has the column"
        )
    return json.dumps(
        {
            "instance_id": oracle.instance_id,
            "image": image,
            "repo": row["repo"],
            "version": str(row.get("version") or ""),
            "eval_script": text(row, "eval_script"),
            "log_parser": oracle.log_parser,
            "eval_type": oracle.eval_type,
            "FAIL_TO_PASS": list(oracle.fail_to_pass),
            "PASS_TO_PASS": list(oracle.pass_to_pass),
        }
    )
