"""What is shown while an evaluation runs."""

import io
import threading

import pytest
from rich.console import Console

from aem_swe.eval.swebench.live import LiveEvaluation, PlainProgress, duration, line, short
from aem_swe.eval.swebench.results import Result, Status

ATTACK = "[red]x[/red]\x1b]0;owned\x07\n\u202e"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def result(name: str, status: Status = Status.RESOLVED, **changes: object) -> Result:
    known: dict[str, object] = {"termination": "finished", "turns": 7, "prompt_tokens": 900, "completion_tokens": 100}
    return Result(name, status=status, **({"run": 1} | known | changes))  # type: ignore[arg-type]


def shown(live: LiveEvaluation) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(live.table())
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def evaluation(clock: Clock, **changes: object) -> LiveEvaluation:
    console = Console(file=io.StringIO(), force_terminal=True)
    return LiveEvaluation(console, **({"title": "model", "total": 10, "clock": clock} | changes))  # type: ignore[arg-type]


def test_a_line_says_what_became_of_an_instance() -> None:
    wrong = result("a__a-1", Status.ERROR, reason="the patch\ndoes not apply", seconds={"policy": 60.0, "tools": 2.4})
    assert line(wrong, 3, 10) == (
        "3/10  run 1  a__a-1  error  ended by finished  7 turns  1.0k tokens  62 s  (the patch␊does not apply)"
    )
    right = result("a__a-2", cost=1.234, attempts=2, reason="not shown where it is resolved")
    assert line(right, 4, 10) == (
        "4/10  run 1  a__a-2  resolved  ended by finished  7 turns  1.0k tokens  cost 1.23  attempt 2"
    )
    assert line(Result("b", 2, Status.EMPTY), 1, 1) == "1/1  run 2  b  empty"


def test_a_line_is_one_line_without_control_characters() -> None:
    text = line(result(ATTACK, Status.UNRESOLVED, termination=ATTACK, reason=ATTACK), 1, 1)
    assert text.isprintable() and "[red]x[/red]␛]0;owned␇␊<U+202E>" in text


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (1000, "1.0k"), (5_600_000, "5.6M")])
def test_counts_are_short(count: int, text: str) -> None:
    assert short(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m 00s"), (61, "1m 01s"), (7300, "2h 01m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_progress_counts_on_from_what_was_done() -> None:
    lines: list[str] = []
    with PlainProgress(lines.append, total=5, already=3) as progress:
        progress.started(1, "a")
        progress.turned(1, "a", 10, 10)
        progress.finished(result("a"))
        progress.finished(result("b"))
    assert [text.split()[0] for text in lines] == ["4/5", "5/5"]


def test_the_table_counts_by_status_and_by_ending() -> None:
    live = evaluation(Clock())
    for name, status, ending in (
        ("a", Status.RESOLVED, "finished"),
        ("b", Status.RESOLVED, "finished"),
        ("c", Status.UNRESOLVED, "max_steps"),
        ("d", Status.INFRASTRUCTURE, ""),
    ):
        live.finished(result(name, status, termination=ending))
    rows = [text.replace("│", " ").split() for text in shown(live).splitlines()]
    assert ["finished", "2", "2"] in rows
    assert ["max_steps", "1", "1"] in rows
    assert ["no", "episode", "1", "1"] in rows
    assert ["all", "2", "1", "0", "0", "1", "4"] in rows


def test_pace_counts_only_what_was_done_now() -> None:
    clock = Clock()
    live = evaluation(clock, total=10, already=4)
    assert "left" not in shown(live)
    clock.now += 120.0
    live.finished(result("a"))
    live.finished(result("b"))
    text = shown(live)  # 2 in 2 minutes, 4 of 10 are left
    assert "6/10 done" in text and "1.0 instances/min  about 4m 00s left" in text and "4 were done before" in text


def test_a_result_replaces_what_its_running_episode_had_counted() -> None:
    clock = Clock()
    live = evaluation(clock)
    live.started(1, "a")
    live.turned(1, "a", 5_000, 300)
    live.turned(1, "a", 7_000, 200)
    clock.now += 30.0
    text = shown(live)
    assert "tokens 12.0k in, 500 out" in text
    assert ["a", "1", "2", "12.5k", "30s"] in [row.replace("│", " ").split() for row in text.splitlines()]
    live.started(1, "a")  # a second attempt
    assert "tokens 0 in, 0 out" in shown(live)
    live.finished(result("a", prompt_tokens=20_000, completion_tokens=1_000, lost_tokens=2_000, cost=0.5))
    text = shown(live)
    assert "tokens 20.0k in, 1.0k out, 2.0k lost  cost 0.50" in text and "running" not in text


def test_more_running_than_fit_are_counted() -> None:
    clock = Clock()
    live = evaluation(clock, total=100)
    for index in range(20):
        live.started(1, f"one-{index:02d}")
        clock.now += 1.0
    text = shown(live)
    assert "one-00" in text and "one-19" not in text and "and 12 more" in text


def test_hostile_names_are_text() -> None:
    live = evaluation(Clock(), title=ATTACK)
    live.started(1, ATTACK)
    live.finished(result("b", termination=ATTACK))
    text = shown(live)
    assert text.count("[red]x[/red]␛]0;owned␇␊<U+202E>") == 3
    assert all(row.isprintable() for row in text.splitlines())


def test_many_threads_lose_no_event() -> None:
    live = evaluation(Clock(), total=800)

    def work(run: int) -> None:
        for index in range(100):
            name = f"{run}-{index}"
            live.started(run, name)
            live.turned(run, name, 1, 1)
            live.finished(result(name, run=run))
            live.table()

    threads = [threading.Thread(target=work, args=(run,)) for run in range(8)]
    with live:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "800/800 done" in shown(live) and "running" not in shown(live)
