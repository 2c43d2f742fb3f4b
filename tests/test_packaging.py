"""The wheel: built, installed beside nothing else of ours, and used from there."""

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from command_line import REPOSITORY

LOOK = """
import json, sys
from pathlib import Path
import aem_swe
from aem_swe.agents.definition import load_agent
from aem_swe.config import load_recipe
from aem_swe.engines.local.model import load_model
from aem_swe.resources import names, resource

agent = load_agent("r2egym")
agents = [name for name in names("agents") if resource("agents", name + "/agent.yaml").exists()]
programs = [load_agent(name).programs() for name in agents]
print(json.dumps({
    "package": str(Path(aem_swe.__file__).parent),
    "recipe": load_recipe("demo").trainer.steps,
    "recipes": names("configs", ".yaml"),
    "tools": sorted(agent.tools),
    "programs": sorted({path for those in programs for path in those}),
    "system": len(agent.system),
    "parameters": sum(p.numel() for p in load_model("builtin/demo-policy").parameters),
    "folders": {folder: str(resource(folder)) for folder in ("agents", "sandboxes", "configs", "eval")},
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout. Where hatchling is not installed, pip fetches it for the build."""
    out = tmp_path_factory.mktemp("wheel")
    here = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "build", "--wheel", *here, "--outdir", str(out), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's contents and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, capture_output=True, check=True)
    return target


def use(installed: Path, code: str, folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_finds_all_its_content_in_itself(installed: Path, tmp_path: Path) -> None:
    seen = json.loads(use(installed, LOOK, tmp_path))
    assert seen["package"] == str(installed / "aem_swe")
    assert seen["recipe"] > 0
    assert {"demo", "demo_aem"} <= set(seen["recipes"])
    assert {"file_editor", "search", "execute_bash", "finish"} <= set(seen["tools"])
    assert {"/opt/aem/tools/file_editor.py", "/opt/aem/tools/search.py"} <= set(seen["programs"])
    assert seen["system"] > 100
    assert 500_000 < seen["parameters"] < 1_000_000
    for folder, place in seen["folders"].items():
        assert place == str(installed / "aem_swe" / "resources" / folder)
        assert os.path.isdir(place), f"{folder} is not in the wheel"


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_checkout_that_it_needs_and_no_other(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    skipped = {"__pycache__", ".pyc"}
    for source in (REPOSITORY / "aem_swe").rglob("*"):
        if source.is_file() and not any(word in str(source) for word in skipped):
            assert str(source.relative_to(REPOSITORY)) in held
    for folder in ("agents", "sandboxes", "configs", "eval"):
        for source in (REPOSITORY / folder).rglob("*"):
            if source.is_file() and not any(word in str(source) for word in skipped):
                assert f"aem_swe/resources/{source.relative_to(REPOSITORY)}" in held
    assert {name.split("/")[0] for name in held} == {"aem_swe", *(n.split("/")[0] for n in held if ".dist-info/" in n)}
    assert not [name for name in held if "/tests/" in name or name.startswith("tests/")]
    assert "aem_swe/py.typed" in held


@pytest.mark.slow
def test_a_wheel_trains_in_a_folder_of_its_own(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from aem_swe.cli import main\n"
        "sys.argv = ['aem-swe', 'train', 'demo', 'trainer.steps=1', 'trainer.eval_every=0', 'agent.max_steps=2',"
        " 'sampling.prompts=2', 'sampling.rollouts=2']\n"
        "main()"
    )
    assert use(installed, code, tmp_path).splitlines()[-1].startswith("done: runs/demo")
    assert (tmp_path / "runs" / "demo" / "metrics.jsonl").is_file()
