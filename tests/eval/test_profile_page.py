"""The page about a profile: its figures are the profile's, it says what it leaves out, and how large it becomes."""

import random
import re
from pathlib import Path

import pytest
from page_outline import outline
from profile_page_parts import ROUNDING, read, seconds_of
from profile_spans import Line, episode, one_step, run_lines, span, training_step, write_spans

from aem_swe.errors import RunError
from aem_swe.eval.profile.advice import advise
from aem_swe.eval.profile.difference import compare_profiles
from aem_swe.eval.profile.families import FAMILIES, family_of, mean_families
from aem_swe.eval.profile.figure4 import AEM_ALONE, measure_figure4
from aem_swe.eval.profile.growth import measure_growth
from aem_swe.eval.profile.measured import measure_all
from aem_swe.eval.profile.page import MOST_STAGES, MOST_STRAGGLERS, write_page
from aem_swe.eval.profile.profile import Profile, load_profile
from aem_swe.eval.profile.waterfall import MOST_BARS, WIDTH, Piece, merge
from aem_swe.eval.profile.wording import headline, seconds_text, share_text, signed_text


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Three steps of 20, 22 and 21 s."""
    return load_profile(write_spans(tmp_path / "run", run_lines()))


def page_of(folder: Path, *profiles: Profile) -> Path:
    write_page(measure_all([profile.folder for profile in profiles]), folder / "page.html")
    return folder / "page.html"


def test_the_page_is_whole_and_asks_nothing(tmp_path: Path, profile: Profile) -> None:
    page = outline(page_of(tmp_path, profile))
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "link", "base", "img", "a"}
    assert page.addresses == [] and page.handlers == []
    text = (tmp_path / "page.html").read_text()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r"url\(|@import|expression\(", text[text.index("<style>") : text.index("</style>")])


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, profile: Profile) -> None:
    first = page_of(tmp_path, profile).read_bytes()
    assert page_of(tmp_path, load_profile(profile.folder)).read_bytes() == first


def test_every_number_of_the_stage_table_is_the_profiles(tmp_path: Path, profile: Profile) -> None:
    head, *rows = read(page_of(tmp_path, profile)).tables[0]
    assert head[:2] == ["stage", "share of the step"]
    assert [row[0] for row in rows] == [*profile.stages, "not attributed", "wall time"]
    for row, stage in zip(rows, profile.stages.values(), strict=False):
        assert row[1] == share_text(stage.share) and row[4] == f"{stage.count:,}"
        shown = [seconds_of(row[column]) for column in (2, 3, *((5, 6, 7, 8) if stage.count else ()))]
        known = [stage.path_s, stage.work_s, *((stage.p50, stage.p95, stage.p99, stage.max) if stage.count else ())]
        assert shown == pytest.approx(known, rel=ROUNDING)
    assert seconds_of(rows[-2][2]) == pytest.approx(profile.residual_s / 3, rel=ROUNDING)
    assert seconds_of(rows[-1][2]) == pytest.approx(21.0) and rows[-2][1] == share_text(profile.residual_share)


def test_the_rows_of_the_path_sum_to_the_wall_time(tmp_path: Path, profile: Profile) -> None:
    *rows, wall = read(page_of(tmp_path, profile)).tables[0][1:]
    assert sum(seconds_of(row[2]) for row in rows) == pytest.approx(seconds_of(wall[2]), rel=ROUNDING)


def test_the_headline_names_what_a_step_waits_for_most(tmp_path: Path, profile: Profile) -> None:
    largest = max(profile.stages.values(), key=lambda stage: stage.share)
    page = outline(page_of(tmp_path, profile))
    assert f"A step of run takes 21.0 s, most of it for {largest.stage} ({share_text(largest.share)})" in page.text
    assert "Of 3 complete steps (steps 1 to 3), 63.0 s together." in page.text
    for family, seconds in mean_families(profile).items():
        if seconds:
            assert f"{FAMILIES[family]} {share_text(seconds / 21.0)} {seconds_text(seconds)}" in page.text


def test_the_critical_path_of_a_waterfall_tiles_the_step(tmp_path: Path, profile: Profile) -> None:
    lanes = read(page_of(tmp_path, profile)).lanes
    paths = [bars for name, bars in lanes if name == "critical path"]
    for bars, step in zip(paths, (profile.slowest, profile.median), strict=True):
        assert [bar.left for bar in bars] == [0, *(bar.left + bar.width for bar in bars[:-1])]
        assert bars[-1].left + bars[-1].width == WIDTH
        seconds = [seconds_of(bar.title.split(" · ")[-1]) for bar in bars]
        assert seconds == pytest.approx([segment.seconds for segment in step.segments], rel=ROUNDING)
        names = [segment.stage or "not attributed" for segment in step.segments]
        assert [bar.title.split(" · ")[0] for bar in bars] == names


def test_an_episode_is_a_lane_and_the_last_to_end_is_the_last(tmp_path: Path, profile: Profile) -> None:
    names = [name for name, _ in read(page_of(tmp_path, profile)).lanes]
    assert names == ["critical path", "the step's thread", "0/0", "0/1", "1/0", "1/1"] * 2
    titles = [bar.title for bar in dict(read(tmp_path / "page.html").lanes)["1/1"]]
    assert "tool/bash · demo-1 · turn 0 · 5.00 s" in titles  # of the median step, drawn last
    thread = [bar.title for bar in dict(read(tmp_path / "page.html").lanes)["the step's thread"]]
    assert thread[0] == "wait · for 1/1 · 11.0 s"


def test_the_stragglers_the_growth_and_the_advice_are_the_profiles(tmp_path: Path, profile: Profile) -> None:
    growth = measure_growth(profile)
    page, found = outline(page_of(tmp_path, profile)), read(tmp_path / "page.html")
    late = found.tables[1][1:]
    for row, step in zip(late, profile.steps, strict=True):
        one = step.straggler
        assert one is not None and row[:3] == [str(step.step), one.episode, one.task]
        assert row[3:6] == [seconds_text(value) for value in (one.seconds, one.median_s, one.tail_s)]
        assert row[6] == f"{one.stage} in turn {one.turn}, {seconds_text(one.stage_s)}"
    assert set(growth.turns) == {"policy/decode", "tool"}  # of which every tool ran in the same turn: nothing to draw
    for turns in growth.turns.values():
        for turn in turns if len(turns) > 1 else ():
            assert f"turn {turn.turn}, n = {turn.count:,}: {seconds_text(turn.p50)}" in found.titles
    for slowest in growth.slowest:
        what = f"the slowest of {slowest.episodes} of the step's, mean over all choices"
        assert f"{what}: {seconds_text(slowest.seconds)}" in found.titles
    for advice in advise(profile, growth):
        assert f"{advice.rule} {advice.says} {advice.figure}" in page.text


def test_figure_4_stands_beside_the_papers_and_says_where_that_is_from(tmp_path: Path, profile: Profile) -> None:
    text = outline(page_of(tmp_path, profile)).text
    for row in measure_figure4(profile).rows:
        assert row.share is not None
        said = (
            f"{row.stage} paper {share_text(row.paper_share)} here {share_text(row.share)} {seconds_text(row.seconds)}"
        )
        assert said in text
    assert AEM_ALONE in text
    assert "arXiv 2605.00425, Figure 4 (ALFWorld, 1.5B)" in text and "3 steps of this run" in text


def test_a_column_is_a_step_and_its_parts_are_its_path(tmp_path: Path, profile: Profile) -> None:
    columns = read(page_of(tmp_path, profile)).columns[:3]
    for column, step in zip(columns, profile.steps, strict=True):
        seconds = dict.fromkeys(FAMILIES, 0.0)
        for stage, value in step.path_s.items():
            seconds[family_of(stage)] += value
        seconds["residual"] += step.residual_s
        known = [(family, value) for family, value in seconds.items() if value]
        titles = [f"step {step.step}: {FAMILIES[family]}, {seconds_text(value)}" for family, value in known]
        assert [title for title, _ in column] == titles
        assert [height for _, height in column] == pytest.approx([100 * value / 22 for _, value in known], abs=0.001)


def test_two_runs_stand_beside_each_other_with_their_difference(tmp_path: Path, profile: Profile) -> None:
    other = load_profile(write_spans(tmp_path / "other", run_lines((8.0, 9.0, 10.0))))
    page, found = outline(page_of(tmp_path, profile, other)), read(tmp_path / "page.html")
    rows = found.tables[0][1:]
    for row, known in zip(rows, compare_profiles(profile, other), strict=True):
        assert known.low is not None and known.high is not None
        assert row[0] == known.stage and row[3] == signed_text(known.difference_s)
        shares = [share and f" {share_text(share)}" for share in (known.first_share, known.second_share)]
        assert row[1] == seconds_text(known.first_s) + (shares[0] or "")
        assert row[2] == seconds_text(known.second_s) + (shares[1] or "")
        assert row[4] == f"{signed_text(known.low)} to {signed_text(known.high)}"
    assert "A step of other takes 8.00 s longer than one of run: 21.0 s to 29.0 s, 95% interval" in page.text
    assert "Stages: run" in page.text and "Stages: other" in page.text


def test_two_runs_of_one_name_are_told_apart_and_one_step_has_no_interval(tmp_path: Path) -> None:
    made = [
        load_profile(write_spans(tmp_path / part / "run", run_lines((slow,)))) for part, slow in (("a", 4), ("b", 0))
    ]
    text = outline(page_of(tmp_path, *made)).text
    assert "A step of run (second) takes 4.00 s shorter than one of run (first): 24.0 s to 20.0 s" in text
    assert "with fewer than two steps on a side there is no interval" in text and "needs two steps" in text


def test_equal_runs_do_not_detectably_differ(tmp_path: Path, profile: Profile) -> None:
    other = load_profile(write_spans(tmp_path / "other", run_lines((1.0, 2.0, 0.0))))
    assert "Steps of run and other do not detectably differ" in outline(page_of(tmp_path, profile, other)).text


def test_a_run_of_one_step_is_drawn_once(tmp_path: Path) -> None:
    profile = load_profile(write_spans(tmp_path / "run", training_step(1)))
    page = outline(page_of(tmp_path, profile))
    assert "The one step took 20.0 s" in page.text and page.text.count("The step, 1: 20.0 s") == 1
    assert len(read(tmp_path / "page.html").lanes) == 6


def test_a_run_without_episodes_says_less(tmp_path: Path) -> None:
    lines = one_step(1, 10.0, span("batch", 0.0, 9.0), span("agent", 9.0, 1.0))
    page = outline(page_of(tmp_path, load_profile(write_spans(tmp_path / "run", lines))))
    assert "Nothing stands out" in page.text and "here not recorded" in page.text
    for absent in ("Who the steps waited for last", "How stages grow", "episodes ", "tokens sampled"):
        assert absent not in page.text


def test_a_run_that_was_killed_in_its_first_step_has_a_page(tmp_path: Path) -> None:
    lines = one_step(1, 10.0, *episode("0/0", span("tool/bash", 0.0, 4.0)), span("batch", 4.0, 4.0), ended=False)
    page = outline(page_of(tmp_path, load_profile(write_spans(tmp_path / "run", lines))))
    assert "No step of this run is complete" in page.text and "The step, 1: 8.00 s" in page.text


def test_what_was_recorded_and_counts_in_no_figure_is_said(tmp_path: Path) -> None:
    lines: list[Line | str] = [span("startup", 0.0, 3.0), "{", *run_lines(), "null", span("agent", 0.0, 1.0)]
    lines += one_step(4, 5.0, span("batch", 0.0, 5.0), start=100.0, ended=False)
    page = outline(page_of(tmp_path, load_profile(write_spans(tmp_path / "run", lines))))
    for said in (
        "2 unreadable lines of spans.jsonl skipped.",
        "Step 4 was not completed and is in no figure; 5.00 s of it were recorded.",
        "The step that was not completed, 4: 5.00 s",
        "Startup took 3.00 s",
        "1 span outside of any step",
    ):
        assert said in page.text


def evaluated(*walls: float) -> list[Line]:
    """The first step waits 30 s for an evaluation, and all for 1 s for a checkpoint; the walls are without these."""
    lines: list[Line] = []
    for number, wall in enumerate(walls, 1):
        long = [span("evaluation", wall, 30.0, phase="evaluation")] * (number == 1)
        inside = (span("batch", 0.0, wall), *long, span("checkpoint", wall + 30.0 * len(long), 1.0))
        lines += one_step(number, wall + 30.0 * len(long) + 1.0, *inside, start=100.0 * number)
    return lines


def test_the_headline_says_what_a_step_takes_without_its_evaluation(tmp_path: Path) -> None:
    folder = write_spans(tmp_path / "run", evaluated(9.0, 9.0, 9.0))
    said = "A step of run takes 20.0 s, most of it for evaluation (50.0%), batch (45.0%) and checkpoint (5.0%);"
    assert headline(load_profile(folder)) == f"{said} without evaluation, which 1 of 3 steps had, 10.0 s"


def test_two_runs_are_compared_without_what_only_some_steps_have_too(tmp_path: Path) -> None:
    runs = [write_spans(tmp_path / "a", evaluated(9.0, 9.0, 9.0)), write_spans(tmp_path / "b", evaluated(14.0, 14.0))]
    write_page(measure_all(runs), tmp_path / "page.html")
    said = "A step of b, evaluation and checkpoint left out, takes 5.00 s longer than one of a: 9.00 s to 14.0 s"
    assert said in outline(tmp_path / "page.html").text
    rows = [row[:4] for row in read(tmp_path / "page.html").tables[0][1:]]
    assert rows == [
        ["batch", "9.00 s 100.0%", "14.0 s 100.0%", "+5.00 s"], ["not attributed", "0 0.0%", "0 0.0%", "0"],
        ["wall less evaluation and checkpoint", "9.00 s 100.0%", "14.0 s 100.0%", "+5.00 s"],
        ["checkpoint", "1.00 s", "1.00 s", "0"], ["evaluation", "10.0 s", "15.0 s", "+5.00 s"],
        ["wall", "20.0 s", "30.0 s", "+10.0 s"],
    ]  # fmt: skip


def test_the_evaluation_before_training_is_drawn_where_it_is_asked_for(tmp_path: Path) -> None:
    before = one_step(0, 7.0, span("evaluation", 0.5, 6.0, phase="evaluation"), start=-10.0)
    folder = write_spans(tmp_path / "run", [*before, *training_step(1)])
    write_page(measure_all([folder], 0), tmp_path / "page.html")
    assert "The evaluation before training, step, 0: 7.00 s" in outline(tmp_path / "page.html").text


def test_a_long_evaluation_is_left_out_of_the_picture_and_said(tmp_path: Path) -> None:
    lines = one_step(1, 100.0, span("batch", 0.0, 20.0), span("evaluation", 20.0, 79.5), span("record", 99.5, 0.5))
    page = page_of(tmp_path, load_profile(write_spans(tmp_path / "run", lines)))
    ((_, path), (_, thread)) = read(page).lanes
    assert [(bar.left, bar.width) for bar in path] == [(0, WIDTH)] == [(bar.left, bar.width) for bar in thread]
    said = "Drawn until its evaluation, which took 79.5 s; the 500 ms of what else came then are not drawn."
    assert said in outline(page).text


def test_three_hundred_steps_fit_into_a_hundred_columns(tmp_path: Path) -> None:
    profile = load_profile(write_spans(tmp_path / "run", run_lines([0.01 * step for step in range(300)])))
    page = page_of(tmp_path, profile)
    found = read(page)
    assert "A column is the mean of 3 steps." in outline(page).text
    steps = [column for column in found.columns if column[0][0].startswith("steps ")]
    assert len(steps) == 100 and steps[-1][0][0].startswith("steps 298 to 300: ")
    assert len(found.tables[1][1:]) == MOST_STRAGGLERS
    assert f"the 20 longest, {300 - MOST_STRAGGLERS} more are not shown" in outline(page).text
    assert page.stat().st_size < 300_000


def crowded_step() -> list[Line]:
    """64 episodes of 50 turns of 6 spans, as in the paper's runs."""
    draw, lines = random.Random(1), []
    stages = ("policy/queue", "policy/prefill", "policy/decode", "agent", "sandbox/queue", "tool/bash")
    for number in range(64):
        now, spans = 0.0, []
        for turn in range(50):
            for stage in stages:
                seconds = draw.expovariate(1.0 if stage == "tool/bash" else 3.0)
                spans.append(span(stage, now, seconds, turn=turn, tool="bash"))
                now += seconds
        lines += episode(f"{number // 8}/{number % 8}", *spans, task="django__django-12345")
    return one_step(1, 200.0, *lines, span("wait", 0.0, 190.0, waits_for="0/0", phase="rollout"))


def test_a_crowded_step_stays_readable_and_the_page_says_what_it_drew_together(tmp_path: Path) -> None:
    page = page_of(tmp_path, load_profile(write_spans(tmp_path / "run", crowded_step())))
    bars = sum(len(bars) for _, bars in read(page).lanes)
    assert MOST_BARS / 3 < bars <= MOST_BARS and page.stat().st_size < 2_000_000
    assert re.search(r"[\d,]+ stretches shorter than [\d.]+ m?s are drawn together", outline(page).text)


def test_more_episodes_than_lanes_are_counted(tmp_path: Path) -> None:
    lines = [line for n in range(70) for line in episode(f"0/{n}", span("tool/bash", 0.0, 1.0 + n))]
    page = page_of(tmp_path, load_profile(write_spans(tmp_path / "run", one_step(1, 80.0, *lines))))
    names = [name for name, _ in read(page).lanes]
    assert "0/69" in names and "0/6" in names and "0/5" not in names
    assert "6 episodes that ended earlier not drawn." in outline(page).text


def test_more_stages_than_rows_are_summed_up(tmp_path: Path) -> None:
    lines = one_step(1, 1000.0, *(span(f"own/{n:03d}", 10.0 * n, 1.0 + 0.01 * n) for n in range(90)))
    profile = load_profile(write_spans(tmp_path / "run", lines))
    *rows, more, residual, _ = read(page_of(tmp_path, profile)).tables[0][1:]
    left_out = sum(1.0 + 0.01 * n for n in range(90 - MOST_STAGES))
    assert len(rows) == MOST_STAGES and more[0] == "30 more stages together"
    assert seconds_of(more[2]) == pytest.approx(left_out, rel=ROUNDING)
    assert sum(seconds_of(row[2]) for row in (*rows, more, residual)) == pytest.approx(1000.0, rel=ROUNDING)


def test_merging_keeps_all_time_and_the_colour_of_what_took_longest() -> None:
    lane = [Piece(0.0, 5.0, "a", None), Piece(5.0, 5.4, "b", None), Piece(5.4, 5.7, None, None)]
    lane += [Piece(5.7, 6.5, "c", None), Piece(6.5, 9.0, "a", None), Piece(9.0, 9.5, "d", None)]
    merged = merge(lane, 1.0)
    assert [(one.begin, one.end, one.stage, one.merged) for one in merged] == [
        (0.0, 5.0, "a", 1), (5.0, 6.5, "c", 2), (6.5, 9.0, "a", 1), (9.0, 9.5, "d", 1),
    ]  # fmt: skip
    assert merge([], 1.0) == [] and merge(lane, 0.0) == lane


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0"), (2e-7, "< 1 µs"), (1e-6, "1.00 µs"), (0.00014, "140 µs"), (0.0009999, "1.00 ms"), (0.582, "582 ms"),
        (0.9994, "999 ms"), (0.99996, "1.00 s"), (9.996, "10.0 s"), (99.96, "100 s"), (12345.6, "12,346 s"),
        (-0.5, "\N{MINUS SIGN}500 ms"),
    ],
)  # fmt: skip
def test_seconds_have_three_digits_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_page_that_cannot_be_written_is_one_clear_line(tmp_path: Path, profile: Profile) -> None:
    with pytest.raises(RunError, match=r"cannot be written .*; choose another --html"):
        write_page(measure_all([profile.folder]), tmp_path)
