"""Seconds of queued kernels and peak memory of a device.

Peak memory is what torch's allocator handed out at most, weights included, without the CUDA context.
"""

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from aem_swe.profiling import Stopwatch

Figures = dict[str, float]
"""Key of FIGURES -> value; NaN is "not measured here"."""


class Meter:
    """Seconds per stage and the peak memory of a device, from here on."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._stopwatch = device, Stopwatch()
        gc.collect()  # networks hold reference cycles: the last one would still be counted
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block, the kernels that it has queued included."""
        self._synchronize()
        with self._stopwatch.stage(name):
            yield
            self._synchronize()

    def seconds(self, name: str) -> float:
        return self._stopwatch.seconds[name]

    def peak_gib(self) -> float:
        """NaN on a CPU, which does not count."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else math.nan

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
