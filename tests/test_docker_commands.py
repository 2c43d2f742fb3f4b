"""The commands for containers, from outside: build, pull, gc, validate, doctor, and training on container tasks."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from command_line import Ended, environment

pytestmark = [
    pytest.mark.usefixtures("container_engine"),
    pytest.mark.docker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that the SDK leaves
]
LABEL = "org.aem-swe"
SMALL = ["sampling.prompts=2", "sampling.rollouts=2", "trainer.minibatches=1", "trainer.eval_every=0", "--plain"]


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.from_env()) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of the project's own, built by the command that users run."""
    out = tmp_path_factory.mktemp("rows")
    command = [sys.executable, "-m", "aem_swe.cli", "sandbox", "build", "--out", str(out), "semver", "demo-train-0"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out / "rows.jsonl"


def metrics(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("timing")} for row in rows]


def test_two_steps_in_containers_give_what_two_steps_in_local_sandboxes_give(
    run: Callable[..., Ended], tmp_path: Path, client: docker.DockerClient
) -> None:
    assert run("sandbox", "build", "--base-only").code == 0
    for kind in ("local", "docker"):
        ended = run("train", "demo", f"sandbox={kind}", f"run_dir={tmp_path / kind}", "trainer.steps=2", *SMALL)
        assert (ended.code, ended.err) == (0, "")
    assert metrics(tmp_path / "docker") == metrics(tmp_path / "local")
    assert client.api.containers(all=True, filters={"label": f"{LABEL}.run={tmp_path / 'docker'}"}) == []


def test_two_steps_on_tasks_in_r2e_form_play_and_grade_real_episodes(
    run: Callable[..., Ended], rows: Path, tmp_path: Path
) -> None:
    ended = run("train", "demo_docker", f"data.source={rows}", f"run_dir={tmp_path / 'r'}", "trainer.steps=2", *SMALL)
    assert (ended.code, ended.err) == (0, "")
    steps = metrics(tmp_path / "r")
    assert [step["filter/infrastructure_error"] for step in steps] == [0, 0]
    episodes = [
        json.loads(line)
        for file in sorted((tmp_path / "r" / "trajectories").glob("step_*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    assert len(episodes) == 8
    assert {episode["task_id"].split("__")[0] for episode in episodes} == {"semver", "demo"}
    shown = run(
        "profile", str(tmp_path / "r"), "--json", str(tmp_path / "p.json"), "--fail-above", "residual=2%",
        "--html", str(tmp_path / "p.html"), "--trace", str(tmp_path / "t.json"),
    )  # fmt: skip
    assert (shown.code, shown.err) == (0, ""), shown.out
    profile = json.loads((tmp_path / "p.json").read_text())
    total = sum(stage["path_s"] for stage in profile["stages"].values())
    assert total * len(profile["steps"]) + profile["residual_s"] == pytest.approx(profile["wall_s"], rel=1e-6)
    assert profile["residual_share"] <= 0.02
    made = [json.loads(line) for line in (tmp_path / "r/spans.jsonl").read_text().splitlines()]
    started = [span for span in made if span["stage"] == "sandbox/start"]
    assert any(span.get("background") for span in started), "the pool starts containers ahead"
    assert {"reward/start", "reward/tests", "diff", "sandbox/prepare"} <= profile["stages"].keys()


def test_validate_says_which_tasks_are_good_and_goes_on_where_it_stopped(
    run: Callable[..., Ended], rows: Path, tmp_path: Path
) -> None:
    record = tmp_path / "trials.jsonl"
    ended = run("tasks", "validate", str(rows), "--repeats", "2", "--out", str(record))
    assert ended.code == 0, ended.err
    assert "2 of 2 tasks are good" in ended.out
    assert len(record.read_text().splitlines()) == 8
    again = run("tasks", "validate", str(rows), "--repeats", "2", "--out", str(record))
    assert (again.code, len(record.read_text().splitlines())) == (0, 8)


def test_bad_rows_are_named_and_stop_no_other(run: Callable[..., Ended], rows: Path, tmp_path: Path) -> None:
    good = [json.loads(line) for line in rows.read_text().splitlines()]
    no_image = good[1] | {"commit_hash": "1" * 40, "docker_image": "nobody/nothing:1"}
    no_tests = good[0] | {"commit_hash": "2" * 40, "execution_result_content": "{}"}
    commit = json.loads(good[0]["parsed_commit_content"])
    for diff in commit["file_diffs"]:
        for hunk in diff["hunks"]:
            for line in hunk["line_group"]["all_lines"]:
                line["content"] = "not what the file holds: " + line["content"]
    no_gold = good[0] | {"commit_hash": "3" * 40, "parsed_commit_content": json.dumps(commit)}
    mixed = tmp_path / "mixed.jsonl"
    lines = [*map(json.dumps, [no_image, no_tests, no_gold, *good]), '{"repo_name": "torn']
    mixed.write_text("\n".join(lines))
    ended = run("tasks", "validate", str(mixed), "--repeats", "1", "--out", str(tmp_path / "trials.jsonl"))
    assert ended.code == 1
    assert "2 of 4 tasks are good; 2 rows cannot be used" in ended.out
    for part in ("demo__111111111111", "nobody/nothing:1", "semver__222222222222 cannot be used", "mixed.jsonl:6"):
        assert part in ended.out, part
    assert re.search(r"semver__333333333333 .* broken .*patch_does_not_apply", ended.out)
    shown = run("tasks", "show", str(mixed), "semver__2222")
    assert shown.code == 2
    assert "semver__222222222222 cannot be used" in shown.err
    small = [*SMALL, "trainer.steps=1", "data.pool=4", "sampling.prompts=4", f"run_dir={tmp_path / 'run'}"]
    trained = run("train", "demo_docker", f"data.source={mixed}", *small)
    assert trained.code == 0, trained.err
    assert metrics(tmp_path / "run")[0]["filter/infrastructure_error"] == 2  # the group of the missing image
    assert "left out semver__222222222222" in trained.out


def test_gc_removes_what_a_killed_trainer_left_and_keeps_what_runs(
    start: Callable[..., "subprocess.Popen[str]"],
    run: Callable[..., Ended],
    tmp_path: Path,
    client: docker.DockerClient,
) -> None:
    def containers(name: str) -> int:
        return len(client.api.containers(all=True, filters={"label": f"{LABEL}.run={tmp_path / name}"}))

    trainers = {}
    for name in ("killed", "running"):
        trainers[name] = start("train", "demo", "sandbox=docker", f"run_dir={tmp_path / name}", *SMALL)
    deadline = time.monotonic() + 120
    while not all(map(containers, trainers)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    trainers["killed"].send_signal(signal.SIGKILL)
    trainers["killed"].wait()
    ended = run("sandbox", "gc")
    assert ended.code == 0, ended.err
    assert re.search(r"removed \d+ containers, 0 prepared images and 0 volumes; [1-9]\d* containers belong", ended.out)
    assert containers("killed") == 0
    assert containers("running") > 0
    trainers["running"].send_signal(signal.SIGINT)
    assert trainers["running"].wait(60) == 130
    assert containers("running") == 0


def test_pull_reports_each_image_and_fails_for_what_no_registry_has(
    run: Callable[..., Ended], rows: Path, tmp_path: Path
) -> None:
    ended = run("sandbox", "pull", str(rows))
    assert ended.code == 0
    assert [line.rsplit(": ", 1)[1] for line in ended.out.splitlines()] == ["there", "there"]
    broken = tmp_path / "rows.jsonl"
    row = json.loads(rows.read_text().splitlines()[0]) | {"docker_image": "127.0.0.1:9/nobody/nothing:1"}
    broken.write_text(json.dumps(row))
    ended = run("sandbox", "pull", str(broken))
    assert ended.code == 1
    assert "[1/1] 127.0.0.1:9/nobody/nothing:1 on (default): FAILED: " in ended.out


def test_doctor_answers_for_containers(run: Callable[..., Ended], rows: Path, tmp_path: Path) -> None:
    ended = run("doctor", "demo_docker", f"data.source={rows}")
    assert ended.code == 0, ended.out
    assert "ok    engine (default): images: 2 of 2 images are there" in ended.out
    row = json.loads(rows.read_text().splitlines()[0]) | {"docker_image": "nobody/nothing:1"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    ended = run("doctor", "demo_docker", f"data.source={tmp_path / 'rows.jsonl'}", "sandbox.memory_mb=90000000")
    assert ended.code == 1
    assert "FAIL  engine (default): images: 0 of 1 images are there; missing: nobody/nothing:1; fetch them" in ended.out
    assert "FAIL  engine (default): memory:" in ended.out
    ended = run("doctor", "demo", "sandbox=docker", "sandbox.engines=[unix:///nowhere.sock]")
    assert ended.code == 1
    assert "FAIL  engine unix:///nowhere.sock: engine unix:///nowhere.sock cannot be reached" in ended.out
    assert "start it" in ended.out


def test_an_engine_that_is_away_is_one_line(run: Callable[..., Ended], tmp_path: Path) -> None:
    settings = ["sandbox=docker", "sandbox.engines=[unix:///nowhere.sock]", f"run_dir={tmp_path / 'x'}"]
    ended = run("train", "demo", *settings)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "engine unix:///nowhere.sock cannot be reached" in ended.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tasks", "validate", "{rows}", "no-such-task"], "task 'no-such-task' is none of 2"),
        (["tasks", "validate", "{rows}", "--out", "{folder}"], "is a folder; name a file"),
        (["tasks", "show", "{folder}/nothing.jsonl"], "are not there; name a file or a folder"),
        (["tasks", "show", "{rows}", "no-such-task"], "fits 0 of 2 tasks"),
        (["tasks", "validate", "{rows}", "--reward", "swebench"], "reward 'swebench' is not for R2E-Gym's rows"),
        (["sandbox", "build", "--out", "{rows}"], "is a file; name a folder"),
        (["sandbox", "build", "no-such-task"], "no-such-task"),
        (["sandbox", "gc", "--engine", "tcp://127.0.0.1:99999"], "is not usable"),
        (["sandbox", "gc", "--engine", "ssh://nobody@127.0.0.1:9"], "cannot be reached by ssh"),
        (["train", "demo", "data.source={rows}", "trainer.eval_every=0"], "use sandbox=docker"),
        (["train", "demo", "sandbox=r2egym"], "plays R2E-Gym's rows; name them in data.source"),
    ],
)
def test_bad_input_is_one_line(
    run: Callable[..., Ended], rows: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    ended = run(*(argument.format(rows=rows, folder=tmp_path) for argument in arguments))
    assert ended.code in (1, 2)
    assert "Traceback" not in ended.err
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1
