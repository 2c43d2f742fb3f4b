"""One HTML file that compares training runs: no script, no request to anywhere, readable on a phone and on paper.

Everything in a run folder is hostile data, because a policy wrote part of it. Two rules hold for every value that the
template prints, without the template having to remember them: control characters are made visible (`finalize`), then
HTML is escaped (`autoescape`). The content policy of the page forbids scripts and requests in case both should fail.
"""

import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from aem_swe.errors import RunError
from aem_swe.eval import critical_paths, tables, timings
from aem_swe.eval.comparison import Comparison, compare
from aem_swe.eval.forest import build_forest
from aem_swe.eval.panels import build_panels, missing_charts
from aem_swe.eval.plots import draw
from aem_swe.eval.profile.figure4 import AEM_ALONE
from aem_swe.eval.trajectories import pick_episode
from aem_swe.eval.visible import visible
from aem_swe.eval.wording import gain_claim, gain_sentence, seeds_text

NOT_RECORDED = "not recorded"
LONGEST_TEXT = 4_000
LONGEST_DIFF = 12_000
MOST_TURNS = 40
MOST_CHANGES = 20
_NOTHING_HIDDEN = re.compile(r"[\t\n\x20-\x7e]*+")


def write_report(runs: Sequence[Path], out: Path) -> Comparison:
    """Compare run folders and write the report to `out`, which appears whole or not at all.

    Raises ConfigError for a run given twice, RunError for a run that cannot be read or a file that cannot be written.
    """
    comparison = compare(runs)
    write_whole(out, render(comparison))
    return comparison


def render(comparison: Comparison) -> str:
    """The report as text; the same run folders give the same text."""
    arms = [outcome.arm for outcome in comparison.outcomes]
    panels = build_panels(comparison.outcomes)
    profiles = [critical_paths.profiles_of(arm) for arm in arms]
    template = page_environment().get_template("report.html.jinja")
    return template.render(
        comparison=comparison,
        arms=arms,
        forest=build_forest(comparison),
        gain_claim=gain_claim,
        gain_sentence=gain_sentence,
        seeds_text=seeds_text,
        pictures=[draw(panel) for panel in panels],
        missing_charts=missing_charts(panels),
        provenance=tables.provenance_rows(arms),
        success=tables.success_rows(comparison.outcomes),
        metrics=tables.metric_rows(arms),
        ledger=tables.ledger_rows(arms),
        paths=critical_paths.path_rows(profiles),
        figure4=critical_paths.figure4_rows(arms, profiles),
        aem_alone=AEM_ALONE,
        timings=timings.timing_rows(arms),
        episodes=[pick_episode(arm.runs[0]) for arm in arms],
        longest_text=LONGEST_TEXT,
        longest_diff=LONGEST_DIFF,
        most_turns=MOST_TURNS,
        most_changes=MOST_CHANGES,
    )


def page_environment() -> Environment:
    """For every page that we write: templates are named by their path in aem_swe/eval, and the two rules hold."""
    environment = Environment(
        loader=FunctionLoader(lambda name: resources.files(__package__).joinpath(name).read_text("utf-8")),
        autoescape=True, undefined=StrictUndefined, finalize=_printable, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["clip"] = _clip
    return environment


def _printable(value: object) -> object:
    """What the template prints for a value, before it is escaped."""
    if isinstance(value, Markup):  # the template's own macros
        return value
    return NOT_RECORDED if value is None else _clip(str(value))


def _clip(text: str, limit: int | None = None) -> str:
    """`visible`, at the speed of a scan for the megabytes in which there is nothing to show."""
    kept = text if limit is None else text[:limit]
    return kept if len(kept) == len(text) and _NOTHING_HIDDEN.fullmatch(text) else visible(text, limit)


def write_whole(out: Path, content: str | bytes, option: str = "--out") -> None:
    """Write through a temporary file in the same folder, so that a reader never sees half a report.

    option: by which the user named the file, for the RunError where it cannot be written.
    """
    if not out.name or (os.path.exists(out) and not os.path.isfile(out)):  # a device, say, which would be replaced
        raise RunError(f"{str(out)!r} cannot be written (it is no regular file); choose another {option}")
    target = Path(os.path.realpath(out))  # a link keeps pointing at what is written
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{str(out)!r} cannot be written ({error.strerror}); choose another {option}") from error
