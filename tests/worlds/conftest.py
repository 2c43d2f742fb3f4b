"""Games for tests. Those that run one skip, saying why, where the extra is not installed."""

from collections.abc import Iterator

import pytest

from aem_swe.sandboxes import SandboxLimits
from aem_swe.worlds.games import GameSandboxes
from aem_swe.worlds.layouts import missing


@pytest.fixture(scope="session")
def alfworld() -> None:
    """For tests that read what the alfworld package ships."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def games(alfworld: None) -> Iterator[GameSandboxes]:
    with GameSandboxes(SandboxLimits(memory_mb=256, command_timeout_s=20.0)) as opened:
        yield opened
