"""Tests that need rllm skip where it is missing, with the command that installs it."""

import pytest

from aem_swe.engines.rllm.versions import INSTALL, folder_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("rllm", "verl") if folder_of(name) is None]
    for item in items if missing else ():
        if item.get_closest_marker("rllm"):
            item.add_marker(pytest.mark.skip(reason=f"needs {' and '.join(missing)}: {INSTALL}"))
