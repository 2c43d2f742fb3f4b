"""The shipped starting policy, loaded once, and a server process that serves it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import ModelServer

from aem_swe.agents.chat import ChatFormat
from aem_swe.engines.local.model import LocalModel, load_model

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def model() -> LocalModel:
    return load_model("builtin/demo-policy", device="cpu")


@pytest.fixture(scope="session")
def chat(model: LocalModel) -> ChatFormat:
    return model.chat


@pytest.fixture(scope="session")
def server() -> Iterator[ModelServer]:
    program = Path(__file__).with_name("model_server.py")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    with process.stdout:
        try:
            yield ModelServer(int(process.stdout.readline()))
        finally:
            process.kill()
            process.wait()
