"""Official grading with real containers: the official command's own verdicts, and what may go wrong around them."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import environment
from grading_scene import (
    BROKEN,
    NO_DAEMON,
    NOTHING,
    PASSING_CONFTEST,
    children,
    containers,
    demo_rows,
    in_process,
    lives,
    new_file,
    no_rows,
    prints_and_exits,
    write_predictions,
    write_rows,
)

from aem_swe.eval.swebench.harness import OfficialGrader
from aem_swe.eval.swebench.results import Status, load_evaluation

pytest.importorskip("swebench", reason="needs swebench: pip install 'aem-swe[swebench]'")
pytestmark = [
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the SDK leaves
]
Row = dict[str, Any]
Open = Callable[..., OfficialGrader]
FIRST = "boltons__boltons-1"


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    if reason := no_rows():
        pytest.skip(reason)
    return demo_rows()


@pytest.fixture
def grader(tmp_path: Path, rows: dict[str, Row]) -> Iterator[Open]:
    """grader(rows, timeout_s=5, ...) -> entered, with its files in tmp_path/run_1."""
    with contextlib.ExitStack() as resources:

        def begin(graded: dict[str, Row] = rows, **changes: Any) -> OfficialGrader:
            settings = {"model": "org/m", "run_id": "r", "workers": 2, "timeout_s": 60.0, "cache": tmp_path / "grades"}
            return resources.enter_context(OfficialGrader(tmp_path / "run_1", graded, **{**settings, **changes}))

        yield begin
    gc.collect()  # here, where the sockets that the SDK leaves are no error
    assert containers(f"grade {tmp_path}") == []


def scripted(row: Row, command: str) -> dict[str, Row]:
    """The instance with another command between its marks."""
    lines = row["eval_script"].split("\n")
    place = lines.index(": '>>>>> Start Test Output'")
    return {row["instance_id"]: {**row, "eval_script": "\n".join([*lines[: place + 1], command, *lines[place + 1 :]])}}


def wait_for(ready: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


# --- the same as the official command ---


def patches_of_every_kind(rows: dict[str, Row]) -> dict[str, str]:
    kinds = ["", BROKEN, NOTHING, PASSING_CONFTEST, NO_DAEMON]
    names = list(rows)
    hostile = {names[-1]: prints_and_exits(rows[names[-1]])}
    return {names[0]: rows[names[0]]["patch"], **dict(zip(names[1:-1], kinds, strict=True)), **hostile}


def test_verdicts_and_summary_are_those_of_the_official_command(
    tmp_path: Path, rows: dict[str, Row], grader: Open
) -> None:
    patches = patches_of_every_kind(rows)
    dataset = write_rows(tmp_path / "rows.jsonl", list(rows.values()))
    predictions = write_predictions(tmp_path / "preds.jsonl", patches)
    command = [sys.executable, "-m", "swebench.harness.run_evaluation", "-d", str(dataset), "-p", str(predictions)]
    command += ["-id", "r", "--max_workers", "3", "--timeout", "60", "--report_dir", "."]
    (tmp_path / "official").mkdir()
    subprocess.run(command, cwd=tmp_path / "official", env=environment(), check=True, capture_output=True, timeout=400)
    mine = grader()
    verdicts = {name: mine.grade(name, patch) for name, patch in patches.items()}
    statuses = [verdicts[name].result().status for name in patches]
    assert statuses == [
        Status.RESOLVED, Status.EMPTY, Status.ERROR, Status.UNRESOLVED, Status.RESOLVED, Status.UNRESOLVED,
        Status.RESOLVED,
    ]  # fmt: skip
    file = mine.write_report(patches)
    assert file == tmp_path / "run_1/org__m.r.json"
    summaries = [json.loads(path.read_text()) for path in (file, tmp_path / "official/org__m.r.json")]
    for summary in summaries:  # the official command counts every container on the engine with an r in its name
        del summary["unstopped_instances"], summary["unstopped_containers"]
    assert summaries[0] == summaries[1]
    logs = "logs/run_evaluation/r/org__m"
    theirs = {str(path.relative_to(tmp_path / "official")) for path in (tmp_path / "official" / logs).rglob("*.*")}
    ours = {str(path.relative_to(tmp_path / "run_1")) for path in (tmp_path / "run_1" / logs).rglob("*.*")}
    assert ours == theirs and len(theirs) > 15
    for name in patches:
        report = Path(logs, name, "report.json")
        if (tmp_path / "official" / report).exists():
            assert (tmp_path / "run_1" / report).read_bytes() == (tmp_path / "official" / report).read_bytes()


def test_a_patch_that_prints_what_a_broken_machine_prints_stays_unresolved(rows: dict[str, Row], grader: Open) -> None:
    verdict = grader().grade(FIRST, NO_DAEMON).result()
    assert (verdict.status, verdict.note) == (Status.UNRESOLVED, "container_unavailable")


# --- never twice, never somebody else's ---


def test_a_known_patch_is_not_graded_again_and_another_one_is(
    tmp_path: Path, rows: dict[str, Row], grader: Open
) -> None:
    first = grader()
    gold = rows[FIRST]["patch"]
    assert not first.grade(FIRST, gold).result().cached
    other = first.grade(FIRST, NOTHING).result()  # the harness alone would give it the report of the first
    assert (other.status, other.cached) == (Status.UNRESOLVED, False)
    again = first.grade(FIRST, gold).result()
    assert (again.status, again.cached, again.attempts) == (Status.RESOLVED, True, 0)
    first.close()
    second = grader(run_id="another", model="n")
    assert second.grade(FIRST, gold).result().cached and second.process.pid is None
    second.write_report({FIRST: gold})
    assert json.loads((tmp_path / "run_1/n.another.json").read_text())["resolved_ids"] == [FIRST]
    assert not grader(memory_mb=512).grade(FIRST, NOTHING).result().cached


def test_a_report_that_lies_in_the_way_is_not_believed(tmp_path: Path, rows: dict[str, Row], grader: Open) -> None:
    place = tmp_path / "run_1/logs/run_evaluation/r/org__m" / FIRST
    place.mkdir(parents=True)
    (place / "report.json").write_text(json.dumps({FIRST: {"resolved": True}}))
    assert grader().grade(FIRST, NOTHING).result().status is Status.UNRESOLVED


# --- limits ---


def test_containers_have_no_way_out_and_limits(tmp_path: Path, rows: dict[str, Row], grader: Open) -> None:
    look = "ls /sys/class/net; echo m $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes)"
    look += " p $(cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max)"
    log = tmp_path / "run_1/logs/run_evaluation/r/org__m" / FIRST / "test_output.txt"
    for network, seen in (("none", {"lo"}), ("bridge", {"lo", "eth0"})):
        made = grader(scripted(rows[FIRST], look), network=network, memory_mb=300)
        assert made.grade(FIRST, rows[FIRST]["patch"]).result().status is Status.RESOLVED
        lines = log.read_text().splitlines()
        assert seen == {"lo", "eth0"}.intersection(lines)
        assert f"m {300 << 20} p 4096" in lines
        made.close()


def test_tests_that_reach_their_limit_are_tried_once_more_and_are_then_an_error(
    rows: dict[str, Row], grader: Open
) -> None:
    verdict = grader(scripted(rows[FIRST], "sleep 60"), timeout_s=3.0).grade(FIRST, NOTHING).result()
    assert (verdict.status, verdict.reason) == (Status.ERROR, "the tests reached their time limit")
    assert verdict.attempts == 2


def test_endless_output_ends_the_log_and_not_the_harness(rows: dict[str, Row], grader: Open) -> None:
    made = grader(scripted(rows[FIRST], "yes 'PASSED x' | head -c 200000000"), timeout_s=60.0)
    verdict = made.grade(FIRST, rows[FIRST]["patch"]).result()
    assert (verdict.status, verdict.attempts) == (Status.UNRESOLVED, 1)


CROWD = """import os, threading, time
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 100)
    try:
        while True:
            threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
    except RuntimeError:
        pass
    time.sleep(300)
time.sleep(4)
"""


def test_a_patch_that_leaves_no_process_to_start_is_not_excluded(rows: dict[str, Row], grader: Open) -> None:
    verdict = grader(retries=1).grade(FIRST, new_file("conftest.py", CROWD)).result()
    assert verdict.status in (Status.ERROR, Status.UNRESOLVED), verdict


# --- the machine fails ---


def test_a_missing_image_and_a_dead_engine_are_infrastructure_and_are_not_kept(
    tmp_path: Path, rows: dict[str, Row], grader: Open
) -> None:
    missing = {FIRST: {**rows[FIRST], "image": "nobody/has:this"}}
    verdict = grader(missing, retries=0).grade(FIRST, NOTHING).result()
    assert verdict.status is Status.INFRASTRUCTURE and "'nobody/has:this' is on no engine" in verdict.reason
    dead = grader(engines=[f"unix://{tmp_path}/none.sock"], retries=0).grade(FIRST, NOTHING).result()
    assert dead.status is Status.INFRASTRUCTURE and "cannot be reached" in dead.reason
    assert not (tmp_path / "grades").exists()


def test_an_engine_that_is_away_is_left_out(tmp_path: Path, rows: dict[str, Row], grader: Open) -> None:
    here = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    made = grader(engines=[f"unix://{tmp_path}/none.sock", here])
    assert made.grade(FIRST, rows[FIRST]["patch"]).result().status is Status.RESOLVED


def test_a_killed_harness_is_started_again_and_costs_no_verdict(
    tmp_path: Path, rows: dict[str, Row], grader: Open
) -> None:
    made = grader()
    futures = [made.grade(name, row["patch"]) for name, row in list(rows.items())[:4]]
    wait_for(lambda: containers(f"grade {tmp_path}"))
    first = made.process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    verdicts = [future.result() for future in futures]
    assert [verdict.status for verdict in verdicts] == [Status.RESOLVED] * 4
    assert max(verdict.attempts for verdict in verdicts) == 2 and made.process.pid != first


def test_a_container_that_is_removed_while_its_tests_run_costs_no_verdict(
    tmp_path: Path, rows: dict[str, Row], grader: Open
) -> None:
    made = grader(scripted(rows[FIRST], "sleep 6"), retries=1)
    future = made.grade(FIRST, rows[FIRST]["patch"])
    wait_for(lambda: containers(f"grade {tmp_path}"))
    time.sleep(2.0)
    subprocess.run(["docker", "rm", "-f", *containers(f"grade {tmp_path}")], check=True, capture_output=True)
    assert (future.result().status, future.result().attempts) == (Status.RESOLVED, 2)


def test_closing_ends_what_is_under_way(tmp_path: Path, rows: dict[str, Row], grader: Open) -> None:
    made = grader(scripted(rows[FIRST], "sleep 60"))
    future = made.grade(FIRST, NOTHING)
    wait_for(lambda: containers(f"grade {tmp_path}"))
    started = time.monotonic()
    made.close()
    assert time.monotonic() - started < 15 and "was closed" in str(future.exception())


# --- the command ---


def grade(tmp_path: Path, *more: str) -> "subprocess.Popen[str]":
    files = ["-d", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "out"), "--timeout", "60"]
    return in_process("grade", *files, *more, cwd=tmp_path)


def test_a_killed_command_leaves_nothing_running_and_goes_on_where_it_was(tmp_path: Path, rows: dict[str, Row]) -> None:
    write_rows(tmp_path / "rows.jsonl", list(rows.values()))
    write_predictions(tmp_path / "preds.jsonl", {name: row["patch"] for name, row in rows.items()})
    results = tmp_path / "out/results.jsonl"
    process = grade(tmp_path, "preds.jsonl", "-w", "1")
    wait_for(lambda: results.exists() and results.read_bytes().count(b"\n") >= 2, 120)
    harness = children(process.pid)
    process.kill()
    process.communicate()
    assert harness
    wait_for(lambda: not any(map(lives, harness)), 30)
    assert containers(f"grade {tmp_path}") == []
    done = results.read_bytes().count(b"\n")
    with results.open("ab") as file:
        file.write(b'{"instance_id": "torn')
    said = grade(tmp_path, "preds.jsonl", "-w", "2").communicate(timeout=200)[0]
    assert said.count("(graded before)") == done < len(rows), said
    evaluation = load_evaluation(tmp_path / "out")
    assert evaluation.complete and evaluation.unreadable_lines == 0 and evaluation.model == "org/m"
    assert evaluation.count()[Status.RESOLVED] == len(rows)
    assert evaluation.about["harness"]["network"] == "none"
    assert json.loads((tmp_path / "out/run_1/org__m.run_1.json").read_text())["resolved_instances"] == len(rows)


def test_gold_passes_and_a_no_op_is_unresolved_or_the_command_says_so(tmp_path: Path, rows: dict[str, Row]) -> None:
    write_rows(tmp_path / "rows.jsonl", list(rows.values())[:2])
    process = grade(tmp_path, "--gold")
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 0 and "2 of 2 resolved (2 resolved, 0 unresolved" in said, said
    process = in_process(
        "grade", "--empty", "-d", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "empty"), cwd=tmp_path
    )
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 0 and "0 of 2 resolved (0 resolved, 2 unresolved" in said, said
    broken = {**rows[FIRST], "patch": NOTHING}
    write_rows(tmp_path / "rows.jsonl", [broken])
    process = in_process("grade", "--gold", "-d", "rows.jsonl", "-o", "broken", cwd=tmp_path)
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 1 and f"1 of 1 are not resolved, the first is {FIRST}" in said, said


def test_mistakes_get_one_line_before_anything_is_graded(tmp_path: Path, rows: dict[str, Row]) -> None:
    gold = rows[FIRST]
    write_rows(tmp_path / "rows.jsonl", [gold])
    write_predictions(tmp_path / "other.jsonl", {"x__x-1": "p", FIRST: "p"})
    write_rows(tmp_path / "imageless.jsonl", [{**gold, "image": "nobody/has:this"}])
    write_predictions(tmp_path / "preds.jsonl", {FIRST: "p"})
    cases = [
        (
            ["other.jsonl", "-d", "rows.jsonl"],
            "1 of 2 predictions are not in the data set 'rows.jsonl', the first is 'x__x-1'",
        ),
        (["preds.jsonl", "-d", "imageless.jsonl"], "1 of 1 images are on no engine, the first is nobody/has:this"),
        (["preds.jsonl", "-d", "rows.jsonl", "--engine", "unix:///none.sock"], "cannot be reached"),
        (["preds.jsonl", "-d", "nothing.jsonl"], "'nothing.jsonl' are not there"),
        (["preds.jsonl", "--gold", "-d", "rows.jsonl"], "give one of PREDS, --gold and --empty"),
        (["preds.jsonl", "-d", "rows.jsonl", "--run-id", "a/b"], "run id 'a/b' is part of file names"),
    ]
    for arguments, said in cases:
        process = in_process("grade", *arguments, "-o", "out", cwd=tmp_path)
        out = process.communicate(timeout=100)[0]
        assert process.returncode != 0 and said in " ".join(out.split()), out
        assert not (tmp_path / "out/results.jsonl").exists() or not (tmp_path / "out/results.jsonl").read_bytes()
