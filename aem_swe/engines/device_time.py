"""Spans of work that a GPU does: kernels are queued, so without waiting for them the next stage would pay for this one.

On a CPU these are plain spans. On a CUDA device a span ends when its kernels have ended, and has `gpu_s` beside its
seconds: what passed on the stream between its first and its last kernel, gaps between them included.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from aem_swe.profiling import Span, Value, span


@contextmanager
def device_span(stage: str, device: torch.device, **attributes: Value) -> Iterator[Span]:
    """A span that waits for the device at its end."""
    with span(stage, **attributes) as opened, on_device(opened, device):
        yield opened


@contextmanager
def on_device(opened: Span, device: torch.device) -> Iterator[None]:
    """The same for a span that is open already."""
    if device.type != "cuda" or not opened.recorded:
        yield
        return
    make: Any = torch.cuda.Event  # torch has no types for it
    begin, end = make(enable_timing=True), make(enable_timing=True)
    begin.record(torch.cuda.current_stream(device))
    yield
    end.record(torch.cuda.current_stream(device))
    end.synchronize()
    opened.set(gpu_s=round(begin.elapsed_time(end) / 1e3, 6))


def reset_peak(device: torch.device) -> None:
    """Begin a new measurement of the peak of allocated memory; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, Value]:
    """{"gpu_peak_mb": megabytes allocated at most since `reset_peak`}, for a span; nothing on a CPU."""
    return {"gpu_peak_mb": torch.cuda.max_memory_allocated(device) // 10**6} if device.type == "cuda" else {}
