"""Everything here needs vLLM in an environment of its own. (A folder of that name is a package to find_spec.)"""

import importlib.util
from collections.abc import Iterator

import pytest

from aem_swe.agents.definition import load_agent
from aem_swe.engines.local.model import LocalModel, load_model
from aem_swe.sandboxes import Sandboxes, SandboxLimits, open_sandboxes, unavailable_reason
from aem_swe.tasks.demo import grading_programs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        for item in items:
            if item.get_closest_marker("vllm"):
                item.add_marker(pytest.mark.skip(reason="needs vLLM: make test-vllm installs its CPU build"))


@pytest.fixture(scope="session")
def shipped() -> LocalModel:
    """The demo's starting policy. Do not train it: all tests share it."""
    return load_model("builtin/demo-policy", device="cpu")


@pytest.fixture(scope="session")
def sandboxes() -> Iterator[Sandboxes]:
    if reason := unavailable_reason("local"):
        pytest.skip(reason)
    programs = {**load_agent("demo").programs(), **grading_programs()}
    with open_sandboxes("local", limits=SandboxLimits(command_timeout_s=5.0), programs=programs) as opened:
        yield opened
