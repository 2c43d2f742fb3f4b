"""Seconds, shares and names as a profile's page and its advice write them."""

from aem_swe.eval.profile.path import NOT_ATTRIBUTED
from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.profile.spans import EVALUATION
from aem_swe.eval.visible import visible_line
from aem_swe.eval.wording import counted

UNEXPLAINED = f"what is {NOT_ATTRIBUTED}"
TINY = "< 1 µs"
"""Less than what a line of spans.jsonl resolves."""
LONGEST_NAME = 60
MOST_NAMED = 3
WORTH_NAMING = 0.05
"""Of the wall time: a headline names the largest stage, and others from this share on."""


def seconds_text(seconds: float) -> str:
    """Three digits that count, in the unit that suits: 2.35 s, 582 ms, 14.0 µs."""
    if seconds == 0.0:
        return "0"
    if seconds < 0.0:
        return f"\N{MINUS SIGN}{seconds_text(-seconds)}"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size:
            return f"{_digits(seconds / size)} {unit}"
    return TINY


def seconds_cell(seconds: float) -> str:
    """The same for a column whose head says that it is seconds: all of it in seconds, never with an exponent."""
    if seconds >= 0.9995 or seconds == 0.0:
        return _digits(seconds) if seconds else "0"
    return "<0.0001" if seconds < 0.0001 else f"{seconds:.{3 if seconds >= 0.09995 else 4}f}"


def signed_text(seconds: float) -> str:
    """A difference: with its sign, as far as it can be told."""
    text = seconds_text(abs(seconds))
    if text in ("0", TINY):
        return text
    return f"+{text}" if seconds > 0.0 else f"\N{MINUS SIGN}{text}"


def share_text(share: float) -> str:
    """12.3%; a share that is not 0 is never written as 0."""
    return "< 0.1%" if 0.0 < share < 0.0005 else f"{share:.1%}"


def _digits(value: float) -> str:
    places = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{places}f}"


def short_name(name: str, limit: int = LONGEST_NAME) -> str:
    """A name that a run gave, on one line and not longer than what a table can hold."""
    return visible_line(name if len(name) <= limit else name[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}", limit)


def headline(profile: Profile) -> str:
    """How long a step takes, and for what it waits most."""
    steps = profile.steps
    step_s = profile.wall_s / len(steps)
    size = "The one step" if len(steps) == 1 else f"A step of {short_name(profile.name)}"
    verb = "took" if len(steps) == 1 else "takes"
    shares = {short_name(one.stage): one.share for one in profile.stages.values()}
    shares[UNEXPLAINED] = profile.residual_share
    ordered = sorted(shares.items(), key=lambda item: -item[1])[:MOST_NAMED]
    named = [
        f"{name} ({share_text(share)})"
        for place, (name, share) in enumerate(ordered)
        if share >= WORTH_NAMING or (place == 0 and share > 0.0)
    ]
    said = f"{size} {verb} {seconds_text(step_s)}"
    if named:
        waits = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
        said += f", most of it for {waits}"
    evaluations = [step.path_s[EVALUATION] for step in steps if step.path_s.get(EVALUATION)]
    if evaluations and steps[0].step != 0:
        which = (
            "its evaluation" if len(steps) == 1 else f"evaluation, which {len(evaluations)} of {len(steps)} steps had"
        )
        said += f"; without {which}, {seconds_text(step_s - sum(evaluations) / len(steps))}"
    return said


def size_sentence(profile: Profile) -> str:
    """What the figures are of."""
    steps = profile.steps
    if not any(step.complete for step in steps):
        return "No step of this run is complete: all figures are of its last step, as far as it was recorded."
    if steps[0].step == 0:
        return "This run has no training step: all figures are of its evaluation before training."
    numbers = f"step {steps[0].step}" if len(steps) == 1 else f"steps {steps[0].step} to {steps[-1].step}"
    return f"Of {counted(len(steps), 'complete step')} ({numbers}), {seconds_text(profile.wall_s)} together."


def notes(profile: Profile) -> list[str]:
    """What was recorded and is in no figure."""
    said = []
    last = profile.incomplete
    if last is not None and all(last is not step for step in profile.steps):
        said.append(
            f"Step {last.step} was not completed and is in no figure; {seconds_text(last.wall_s)} of it were recorded."
        )
    if last is not None and len(profile.incomplete_steps) > 1:
        said.append(f"{counted(len(profile.incomplete_steps) - 1, 'earlier step')} not completed either.")
    if profile.unreadable_lines:
        said.append(f"{counted(profile.unreadable_lines, 'unreadable line')} of spans.jsonl skipped.")
    if profile.late_spans:
        spans = counted(profile.late_spans, "span")
        said.append(f"{spans} after the step's end, or of an attempt that was killed: in no figure.")
    if profile.outside_spans:
        said.append(f"{counted(profile.outside_spans, 'span')} outside of any step: in no figure.")
    if profile.startup_s is not None:
        said.append(f"Startup took {seconds_text(profile.startup_s)}, before the first step: in no figure.")
    if profile.before_s is not None and profile.steps[0].step != 0:
        said.append(f"The evaluation before training took {seconds_text(profile.before_s)}: in no figure.")
    return said
