"""The profile of a run: its steps' critical paths summed up by stage, with the residual that no span explains."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types; a stub package may be installed

from aem_swe.errors import ConfigError, RunError
from aem_swe.eval.profile.episodes import Straggler as Straggler
from aem_swe.eval.profile.spans import SPANS, Counts, read_steps
from aem_swe.eval.profile.stages import Samples as Samples
from aem_swe.eval.profile.stages import StageProfile as StageProfile
from aem_swe.eval.profile.stages import pool_samples, sum_stages
from aem_swe.eval.profile.step import StepProfile as StepProfile
from aem_swe.eval.profile.step import Tally, tally_step


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a run's time went. `stages` with the residual sum to the wall time."""

    folder: Path
    name: str
    config: Mapping[str, object]
    """The recipe of the run; empty where the folder has no readable config.yaml."""
    unreadable_lines: int
    late_spans: int
    """Spans after their step's end, or left over from an attempt that was killed: in no figure."""
    outside_spans: int
    """Spans of no step, startup left aside: in no figure."""
    startup_s: float | None
    before: StepProfile | None
    """The evaluation before training, step 0; None where there was none."""
    group_size: int | None
    """Episodes per task; None where no episode was recorded."""
    steps: tuple[StepProfile, ...]
    """The counted steps in order: the complete ones after step 0. A run without any counts what it has."""
    stages: Mapping[str, StageProfile]
    """In the order in which they happen in a step. Containers (step, rollout, update, wait) are no stages."""
    wall_s: float
    """Sum over the counted steps."""
    residual_s: float
    """Sum over the counted steps."""
    residual_share: float
    incomplete: StepProfile | None
    """The last step that failed or in which the run was killed. It is in no mean unless there is no complete one."""
    incomplete_steps: tuple[int, ...]
    """All that were not completed: that one, and those whose own line was lost though the run went on."""
    samples: Samples

    @property
    def recipe(self) -> str:
        """Its name; empty where there is no config that says it: the spans stand for themselves."""
        name = self.config.get("recipe")
        return name if isinstance(name, str) else ""

    @property
    def before_s(self) -> float | None:
        return self.before.wall_s if self.before else None

    @property
    def slowest(self) -> StepProfile:
        return slowest_steps(self.steps)[0]

    @property
    def median(self) -> StepProfile:
        return slowest_steps(self.steps)[len(self.steps) // 2]

    def step(self, number: int) -> StepProfile:
        """A counted step, the incomplete one, or the evaluation before training (0), by its number."""
        known = [step for step in (*self.steps, self.incomplete, self.before) if step]
        return next(step for step in known if step.step == number)


def slowest_steps(steps: Sequence[StepProfile]) -> list[StepProfile]:
    """The slowest first; of equals the earlier."""
    return sorted(steps, key=lambda step: (-step.wall_s, step.step))


def load_profile(folder: Path, show: int | None = None) -> Profile:
    """Read the spans of a run folder, one step in memory at a time; keep the spans of step `show` too.

    Raises RunError where there is no spans.jsonl or no span of a step in it, ConfigError where there is no step `show`.
    """
    if not folder.is_dir():
        raise RunError(f"run folder {str(folder)!r} does not exist; give a folder that `aem-swe train` wrote")
    path, counts = folder / SPANS, Counts()
    if not path.is_file():
        raise RunError(f"{path} is missing; {str(folder)!r} is not a run folder, or its run recorded no spans")
    ended: dict[int, Tally] = {}
    broken: dict[int, Tally] = {}
    with _no_collector():
        for step in read_steps(path, counts):
            attempts = ended if step.complete else broken
            if step.step in attempts:  # the last one counts
                counts.late += attempts[step.step].profile.span_count
            attempts[step.step] = tally_step(step, keep=not step.complete)
    if not ended and not broken:
        raise RunError(f"{path} holds no span of a step{_unreadable(counts)}; let the run go through at least one step")
    before = ended.pop(0, None) or broken.pop(0, None)
    broken = {step: tally for step, tally in broken.items() if step not in ended}  # resumed, and then completed
    last = broken[max(broken)] if broken else None
    counted = [ended[step] for step in sorted(ended)] or [tally for tally in (last or before,) if tally]
    _check_shown(path, show, [tally for tally in (before, last, *counted) if tally])
    profiles = _with_shown(path, counted, show)
    wall_s = sum(step.wall_s for step in profiles)
    residual_s = sum(step.residual_s for step in profiles)
    return Profile(
        folder=folder,
        name=folder.resolve().name,
        config=_read_config(folder / "config.yaml"),
        unreadable_lines=counts.unreadable,
        late_spans=counts.late,
        outside_spans=counts.outside,
        startup_s=counts.startup_s,
        before=(_read_again(path, before) if show == 0 else before.profile) if before else None,
        group_size=max(tally.group_size for tally in counted) or None,
        steps=profiles,
        stages=sum_stages(counted),
        wall_s=wall_s,
        residual_s=residual_s,
        residual_share=residual_s / wall_s if wall_s else 0.0,
        incomplete=last.profile if last else None,
        incomplete_steps=tuple(sorted(broken)),
        samples=pool_samples(counted),
    )


@contextmanager
def _no_collector() -> Iterator[None]:
    """Spans are in no circle of references; to look for one among a million of them takes a sixth of all the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _unreadable(counts: Counts) -> str:
    return f" ({counts.unreadable} unreadable lines)" if counts.unreadable else ""


def _check_shown(path: Path, show: int | None, known: Sequence[Tally]) -> None:
    """Raises ConfigError where there is no step `show`."""
    numbers = {tally.profile.step for tally in known}
    if show is not None and show not in numbers:
        raise ConfigError(f"step {show} is not in {path}; choose one of {min(numbers)} to {max(numbers)}")


def _with_shown(path: Path, counted: Sequence[Tally], show: int | None) -> tuple[StepProfile, ...]:
    """The counted steps; the slowest, the median and step `show` with their spans, which are read once more."""
    steps = {tally.profile.step: tally for tally in counted}
    ordered = slowest_steps([tally.profile for tally in counted])
    wanted = {ordered[0].step, ordered[len(ordered) // 2].step, show}
    return tuple(_read_again(path, tally) if step in wanted else tally.profile for step, tally in steps.items())


def _read_again(path: Path, tally: Tally) -> StepProfile:
    known = tally.profile
    if known.spans:
        return known
    for step in read_steps(path, Counts(), tally.blocks):
        if (step.step, step.complete, step.start) == (known.step, known.complete, known.start):
            return tally_step(step, keep=True).profile
    return known  # the file was changed meanwhile


def _read_config(path: Path) -> Mapping[str, object]:
    try:
        config: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return config if isinstance(config, Mapping) else {}
