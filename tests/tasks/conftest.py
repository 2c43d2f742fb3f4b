"""The real local sandboxes, opened once."""

from collections.abc import Iterator

import pytest

from aem_swe.agents.definition import load_agent
from aem_swe.sandboxes import Sandboxes, SandboxLimits, open_sandboxes, unavailable_reason
from aem_swe.tasks.demo import grading_programs


@pytest.fixture(scope="session")
def sandboxes() -> Iterator[Sandboxes]:
    if reason := unavailable_reason("local"):
        pytest.skip(reason)
    programs = {**load_agent("demo").programs(), **grading_programs()}
    with open_sandboxes("local", limits=SandboxLimits(command_timeout_s=2.0), programs=programs) as opened:
        yield opened
