"""Where the offline R2E-form tasks come from: released Python packages with a bug of ours, and demo problems.

`sandboxes/packages/<name>/` holds what is ours of a package task: task.toml (which release, pinned by hash), bug.patch,
issue.md and r2e_tests/. The released files themselves are fetched once from the package index that pip is configured
for. A demo problem is small enough for the demo policy, which makes a training step on containers a test that learns.
"""

import hashlib
import re
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from aem_swe.errors import ConfigError, TaskError
from aem_swe.resources import resource
from aem_swe.sandboxes.images import Files, Project, apply_patch, download_wheel
from aem_swe.tasks.demo import DemoProblem, evaluate, make_problem

DEMO_SEEDS = range(8)
_KEYS = {"package", "version", "sha256", "licence", "repo_name", "commit_hash", "fix"}
_OPTIONAL = {"exclude"}
_HEX = {"sha256": 64, "commit_hash": 40}
_VISIBLE = "/usr/local/bin/run_tests.sh"
"""Where the demo's own visible tests go. R2E's hidden run_tests.sh owns that name in /testbed until a set-up takes it
away, and then `sh run_tests.sh`, the demo policy's usual action, finds this one on the PATH, as bash looks there."""


@dataclass(frozen=True, slots=True)
class Source:
    """One task before its image: what is public about it, and its project."""

    repo_name: str
    commit_hash: str
    statement: str
    project: Project


@dataclass(frozen=True, slots=True)
class Package:
    """task.toml."""

    package: str
    version: str
    sha256: str
    licence: str
    repo_name: str
    commit_hash: str
    fix: str
    exclude: tuple[str, ...] = ()
    """Paths of the release that are left out, such as its own tests."""


def source_names() -> list[str]:
    """Return the names of all tasks that can be built."""
    return [*package_names(), *(f"demo-train-{seed}" for seed in DEMO_SEEDS)]


def package_names() -> list[str]:
    return sorted(path.parent.name for path in resource("sandboxes", "packages").glob("*/task.toml"))


def load_source(name: str) -> Source:
    """Make one task's project. Raises ConfigError for a name that does not exist, TaskError for a broken folder."""
    if name not in source_names():
        raise ConfigError(f"task {name!r} is unknown; choose one of {source_names()}")
    demo = name.rpartition("-")
    return _demo(int(demo[2])) if demo[0] == "demo-train" else _package(name)


def read_package(folder: Path) -> Package:
    """Read task.toml. Raises TaskError that names what is missing, unknown or malformed in it."""
    said = tomllib.loads((folder / "task.toml").read_text())
    missing, unknown = _KEYS - said.keys(), said.keys() - _KEYS - _OPTIONAL
    if missing or unknown:
        raise TaskError(f"{folder.name}: task.toml lacks {sorted(missing)} and has unknown {sorted(unknown)}")
    for key, length in _HEX.items():
        if not re.fullmatch(f"[0-9a-f]{{{length}}}", said[key]):
            raise TaskError(f"{folder.name}: {key} in task.toml must be {length} hexadecimal digits, got {said[key]!r}")
    return Package(**{**said, "exclude": tuple(said.get("exclude", ()))})


def _package(name: str) -> Source:
    folder = resource("sandboxes", "packages") / name
    package = read_package(folder)
    wheel = download_wheel(package.package, package.version, package.sha256)
    fixed = _released(wheel, package)
    buggy = apply_patch(fixed, (folder / "bug.patch").read_bytes(), name)
    tests = tuple((path.name, path.read_bytes()) for path in sorted((folder / "r2e_tests").glob("*.py")))
    project = Project(name=name, fixed=fixed, buggy=buggy, tests=tests, fix=package.fix)
    issue = (folder / "issue.md").read_text()
    return Source(package.repo_name, package.commit_hash, f"[ISSUE]\n{issue}\n[/ISSUE]", project)


def _released(wheel: Path, package: Package) -> Files:
    """The files of a wheel as a project has them: its code, and its licence at the top."""
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            path = PurePosixPath(entry.filename)
            inside = path.parts[0].endswith(".dist-info")
            licence = inside and path.name.upper().startswith(("LICENSE", "LICENCE"))
            left_out = any(path.is_relative_to(excluded) for excluded in package.exclude)
            if not entry.is_dir() and not left_out and (licence or not inside):
                files[path.name if licence else str(path)] = archive.read(entry)
    return tuple(sorted(files.items()))


def _demo(seed: int) -> Source:
    problem = make_problem("train", seed)
    bug = f"    return {problem.bug}\n"
    broken, good = problem.target.source(problem.bug), problem.target.source(problem.target.variant.good)
    buggy = problem.files()
    fixed = {path: text.replace(broken, good) for path, text in buggy.items()}
    assert bug in buggy[f"{problem.target.module}.py"] and fixed != buggy
    visible = dict(problem.task().files)["run_tests.sh"]
    project = Project(
        name=problem.id, fixed=_files(fixed), buggy=_files(buggy), fix=f"Fix {problem.target.name}: {problem.issue}",
        tests=(("test_1.py", _demo_tests(problem).encode()),), programs=((_VISIBLE, visible),),
    )  # fmt: skip
    commit = hashlib.sha1(f"{problem.id} {project.digest()}".encode()).hexdigest()
    return Source("demo", commit, f"[ISSUE]{problem.issue}[/ISSUE]", project)


def _files(texts: dict[str, str]) -> Files:
    return tuple((path, text.encode()) for path, text in sorted(texts.items()))


def _demo_tests(problem: DemoProblem) -> str:
    """All cases of the demo's grader as tests. Results are compared by type and value, as there: True is not 1."""
    lines = ["import pytest", "", *(f"import {name}" for name in sorted({f.module for f in problem.functions}))]
    for function in problem.functions:
        variant = function.variant
        cases = [(case, evaluate(variant.good, variant.arguments, case)) for case in variant.cases]
        ids = [f"case{index}" for index in range(len(cases))]
        lines += ["", "", f'@pytest.mark.parametrize(("arguments", "expected"), {cases!r}, ids={ids!r})']
        lines += [f"def test_{function.name}(arguments, expected):"]
        lines += [f"    assert repr({function.module}.{function.name}(*arguments)) == repr(expected)"]
    return "\n".join(lines) + "\n"
