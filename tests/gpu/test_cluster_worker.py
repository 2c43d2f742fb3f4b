"""verl's worker at DeepSWE's row length: on one GPU with bounds, and with tiny shapes on the CPU. Needs verl."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from gpu_meter import Figures
from gpu_scene import H200, TINY

VERL = Path(__file__).resolve().parents[1] / "engines" / "verl"
SPREAD = 0.15


@pytest.fixture
def verl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(VERL))
    from verl_installed import VERL as version

    if not version:
        pytest.skip("needs verl and Ray: pip install '.[verl]'")
    monkeypatch.setenv("PYTHONPATH", str(VERL), prepend=":")
    yield
    for name in ("verl_scene", "verl_steps", "verl_worker"):
        sys.modules.pop(name, None)


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
def test_aem_costs_next_to_nothing_and_doctor_knows_the_memory(
    cuda: torch.device, verl: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpu_cluster import measure_cluster

    figures = measure_cluster(H200, cuda)
    with capsys.disabled():
        print()
        for name, value in figures.items():
            print(f"  {name:<28}{value:12.6g}")
    assert figures["cluster/aem_share"] < 0.01
    assert abs(figures["cluster/peak_gib"] / figures["cluster/estimate_gib"] - 1) < SPREAD


@pytest.mark.verl
@pytest.mark.filterwarnings("default")
def test_the_measurement_runs_with_tiny_shapes(verl: None, on_cpu: Callable[[], None]) -> None:
    from gpu_cluster import measure_cluster

    figures: Figures = measure_cluster(TINY, torch.device("cpu"))
    assert {name for name, value in figures.items() if math.isnan(value)} == {
        "cluster/peak_gib",
        "cluster/estimate_gib",
    }
    assert figures["cluster/old_log_prob_s"] > 0 and figures["cluster/update_s"] > 0
    assert 0 < figures["cluster/aem_share"] < 1


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"VERL_USE_EXTERNAL_MODULES": "verl_on_cpu", "VERL_PLATFORM": "cpu"}.items():
        monkeypatch.setenv(name, value)
