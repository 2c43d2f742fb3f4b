"""How stages grow with turns, with tokens and with the number of episodes, from the profile of one run.

These describe one run and no cause: a later turn has a longer prompt, and only the longer episodes have a later turn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.stages import Floats

GROWING = {"rollout": "sampled", "old_log_prob": "scored", "update": "scored"}
"""What each phase is held against: the tokens that the step sampled, or all that its old_log_prob span says it read."""
LEAST_R2 = 0.5
"""Of a line that explains less than half of what varies, the slope is not worth a word."""
FEWEST_STEPS = 3
"""Two points lie on a line whatever they say."""


@dataclass(frozen=True, slots=True)
class Turn:
    turn: int
    """Counted from 0."""
    count: int
    p50: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class TokenBin:
    """Decode spans of one turn that sampled `low` to `high` tokens, both included."""

    low: int
    high: int
    count: int
    p50: float
    """Seconds per token."""


@dataclass(frozen=True, slots=True)
class Line:
    """Least squares of a phase's seconds against tokens, one point per step."""

    tokens: str
    """sampled or scored: of which tokens of the step."""
    per_token_s: float
    fixed_s: float
    r2: float
    """Of the variance, the share that the line explains; 1.0 where nothing varies."""
    steps: int
    trend: bool
    """False: the line explains too little, or falls with more tokens; its slope says nothing."""


@dataclass(frozen=True, slots=True)
class Slowest:
    """How long the slowest of `episodes` of a step's episodes took: mean over all choices of them, then over steps."""

    episodes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Growth:
    turns: Mapping[str, tuple[Turn, ...]]
    """By stage: each policy/*, and "tool" for all tools together."""
    tokens: tuple[TokenBin, ...]
    lines: Mapping[str, Line]
    """By phase (rollout, old_log_prob, update), where three steps with different numbers of tokens recorded it."""
    slowest: tuple[Slowest, ...]
    """For 1, 2, 4, ... and all episodes of the smallest step."""


def measure_growth(profile: Profile) -> Growth:
    samples = profile.samples
    turns = {
        stage: tuple(Turn(turn, seconds.size, float(np.median(seconds))) for turn, seconds in by_turn.items())
        for stage, by_turn in samples.turn_s.items()
        if by_turn
    }
    lines = {}
    for name, kind in GROWING.items():
        counts = [step.tokens if kind == "sampled" else step.batch_tokens for step in profile.steps]
        points = [(n, step.phases_s.get(name, 0.0)) for n, step in zip(counts, profile.steps, strict=True) if n]
        tokens, seconds = np.array(points, float).reshape(-1, 2).T
        if seconds.any() and (line := fit_line(tokens, seconds, kind)):
            lines[name] = line
    return Growth(turns, _bin_tokens(samples.decode_tokens, samples.decode_s), lines, _slowest(samples.episode_s))


def fit_line(x: Floats, y: Floats, tokens: str) -> Line | None:
    """None below three points or where all x are equal."""
    if x.size < FEWEST_STEPS or np.ptp(x) == 0.0:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    left, total = float(((dy - slope * dx) ** 2).sum()), float((dy**2).sum())
    r2 = 1.0 - left / total if total else 1.0
    fixed_s = float(y.mean()) - slope * float(x.mean())
    return Line(tokens, slope, fixed_s, r2, x.size, trend=r2 >= LEAST_R2 and slope >= 0.0)


def expected_slowest(seconds_E: Floats, m: int) -> float:
    """Expected maximum of `m` of these values, drawn without putting back. Exact; `seconds_E` ascending.

    The i-th of n is the largest of m in C(i-1, m-1) of C(n, m) draws; each weight follows from the one above it.
    """
    n = seconds_E.size
    assert 1 <= m <= n, f"{m} of {n}"
    expected, weight = 0.0, m / n
    for i in range(n, m - 1, -1):
        expected += weight * float(seconds_E[i - 1])
        weight *= (i - m) / (i - 1) if i > 1 else 0.0
    return expected


def _slowest(episode_s: Sequence[Floats]) -> tuple[Slowest, ...]:
    steps = [seconds_E for seconds_E in episode_s if seconds_E.size]
    if not steps:
        return ()
    most = min(seconds_E.size for seconds_E in steps)
    sizes = sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})
    return tuple(Slowest(m, float(np.mean([expected_slowest(seconds_E, m) for seconds_E in steps]))) for m in sizes)


def _bin_tokens(tokens: Floats, seconds: Floats) -> tuple[TokenBin, ...]:
    """Bins that double in width: 1, 2 to 3, 4 to 7, ..."""
    known = tokens >= 1.0
    tokens, per_token = tokens[known], seconds[known] / tokens[known]
    powers = np.floor(np.log2(tokens)).astype(int)
    bins = []
    for power in np.unique(powers).tolist():
        inside = per_token[powers == power]
        bins.append(TokenBin(2**power, 2 ** (power + 1) - 1, inside.size, float(np.median(inside))))
    return tuple(bins)
