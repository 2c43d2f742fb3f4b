"""The contract, for each kind of sandbox that this machine can make."""

from collections.abc import Iterator

import pytest
from contract import *  # noqa: F403  (the tests)
from engines import no_engine

from aem_swe.errors import ConfigError
from aem_swe.sandboxes import Sandboxes, SandboxLimits, open_sandboxes, unavailable_reason


@pytest.fixture(scope="module", params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def sandboxes(request: pytest.FixtureRequest) -> Iterator[Sandboxes]:
    reason = no_engine() if request.param == "docker" else unavailable_reason(request.param)
    if reason is not None:
        pytest.skip(reason)
    with open_sandboxes(request.param, limits=SandboxLimits(memory_mb=256, disk_mb=32)) as opened:
        yield opened


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"sandbox 'lokal' is unknown; choose one of \['docker', 'local'"):
        open_sandboxes("lokal", limits=SandboxLimits())
