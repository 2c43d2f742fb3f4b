"""Does the time of a run's steps add up? For both chains, whose spans come from trainers that are not ours."""

from pathlib import Path

import pytest

from aem_swe.eval.profile.profile import Profile, load_profile

RESIDUAL = 0.02


def require_closed(folder: Path, steps: list[int]) -> Profile:
    """The profile, after a look at each step: ended, explained but for 2%, and the parts sum to the whole."""
    profile = load_profile(folder)
    assert [step.step for step in profile.steps] == steps
    assert (profile.unreadable_lines, profile.late_spans, profile.outside_spans) == (0, 0, 0)
    for step in profile.steps:
        assert step.complete
        assert step.residual_s <= RESIDUAL * step.wall_s, f"step {step.step}: {step.residual_s} of {step.wall_s} s"
        assert sum(step.path_s.values()) + step.residual_s == pytest.approx(step.wall_s)
        assert min(step.path_s.values()) >= 0
    return profile
