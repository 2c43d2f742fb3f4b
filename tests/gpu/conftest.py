"""The device of the GPU tests, or the reason why there is none."""

from collections.abc import Callable

import pytest
import torch
from gpu_figures import FIGURES
from gpu_meter import Figures
from gpu_scene import NEEDED_GIB


@pytest.fixture
def cuda() -> torch.device:
    remedy = f"run `pytest -m gpu` where torch sees one with {NEEDED_GIB} GiB or more (sized for an H200)"
    if not torch.cuda.is_available():
        pytest.skip(f"needs a CUDA GPU and torch {torch.__version__} finds none; {remedy}")
    available = torch.cuda.get_device_properties(0).total_memory / 2**30
    if available < NEEDED_GIB:
        pytest.skip(f"needs a larger GPU than {torch.cuda.get_device_name(0)} with {available:.0f} GiB; {remedy}")
    return torch.device("cuda")


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[Figures], None]:
    """Show figures although the test passes: they are what one runs these tests for."""

    def show(figures: Figures) -> None:
        with capsys.disabled():
            print()
            for key, value in figures.items():
                print(f"  {FIGURES[key]:<92}{value:12.6g}")

    return show
