"""The shape of the package: who may import whom, how long a file may be, and that importing does nothing."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import REPOSITORY, environment

PACKAGE = REPOSITORY / "aem_swe"
FOUNDATION = {"aem_swe", "errors", "resources", "types", "profiling", "metrics", "config", "schema"}
AGENTS = {"agents", "sandboxes", "tasks"} | FOUNDATION
ALLOWED = {
    "aem_swe": set(),
    "errors": set(),
    "resources": set(),
    "types": set(),
    "profiling": set(),
    "check": set(),
    "child": set(),
    "algorithms": set(),
    "theory": set(),
    "metrics": {"errors", "profiling", "resources"},
    "replay": {"agents"} | AGENTS - {"config", "schema", "metrics"},
    "section": set(),
    "schema_cluster": {"section"},
    "schema_sampling": {"section"},
    "schema": {"schema_cluster", "schema_sampling", "section"},
    "config": {"errors", "resources", "schema"},
    "sandboxes": {"check"} | FOUNDATION - {"config", "schema", "metrics"},
    "tasks": {"sandboxes"} | FOUNDATION - {"config", "schema", "metrics"},
    "worlds": {"sandboxes", "tasks"} | FOUNDATION - {"config", "schema", "metrics"},
    "agents": {"sandboxes"} | FOUNDATION - {"config", "schema", "metrics"},
    "rollout": {"replay"} | AGENTS - {"config", "schema", "metrics"},
    "drivers": {"rollout"} | AGENTS - {"config", "schema", "metrics"},
    "vllm_server": {"child", "errors"},
    "open_model": {"agents", "engines", "vllm_server"} | FOUNDATION,
    "evaluate": {"engines", "eval", "open_model", "rollout", "sandboxes", "tasks", "agents"} | FOUNDATION,
    "engines": {"algorithms", "check", "drivers", "eval", "rollout", "schema_cluster", "worlds"} | AGENTS,
    "eval": {"child", "drivers", "rollout", "section", "theory"} | AGENTS,
    "progress": set(),
    "doctor": {"check", "engines", "sandboxes", "tasks", "worlds"} | FOUNDATION,
    "cli_compare": {"eval"} | FOUNDATION,
    "cli_data": {"eval", "tasks"} | FOUNDATION,
    "cli_eval": {"eval", "evaluate", "open_model"} | FOUNDATION,
    "cli_grade": {"eval", "sandboxes", "tasks"} | FOUNDATION,
    "cli_profile": {"eval"} | FOUNDATION,
    "cli_sandbox": {"eval", "sandboxes", "tasks"} | FOUNDATION,
    "cli_tasks": {"eval", "sandboxes", "tasks", "worlds"} | FOUNDATION,
    "cli_files": FOUNDATION,
    "cli_dynamics": {"cli_files", "engines", "eval"} | FOUNDATION,
    "cli_training": {"cli_files", "eval"} | FOUNDATION,
    "cli_ablations": {"cli_files", "eval"} | FOUNDATION,
    "cli_verify": {"cli_ablations", "cli_dynamics", "cli_files", "cli_training", "eval", "theory"} | FOUNDATION,
    "cli": {
        "cli_compare",
        "cli_data",
        "cli_eval",
        "cli_grade",
        "cli_profile",
        "cli_sandbox",
        "cli_tasks",
        "cli_verify",
        "doctor",
        "engines",
        "eval",
        "progress",
    }
    | FOUNDATION,
}
"""What each part may import of ours, beside itself."""
HEAVY = {"ray", "verl", "vllm", "rllm"}
ONLY_IN = {
    "torch": {"algorithms", "engines", "doctor"},
    "transformers": {"engines"},
    "tokenizers": {"engines"},
    "safetensors": {"engines"},
    "typer": {
        "cli",
        "cli_ablations",
        "cli_compare",
        "cli_data",
        "cli_dynamics",
        "cli_eval",
        "cli_files",
        "cli_grade",
        "cli_profile",
        "cli_sandbox",
        "cli_tasks",
        "cli_training",
        "cli_verify",
    },
    "rich": {
        "cli",
        "cli_ablations",
        "cli_dynamics",
        "cli_eval",
        "cli_tasks",
        "cli_training",
        "cli_verify",
        "eval",
        "progress",
    },
    "omegaconf": {"config", "engines"},
    "hydra": {"engines"},
    "huggingface_hub": {"engines", "tasks"},
    "matplotlib": {"eval"},
    "jinja2": {"eval", "agents"},
    "openai": {"agents"},
    "docker": {"cli_sandbox", "sandboxes", "tasks"},
    "textworld": {"worlds"},
    "alfworld": {"worlds"},
}
"""Libraries that one place knows."""
FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The first name below aem_swe: "engines" for engines/local/model.py, "aem_swe" for __init__.py."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "aem_swe" if name in ("__init__", "py.typed") else name


def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            relative = "aem_swe.sandboxes._guest." if "_guest" in path.parts else "aem_swe.nowhere."
            start = relative if node.level else f"{node.module}."
            found |= {start + alias.name for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """The parts of the package that a file imports; `from aem_swe import __version__` is the part aem_swe."""
    parts = [name.split(".") for name in imported(path) if name.split(".")[0] == "aem_swe"]
    return {words[1] if len(words) > 1 and words[1] in ALLOWED else "aem_swe" for words in parts}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards_only(path: Path) -> None:
    assert part(path) in ALLOWED, f"{part(path)} is new: say in ALLOWED what it may import"
    assert ours(path) <= ALLOWED[part(path)] | {part(path)}


def test_the_table_has_no_cycle() -> None:
    left = {name: allowed & ALLOWED.keys() for name, allowed in ALLOWED.items()}
    while left:
        bottom = {name for name, allowed in left.items() if not allowed & left.keys()}
        assert bottom, f"a cycle among {sorted(left)}"
        left = {name: allowed for name, allowed in left.items() if name not in bottom}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_libraries_stay_in_their_place(path: Path) -> None:
    libraries = {name.split(".")[0] for name in imported(path)}
    inside = path.relative_to(PACKAGE).parts
    if inside[:2] not in (("engines", "rllm"), ("engines", "verl")):
        assert not libraries & HEAVY - ({"ray"} if inside == ("eval", "swebench", "ray_player.py") else set())
    for library in libraries & ONLY_IN.keys():
        assert part(path) in ONLY_IN[library], f"{library} belongs to {sorted(ONLY_IN[library])}"


def test_algorithms_need_torch_and_the_standard_library_alone() -> None:
    for path in (PACKAGE / "algorithms").glob("*.py"):
        names = {name.split(".")[0] for name in imported(path) if not name.startswith("aem_swe.algorithms.")}
        assert names - {"torch"} <= sys.stdlib_module_names


def test_the_half_of_the_sandbox_that_runs_apart_needs_the_standard_library_alone() -> None:
    guest = PACKAGE / "sandboxes" / "_guest"
    for path in guest.glob("*.py"):
        names = {name.split(".")[0] for name in imported(path) if not name.startswith("aem_swe.sandboxes._guest.")}
        assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, f"{node.name} is too long"


def catches_everything(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id == "Exception") for kind in caught)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_and_the_rollout_catch_everything_and_only_the_former_prints(path: Path) -> None:
    tree, inside = ast.parse(path.read_text()), path.relative_to(PACKAGE).parts
    apart = "_guest" in inside or path.name == "demo_runner.py"  # programs of their own, inside a sandbox
    if part(path) not in ("cli", "rollout") and not apart:
        handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
        assert not [handler.lineno for handler in handlers if catches_everything(handler)]
    if not part(path).startswith("cli") and not apart:
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]


def test_top_level_folders_hold_content_and_no_package() -> None:
    for folder in ("agents", "sandboxes", "configs", "eval"):
        assert not list((REPOSITORY / folder).rglob("__init__.py"))


LIGHT = [
    "aem_swe",
    "aem_swe.config",
    "aem_swe.cli",
    "aem_swe.types",
    "aem_swe.errors",
    "aem_swe.metrics",
    "aem_swe.rollout",
]
SEE = """
import os, sys, threading
before = dict(os.environ)
import {module}
assert dict(os.environ) == before, "the environment was changed"
assert threading.active_count() == 1, "a thread was started"
import logging
assert not logging.getLogger().handlers, "logging was set up"
print(sorted({{"torch", "transformers", "matplotlib", "scipy"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize("module", LIGHT)
def test_importing_prints_nothing_makes_nothing_and_is_light(tmp_path: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEE.format(module=module)],
        cwd=tmp_path, env=environment() | {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert os.listdir(tmp_path) == []


def test_the_algorithms_can_be_imported_without_the_rest(tmp_path: Path) -> None:
    code = "import sys\nfrom aem_swe.algorithms import modulate, leave_one_out, response_ids\n"
    code += "print(sorted(m for m in sys.modules if m.startswith('aem_swe') and 'algorithms' not in m))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "['aem_swe']\n"
