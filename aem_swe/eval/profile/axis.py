"""Ticks of an axis in seconds, linear or logarithmic; positions are percent of its length."""

import math
from dataclasses import dataclass

SHORTEST_S = 1e-6
"""The resolution of spans.jsonl: a logarithmic axis begins here at the latest."""


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    text: str


def linear_ticks(top: float, most: int = 6) -> tuple[Tick, ...]:
    """Round values from 0 up to `top` seconds."""
    if top <= 0.0:
        return (Tick(0.0, "0"),)
    step = round_up(top / most)
    count = math.floor(top / step + 1e-9)
    return tuple(Tick(100.0 * number * step / top, _round_text(number * step, step)) for number in range(count + 1))


def round_up(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= value * (1 - 1e-9)), 10.0 * power)


@dataclass(frozen=True, slots=True)
class LogAxis:
    """From 10 ** first to 10 ** last seconds."""

    first: int
    last: int

    def place(self, seconds: float) -> float:
        """In percent; what lies outside is at the end."""
        position = (math.log10(max(seconds, SHORTEST_S)) - self.first) / (self.last - self.first)
        return 100.0 * min(1.0, max(0.0, position))

    def ticks(self) -> tuple[Tick, ...]:
        return tuple(
            Tick(self.place(10.0**power), _round_text(10.0**power, 10.0 ** (power - 1)))
            for power in range(self.first, self.last + 1)
        )


def log_axis(least: float, most: float) -> LogAxis:
    """The whole powers of ten around these seconds."""
    first = math.floor(math.log10(max(least, SHORTEST_S)) + 1e-9)
    return LogAxis(first, max(first + 1, math.ceil(math.log10(max(most, SHORTEST_S)) - 1e-9)))


def _round_text(seconds: float, step: float) -> str:
    """1.5 s and 20 ms: in the unit of the step between ticks, without digits that say nothing."""
    if seconds == 0.0:
        return "0"
    unit, size = next(((unit, size) for unit, size in (("s", 0.1), ("ms", 1e-4)) if step >= size), ("µs", 1e-7))
    return f"{seconds / (10.0 * size):,.6g} {unit}"
