"""One Ray and one pair of real verl workers for all tests; nothing here where verl is missing."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from verl_installed import VERL

HERE = Path(__file__).parent
SETTINGS = {"VERL_USE_EXTERNAL_MODULES": "verl_on_cpu", "VERL_PLATFORM": "cpu", "HF_HUB_OFFLINE": "1"}
if VERL:
    os.environ |= SETTINGS  # before verl is imported anywhere: it reads these then


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import verl_scene as scene

    folder = scene.make_model(tmp_path_factory.mktemp("model"))
    scene.make_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    import ray

    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    environment = {"env_vars": SETTINGS | {"PYTHONPATH": paths}}
    for attempts_left in (2, 1, 0):
        try:
            ray.init(num_cpus=8, num_gpus=2, include_dashboard=False, runtime_env=environment)  # pretended GPUs
            break
        except Exception as error:  # Ray's own class for it; a busy machine is too slow for a fixed limit in Ray
            ray.shutdown()
            if not attempts_left or "timed out during startup" not in str(error):
                raise
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def queue(cluster: None) -> Iterator[None]:
    """verl 0.9's TransferQueue, with the mode `aem_sync` registered."""
    import transfer_queue

    import aem_swe.engines.verl.v1  # noqa: F401

    transfer_queue.init()
    yield
    transfer_queue.close()


@pytest.fixture(scope="session")
def _shared() -> list[Any]:
    return []


@pytest.fixture
def workers(cluster: None, model: Path, _shared: list[Any]) -> Any:
    """Two data-parallel ranks whose weights no update changes; new ones after `lose_workers`."""
    import verl_scene as scene

    if not _shared:
        _shared.append(scene.make_workers(scene.verl_config(model)))
    return _shared[0]


@pytest.fixture
def lose_workers(_shared: list[Any]) -> Callable[[], None]:
    return _shared.clear
