"""Names of stages, tasks, tools and threads were written by others: on the page they are text, short and visible."""

from pathlib import Path
from typing import Any  # a JSON line holds anything

import pytest
from page_outline import outline
from profile_spans import Line, episode, one_step, run_lines, span, write_spans

from aem_swe.eval.profile.measured import measure_all
from aem_swe.eval.profile.page import write_page

ATTACK = (
    "</title></style><script>document.title='owned'</script><img src=x onerror=alert(1)>{{ 7*7 }}"
    "\x1b[31m\u202e\ud800'\""
)


def attacked(step: int, start: float) -> list[Line]:
    """Every field of a span that is text."""
    own: dict[str, Any] = {"thread": ATTACK, "process": ATTACK, "tool": ATTACK, ATTACK: ATTACK}
    lines = episode(ATTACK, span(f"tool/{ATTACK}", 0.0, 4.0, turn=1, **own), task=ATTACK)
    lines += episode("0/0", span(f"tool/{ATTACK}", 0.0, 3.0, turn=2, **own), task=f"\x1b[31m\u202e\ud800{ATTACK}")
    lines += [span("wait", 0.0, 5.0, waits_for=ATTACK, phase="rollout"), span(ATTACK, 5.0, 4.0, parent=ATTACK)]
    lines += [span("policy/decode", 9.0, 0.5, rows=ATTACK, tokens=ATTACK, turn=ATTACK, gpu_s=ATTACK, group_size=ATTACK)]
    return one_step(step, 10.0, *lines, start=start)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    runs = [tmp_path / f"<script>run{number}" for number in (1, 2)]
    for run in runs:
        write_spans(run, [*attacked(1, 0.0), *attacked(2, 10.0)])
        (run / "config.yaml").write_text(f"recipe: {ATTACK[:90]!r}\nengine: local\n")
    write_page(measure_all(runs), tmp_path / "page.html")
    return tmp_path / "page.html"


def test_markup_in_every_field_stays_text(page: Path) -> None:
    text, found = page.read_text(encoding="utf-8"), outline(page)
    assert "<script" not in text.lower() and "<img" not in text and text.count("</style>") == 1
    assert not found.tags & {"script", "img"} and found.handlers == [] and found.addresses == []
    assert "&lt;script&gt;document.title=" in text and "</title></style><script>" in found.text


def test_nothing_hidden_reaches_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not any(hidden in text for hidden in ("\x1b", "\u202e", "\ud800"))
    assert "\u241b[31m&lt;U+202E&gt;&lt;U+D800&gt;" in text  # of a task's name, which is drawn from its beginning


def test_names_without_end_make_no_page_without_end(tmp_path: Path) -> None:
    def size(name: str) -> int:
        lines = one_step(
            1, 60.0, *(span(f"{number}{name}", float(number), 0.5) for number in range(40)),
            *(line for number in range(40) for line in episode(f"{number}{name}", span("agent", 0.0, 9.0), task=name)),
        )  # fmt: skip
        write_page(measure_all([write_spans(tmp_path / "run", lines, recipe=name)]), tmp_path / "page.html")
        return (tmp_path / "page.html").stat().st_size

    assert size("x" * 50_000) < size("x") + 100_000


@pytest.mark.parametrize("value", [None, True, [], {"a": 1}, "x", -1, 1e999, 10**400, 2.5])
def test_values_of_any_kind_are_shown_or_left_out(tmp_path: Path, value: object) -> None:
    keys = (
        "turn",
        "tokens",
        "rows",
        "waits_for",
        "gpu_s",
        "gpu_peak_mb",
        "group_size",
        "tool",
        "latency",
        "background",
    )
    lines = [line | {key: value} for line in run_lines() for key in keys if line["stage"] != "step"]
    lines += [line for line in run_lines() if line["stage"] == "step"]
    write_page(measure_all([write_spans(tmp_path / "run", lines)]), tmp_path / "page.html")
    assert "wall time" in outline(tmp_path / "page.html").text
