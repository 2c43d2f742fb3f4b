"""All that is said of one run, or of two: as lines and as JSON data from the same figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.eval.profile.advice import Advice, advise
from aem_swe.eval.profile.as_json import Data, comparison_data, profile_data
from aem_swe.eval.profile.difference import compare_profiles
from aem_swe.eval.profile.figure4 import Figure4, measure_figure4
from aem_swe.eval.profile.growth import Growth, measure_growth
from aem_swe.eval.profile.profile import Profile, load_profile
from aem_swe.eval.profile.text import difference_lines, profile_lines


@dataclass(frozen=True, slots=True)
class Measured:
    """A profile with what follows from it."""

    profile: Profile
    growth: Growth
    figure4: Figure4
    advice: tuple[Advice, ...]


def measure(folder: Path, show: int | None = None) -> Measured:
    """Read and measure a run folder; raises what `load_profile` raises."""
    profile = load_profile(folder, show)
    growth = measure_growth(profile)
    return Measured(profile, growth, measure_figure4(profile), advise(profile, growth))


def lines(runs: Sequence[Measured]) -> Iterator[str]:
    """For the terminal: of one run everything, of two what differs."""
    if len(runs) == 1:
        (one,) = runs
        advice = [f"{advice.says} ({advice.figure})" for advice in one.advice]
        yield from profile_lines(one.profile, one.growth, one.figure4, advice)
    else:
        first, second = (one.profile for one in runs)
        yield from difference_lines(first, second, compare_profiles(first, second))


def data(runs: Sequence[Measured]) -> Data:
    """For --json: of one run its own figures, of two both and the difference."""
    figures = [profile_data(one.profile, one.growth, one.figure4, one.advice) for one in runs]
    if len(runs) == 1:
        return figures[0]
    first, second = (one.profile for one in runs)
    return comparison_data(figures, compare_profiles(first, second))
