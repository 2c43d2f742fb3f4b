"""`aem-swe eval` from outside, on a real engine and the real harness, against a server that plays by a script."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # JSON rows hold anything

import docker
import pytest
import scripted_server
from command_line import Ended, environment

from aem_swe.eval.swebench.results import Status, load_evaluation

pytestmark = [
    pytest.mark.usefixtures("container_engine"),
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the SDK leaves
]
PLAY = ["play.agent=r2egym", "play.context=50000", "play.max_response_tokens=4000", "play.max_steps=14"]
TIMEOUT_S = 12
PLAN = {  # in this order, two at a time
    "isodate__isodate-1": "hold",
    "boltons__boltons-1": "solve",
    "cachetools__cachetools-1": "fail",
    "humanize__humanize-1": "empty",
    "natsort__natsort-1": "down",
    "parse__parse-1": "unfinished",
    "semver__semver-1": "malformed",
    "sortedcontainers__sortedcontainers-1": "kills",
    "toolz__toolz-1": "chatty",
    "aem-swe__demo-0": "fail",
    "aem-swe__demo-1": "solve",
    "inflection__inflection-1": "hang",
}
EXPECTED = {
    "isodate__isodate-1": ("resolved", "finished"),
    "boltons__boltons-1": ("resolved", "finished"),
    "cachetools__cachetools-1": ("unresolved", "finished"),
    "humanize__humanize-1": ("empty", "finished"),
    "natsort__natsort-1": ("infrastructure", "infrastructure_error"),
    "parse__parse-1": ("resolved", "max_steps"),
    "semver__semver-1": ("resolved", "finished"),
    "sortedcontainers__sortedcontainers-1": ("resolved", "finished"),
    "toolz__toolz-1": ("resolved", "finished"),
    "aem-swe__demo-0": ("unresolved", "finished"),
    "aem-swe__demo-1": ("resolved", "finished"),
    "inflection__inflection-1": ("error", "finished"),
}


@pytest.fixture(scope="module")
def all_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The project's own instances, built by the command that users run."""
    out = tmp_path_factory.mktemp("rows")
    command = [sys.executable, "-m", "aem_swe.cli", "sandbox", "build", "--out", str(out / "r2e")]
    command += ["--swebench-out", str(out / "swe")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "swe/rows.jsonl").read_text().splitlines()]
    return {row["instance_id"]: row for row in rows}


@dataclass
class Scene:
    """A folder with chosen rows and a running scripted server."""

    folder: Path
    rows: Path
    url: str
    log: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def command(self, *more: str) -> list[str]:
        where = ["--endpoint", self.url, "-d", str(self.rows), "-o", str(self.out), "-c", "swebench_demo"]
        return ["eval", "scripted", *where, "--runs", "1", f"grading.timeout_s={TIMEOUT_S}.0", *PLAY, *more]

    def plan(self, plan: dict[str, str]) -> None:
        (self.folder / "plan.json").write_text(json.dumps({**plan, "containers of": f"eval {self.out}"}))

    def asked(self) -> Counter[tuple[str, int]]:
        """How often each turn of each instance was requested."""
        entries = [json.loads(line) for line in self.log.read_text().splitlines()]
        return Counter((entry["asked"], entry["turn"]) for entry in entries if "asked" in entry)


Stage = Callable[[dict[str, str]], Scene]


@pytest.fixture
def stage(tmp_path: Path, all_rows: dict[str, dict[str, Any]]) -> Iterator[Stage]:
    running: list[subprocess.Popen[str]] = []

    def begin(plan: dict[str, str]) -> Scene:
        folder = tmp_path / str(len(running))
        folder.mkdir()
        (folder / "rows.jsonl").write_text("".join(json.dumps(all_rows[name]) + "\n" for name in plan))
        (folder / "log").touch()
        words = [
            sys.executable,
            scripted_server.__file__,
            *(str(folder / n) for n in ("rows.jsonl", "plan.json", "log")),
        ]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        running.append(server)
        scene = Scene(folder, folder / "rows.jsonl", "", folder / "log")
        scene.plan(plan)
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        scene.url = f"http://127.0.0.1:{port}/v1"
        return scene

    yield begin
    for server in running:
        server.kill()
        server.communicate()


def outcomes(out: Path) -> dict[str, tuple[str, str]]:
    results = load_evaluation(out).results
    return {name: (str(result.status), result.termination) for (_, name), result in results.items()}


def containers(out: Path) -> list[Any]:
    with contextlib.closing(docker.from_env()) as client:
        found = client.api.containers(all=True, filters={"label": "org.aem-swe=container"})
    return [one for one in found if str(out) in one["Labels"].get("org.aem-swe.run", "")]


def until(reached: Callable[[], bool], limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def kill(process: "subprocess.Popen[str]") -> None:
    os.kill(process.pid, signal.SIGKILL)  # of the command alone: what it started has to notice
    process.communicate()


def is_graded_now(name: str) -> bool:
    with contextlib.closing(docker.from_env()) as client:
        return any(name in one["Names"][0] for one in client.api.containers())


def test_killed_twice_an_evaluation_ends_as_if_it_had_not_been(
    stage: Stage, start: Callable[..., "subprocess.Popen[str]"], run: Callable[..., Ended]
) -> None:
    scene = stage(PLAN)
    first = start(*scene.command())
    results = scene.out / "results.jsonl"
    until(lambda: scene.asked()["isodate__isodate-1", 1] == 1)  # which the server now holds back
    until(lambda: results.exists() and results.read_text().count("\n") >= 2)
    kill(first)
    second = start(*scene.command())
    until(lambda: is_graded_now("sweb.eval.inflection__inflection-1"))
    done = results.read_text()
    # a report whose verdict was not recorded when the kill came is made again, and rightly so
    recorded = {json.loads(line)["instance_id"] for line in done.splitlines()}
    reports = [path for path in scene.out.glob("run_1/logs/**/report.json") if path.parent.name in recorded]
    papers = {path: path.stat().st_mtime_ns for path in reports}
    assert papers
    kill(second)

    ended = run(*scene.command())
    assert (ended.code, ended.err) == (1, ""), "one was lost to the infrastructure"
    assert "1 ended in infrastructure errors" in ended.out and "--retry-infrastructure" in ended.out
    assert outcomes(scene.out) == EXPECTED
    evaluation = load_evaluation(scene.out)
    assert evaluation.complete and evaluation.unreadable_lines == 0
    counts = {Status.RESOLVED: 7, Status.UNRESOLVED: 2, Status.EMPTY: 1, Status.ERROR: 1, Status.INFRASTRUCTURE: 1}
    assert evaluation.count() == counts
    assert results.read_text().startswith(done) and results.read_text().count("\n") == len(PLAN)
    assert {path: path.stat().st_mtime_ns for path in papers} == papers, "no judged patch was graded again"
    again = {key: times - 1 for key, times in scene.asked().items() if times > 1 and key[0] != "natsort__natsort-1"}
    lost = {name: result.lost_requests for (_, name), result in evaluation.results.items() if result.lost_requests}
    assert lost.pop("natsort__natsort-1", 0) <= 2
    assert again.pop(("isodate__isodate-1", 1)) == lost.pop("isodate__isodate-1") == 1
    assert Counter({name: times for (name, _), times in again.items()}) == Counter(lost), (
        "no answered turn was asked again"
    )
    failed = evaluation.results[1, "natsort__natsort-1"]
    assert failed.attempts >= 3 and failed.lost_tokens > 0 and "answered 500" in failed.reason
    summary = json.loads((scene.out / "run_1/scripted.run_1.json").read_text())
    assert (summary["resolved_instances"], summary["unresolved_instances"]) == (7, 2)
    assert summary["empty_patch_ids"] == ["humanize__humanize-1"]
    assert summary["error_ids"] == ["inflection__inflection-1"]
    predictions = [json.loads(line) for line in (scene.out / "run_1/preds.jsonl").read_text().splitlines()]
    assert "natsort__natsort-1" not in {one["instance_id"] for one in predictions} and len(predictions) == 11
    page = (scene.out / "report.html").read_text()
    assert f"{failed.lost_tokens:,}" in page
    until(lambda: containers(scene.out) == [], 20.0)

    whole = stage(PLAN | {"isodate__isodate-1": "solve"})
    assert run(*whole.command()).code == 1
    assert outcomes(whole.out) == EXPECTED
    patches = [{k: r.patch_sha256 for k, r in load_evaluation(out).results.items()} for out in (whole.out, scene.out)]
    assert patches[0] == patches[1]
    before = whole.asked()
    papers = ["preds.json", "preds.jsonl", "exit_statuses_run_1.yaml"]
    texts = {name: (whole.out / "run_1" / name).read_text() for name in papers}
    papers.append("scripted.run_1.json")
    for name in papers:  # as after a kill between the last result and the summary
        (whole.out / "run_1" / name).unlink()
    assert run(*whole.command()).code == 1
    assert whole.asked() == before, "an evaluation that is done asks for nothing"
    assert {name: (whole.out / "run_1" / name).read_text() for name in texts} == texts
    rewritten = json.loads((whole.out / "run_1/scripted.run_1.json").read_text())
    assert {key: rewritten[key] for key in rewritten if key.endswith("_ids")} == {
        key: summary[key] for key in summary if key.endswith("_ids")
    }
    whole.plan(PLAN | {"isodate__isodate-1": "solve", "natsort__natsort-1": "solve"})
    assert run(*whole.command("--retry-infrastructure")).code == 0
    assert outcomes(whole.out) == EXPECTED | {"natsort__natsort-1": ("resolved", "finished")}
    assert "natsort__natsort-1" in json.loads((whole.out / "run_1/scripted.run_1.json").read_text())["resolved_ids"]


FAULTS = {
    "boltons__boltons-1": "slow",
    "cachetools__cachetools-1": "busy",
    "humanize__humanize-1": "broken",
    "inflection__inflection-1": "drop",
    "isodate__isodate-1": "torn",
    "natsort__natsort-1": "nonsense",
    "parse__parse-1": "long",
    "semver__semver-1": "cut",
    "toolz__toolz-1": "malformed",
}


def test_a_server_that_misbehaves_costs_retries_and_each_is_written_down(
    stage: Stage, run: Callable[..., Ended]
) -> None:
    scene = stage(FAULTS)
    assert run(*scene.command()).code == 0
    evaluation = load_evaluation(scene.out)
    found = {FAULTS[name]: result for (_, name), result in evaluation.results.items()}
    assert {fault for fault, result in found.items() if result.status is Status.RESOLVED} == set(FAULTS.values()) - {
        "cut"
    }
    assert (found["cut"].status, found["cut"].termination) == (Status.EMPTY, "token_budget")
    asked = {FAULTS[name]: times for (name, turn), times in scene.asked().items() if turn == 1}
    once = {"slow": 1, "cut": 1, "malformed": 1}
    assert asked == once | {"busy": 3, "broken": 2, "drop": 2, "torn": 2, "nonsense": 2, "long": 2}
    journals = {FAULTS[path.parent.name]: path.read_text() for path in scene.out.glob("run_1/*/journal.jsonl")}
    assert "malformed answer (choices" in journals["nonsense"]
    assert "tokens where 4000 were asked for" in journals["long"]
    assert all(result.attempts == 1 for result in found.values())
    trajectory = json.loads(evaluation.trajectory_file(1, "toolz__toolz-1").read_text())
    errors = [m["extra"]["action"].get("error") for m in trajectory["messages"] if m["role"] == "assistant"]
    assert sum(error is not None for error in errors) == 2


def test_a_server_that_never_works_stops_the_evaluation_which_then_goes_on(
    stage: Stage, run: Callable[..., Ended]
) -> None:
    names = [name for name in PLAN if name != "inflection__inflection-1"]
    scene = stage(dict.fromkeys(names, "down"))
    ended = run(*scene.command("retries.requests=0", "retries.episodes=0"))
    assert ended.code == 1 and ended.err.count("\n") == 1
    assert "10 instances in a row ended in infrastructure errors" in ended.err and "answered 500" in ended.err
    assert load_evaluation(scene.out).results == {}, "none of them counts as judged"
    scene.plan(dict.fromkeys(names, "solve"))
    ended = run(*scene.command("retries.requests=0", "retries.episodes=0"))
    assert (ended.code, ended.err) == (0, "")
    assert load_evaluation(scene.out).count()[Status.RESOLVED] == len(names)


def test_a_run_in_which_nothing_could_be_played_says_so(stage: Stage, run: Callable[..., Ended]) -> None:
    scene = stage({"boltons__boltons-1": "down"})
    ended = run(*scene.command("retries.requests=0", "retries.episodes=0"))
    assert (ended.code, ended.err) == (1, "")
    result = load_evaluation(scene.out).results[1, "boltons__boltons-1"]
    assert result.status is Status.INFRASTRUCTURE and "answered 500" in result.reason
    assert "nothing is graded of 1 instance" in ended.out
    assert (scene.out / "run_1/preds.jsonl").read_text() == ""


def test_interrupted_it_leaves_nothing_behind_and_says_how_to_go_on(
    stage: Stage, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    scene = stage({"isodate__isodate-1": "hold", "inflection__inflection-1": "hang"})
    process = start(*scene.command())
    until(lambda: is_graded_now("sweb.eval.inflection__inflection-1"))
    until(lambda: scene.asked()["isodate__isodate-1", 1] == 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "aem-swe: interrupted; the same command goes on\n"
    assert containers(scene.out) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["-d", "nowhere.jsonl"], "rows 'nowhere.jsonl' are not there"),
        (["-d", "{folder}/plan.json"], "should hold a list of rows and holds a dict"),
        (
            ["-d", "{folder}/gone.jsonl"],
            "1 of 1 images are on no engine, the first is nobody/nothing:1; fetch them: aem-swe sandbox pull",
        ),
        (["--endpoint", "http://127.0.0.1:1/v1", "retries.requests=0"], "cannot be reached"),
        (["--endpoint", "127.0.0.1:1"], "write it like http://localhost:8000/v1"),
        (["--engine", "unix:///nowhere.sock"], "nowhere.sock"),
        (["--filter", "("], "--filter '(' is no regular expression"),
        (["--slice", "a:b"], "--slice 'a:b' is no slice"),
        (["--price", "1"], "--price '1' is not two numbers"),
        (["--embedded"], "--embedded runs a checkpoint in this process and --endpoint asks another"),
        (["--vllm-arg=--x"], "--tensor-parallel and --vllm-arg are for vLLM served here"),
        (["--tokenizer", "nowhere"], "the tokenizer of model.path 'nowhere' cannot be loaded"),
        (["grading.swebench=4.0.0"], "grading.swebench 4.0.0 is the protocol's harness and"),
        (["play.agent=nobody"], "agent.definition 'nobody' is unknown"),
        (["play.max_stepz=3"], "key 'play.max_stepz' is unknown; did you mean 'play.max_steps'?"),
        (["-c", "swebench_verifed"], "did you mean 'swebench_verified'?"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_anything_starts(
    stage: Stage, run: Callable[..., Ended], change: list[str], says: str
) -> None:
    scene = stage({"boltons__boltons-1": "solve"})
    row = json.loads(scene.rows.read_text())
    (scene.folder / "gone.jsonl").write_text(json.dumps(row | {"image": "nobody/nothing:1"}) + "\n")
    ended = run(*scene.command(), *(word.replace("{folder}", str(scene.folder)) for word in change))
    assert ended.code in (1, 2) and says in ended.err and ended.err.count("\n") == 1, ended.err
    assert not scene.asked() and containers(scene.out) == []


def test_a_checkpoint_that_is_none_and_a_wrong_name_are_said_too(stage: Stage, run: Callable[..., Ended]) -> None:
    scene = stage({"boltons__boltons-1": "solve"})
    command = scene.command()
    ended = run(*["other" if word == "scripted" else word for word in command])
    assert ended.code == 2 and "the endpoint serves ['scripted'], not 'other'" in ended.err
    place = command.index("--endpoint")
    ended = run(*command[:place], *command[place + 2 :])
    assert ended.code == 2 and "model 'scripted' is no checkpoint folder" in ended.err


def test_another_evaluation_in_the_same_folder_is_refused(stage: Stage, run: Callable[..., Ended]) -> None:
    scene = stage({"boltons__boltons-1": "solve"})
    assert run(*scene.command()).code == 0
    before = (scene.out / "results.jsonl").read_bytes()
    ended = run(*scene.command("--seed", "7", "play.temperature=0.5"))
    assert ended.code == 2 and "holds an evaluation with protocol_sha256" in ended.err and "seed 1, not 7" in ended.err
    assert (scene.out / "results.jsonl").read_bytes() == before
    more = run(*scene.command(), "--runs", "2")
    assert (more.code, load_evaluation(scene.out).count()[Status.RESOLVED]) == (0, 2)
