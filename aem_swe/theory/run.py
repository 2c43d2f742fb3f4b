"""Runs the table of checks on random policies and says which passed."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from aem_swe.theory.checks import CHECKS, Check, Kind

BOUND: Final = 1e-7
"""A statement's largest error over its instances stays below this (nats, or nats per unit of step)."""
CONTROL_BOUND: Final = 1e-3
"""A control's median error is above this: a typical instance shows what is wrong, not only a rare one."""


@dataclass(frozen=True, slots=True)
class Result:
    claim: str
    compared: str
    kind: Kind
    instances: int
    max_error: float
    median_error: float

    @property
    def bound(self) -> float:
        return BOUND if self.kind == "statement" else CONTROL_BOUND

    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return self.max_error < self.bound if self.kind == "statement" else self.median_error > self.bound


def verify(seed: int = 0, checks: tuple[Check, ...] = CHECKS) -> tuple[Result, ...]:
    """Every check with random numbers of its own, so that adding one changes no other."""
    return tuple(_run(check, seed) for check in checks)


def _run(check: Check, seed: int) -> Result:
    draw = np.random.default_rng([seed, *f"{check.claim} {check.compared}".encode()])
    errors = np.array([check.instance(draw).error for _ in range(check.instances)])
    return Result(
        check.claim, check.compared, check.kind, check.instances, float(errors.max()), float(np.median(errors))
    )
