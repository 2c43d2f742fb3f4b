"""The page about one profile, or about two beside each other: one file without a script that asks for nothing.

The two rules of report.py hold for every value: made visible, then escaped. What would make the page larger than it can
be read is left out or drawn together, and the page says how much. Every figure is one of the profile's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aem_swe.eval.profile import wording
from aem_swe.eval.profile.advice import Advice
from aem_swe.eval.profile.charts import Columns, Spread, draw_growth, draw_spread, draw_steps
from aem_swe.eval.profile.difference import STEADY
from aem_swe.eval.profile.episodes import Straggler
from aem_swe.eval.profile.families import FAMILIES, family_of, mean_families
from aem_swe.eval.profile.figure4 import AEM_ALONE, Figure4
from aem_swe.eval.profile.growth import Line
from aem_swe.eval.profile.measured import Findings, Measured
from aem_swe.eval.profile.pair import pair_of
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.stages import StageProfile
from aem_swe.eval.profile.step import StepProfile
from aem_swe.eval.profile.waterfall import MOST_BARS, Waterfall, draw_waterfall
from aem_swe.eval.report import page_environment, write_whole

MOST_STAGES = 60
MOST_STRAGGLERS = 20


@dataclass(frozen=True, slots=True)
class Slice:
    """A family's part of the mean step."""

    family: str
    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class ProfilePage:
    """All that the template prints about one profile."""

    profile: Profile
    headline: str
    size: str
    step_s: float
    largest: float
    """The largest share in the table of stages; its bar fills its cell."""
    facts: tuple[tuple[str, str], ...]
    slices: tuple[Slice, ...]
    advice: tuple[Advice, ...]
    stages: tuple[StageProfile, ...]
    more_stages: tuple[StageProfile, ...]
    """Those for which there is no room in the table."""
    waterfalls: tuple[Waterfall, ...]
    spread: Spread
    steps: Columns
    stragglers: tuple[Straggler, ...]
    more_stragglers: int
    growth: tuple[Columns, ...]
    lines: tuple[tuple[str, Line], ...]
    figure4: Figure4
    notes: tuple[str, ...]


def write_page(found: Findings, out: Path) -> None:
    """Write the page about one or two profiles to `out`, which appears whole or not at all.

    Raises RunError for a file that cannot be written.
    """
    profiles = [one.profile for one in found.runs]
    shown = [shown_steps(profile) for profile in profiles]
    most_bars = MOST_BARS // max(1, sum(map(len, shown)))
    pages = [_page_of(one, steps, most_bars) for one, steps in zip(found.runs, shown, strict=True)]
    template = page_environment().get_template("profile/profile.html.jinja")
    write_whole(
        out,
        template.render(
            pages=pages,
            pair=pair_of((profiles[0].name, profiles[1].name), found.difference) if len(profiles) == 2 else None,
            aem_alone=AEM_ALONE,
            steady=STEADY,
            families=FAMILIES,
            family_of=family_of,
            seconds=wording.seconds_text,
            signed=wording.signed_text,
            share=wording.share_text,
            short=wording.short_name,
        ),
        "--html",
    )


def shown_steps(profile: Profile) -> list[tuple[str, StepProfile]]:
    """Every step whose spans were kept, with what it is: the slowest, the median, one that was asked for, the last."""
    slowest, median = profile.slowest, profile.median
    titles = {slowest.step: "The slowest step", median.step: "The median step"}
    if slowest is median:
        titles[slowest.step] = "The step" if len(profile.steps) == 1 else "The slowest and median step"
    found = [(titles.get(step.step, "The step that was asked for"), step) for step in profile.steps if step.segments]
    found.sort(key=lambda pair: (pair[1] is not slowest, pair[1] is not median))
    last = profile.incomplete
    if last is not None and last.segments and all(last is not step for _, step in found):
        found.append(("The step that was not completed", last))
    before = profile.before
    if before is not None and before.segments and all(before is not step for _, step in found):
        found.append(("The evaluation before training, step", before))
    return found


def _page_of(run: Measured, shown: Sequence[tuple[str, StepProfile]], most_bars: int) -> ProfilePage:
    profile = run.profile
    by_size = sorted(profile.stages.values(), key=lambda stage: -(stage.path_s + stage.work_s))
    kept = {stage.stage for stage in by_size[:MOST_STAGES]}
    stages = tuple(stage for stage in profile.stages.values() if stage.stage in kept)
    late = sorted(
        (step.straggler for step in profile.steps if step.straggler), key=lambda one: (-one.seconds, one.step)
    )
    return ProfilePage(
        profile=profile,
        headline=wording.headline(profile),
        size=wording.size_sentence(profile),
        step_s=profile.wall_s / len(profile.steps),
        largest=max([profile.residual_share, *(stage.share for stage in stages)]) or 1.0,
        facts=tuple(_facts(profile)),
        slices=tuple(_slices(profile)),
        advice=run.advice,
        stages=stages,
        more_stages=tuple(by_size[MOST_STAGES:]),
        waterfalls=tuple(draw_waterfall(step, f"{title}, {step.step}", most_bars) for title, step in shown),
        spread=draw_spread(stages, [step for _, step in shown if any(step is one for one in profile.steps)]),
        steps=draw_steps(profile),
        stragglers=tuple(sorted(late[:MOST_STRAGGLERS], key=lambda one: one.step)),
        more_stragglers=len(late[MOST_STRAGGLERS:]),
        growth=tuple(draw_growth(run.growth)),
        lines=tuple(run.growth.lines.items()),
        figure4=run.figure4,
        notes=tuple(wording.notes(profile)),
    )


def _slices(profile: Profile) -> list[Slice]:
    families = mean_families(profile)
    total = sum(families.values())
    return [
        Slice(family, FAMILIES[family], seconds, seconds / total)
        for family, seconds in families.items()
        if seconds > 0.0 or family == "residual"
        if total > 0.0
    ]


def _facts(profile: Profile) -> list[tuple[str, str]]:
    """Means per step, as far as they were recorded."""
    steps, count = profile.steps, len(profile.steps)
    found = []
    if any(step.episodes for step in steps):
        found += [
            ("episodes", f"{sum(step.episodes for step in steps) / count:,.4g}"),
            ("turns", f"{sum(step.turns for step in steps) / count:,.4g}"),
        ]
    if any(step.tokens for step in steps):
        found.append(("tokens sampled", f"{sum(step.tokens for step in steps) / count:,.0f}"))
    if any("policy/" in stage for stage in profile.stages):
        found.append(("of rollout without sampling", wording.seconds_text(sum(step.idle_s for step in steps) / count)))
    on_gpu = [step.gpu_s for step in steps if step.gpu_s is not None]
    if on_gpu:
        found.append(("on the GPU", wording.seconds_text(sum(on_gpu) / len(on_gpu))))
    peaks = [step.gpu_peak_mb for step in steps if step.gpu_peak_mb is not None]
    if peaks:
        found.append(("of GPU memory at most", f"{max(peaks):,.0f} MB"))
    return [*found, ("spans", f"{sum(step.span_count for step in steps) / count:,.0f}")]
