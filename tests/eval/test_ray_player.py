"""Playing on a real Ray with two nodes on this machine, in containers, against a server that plays by a script."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any  # JSON rows hold anything

import docker
import pytest
import scripted_server
from command_line import Ended, environment

from aem_swe import evaluate
from aem_swe.errors import ClusterError, ConfigError, EngineUnreachable
from aem_swe.eval.swebench.dataset import Selection
from aem_swe.eval.swebench.plan import Plan
from aem_swe.eval.swebench.play import LocalPlayer, Player
from aem_swe.eval.swebench.played import Played
from aem_swe.eval.swebench.protocol import load_protocol
from aem_swe.eval.swebench.ray_player import RESTARTS, RayPlayer
from aem_swe.eval.swebench.results import load_evaluation
from aem_swe.open_model import Model
from aem_swe.tasks.swebench_rows import make_problem

if find_spec("ray") is None:
    pytest.skip("ray is missing: make test-verl installs it", allow_module_level=True)
pytestmark = [
    pytest.mark.verl,
    pytest.mark.usefixtures("container_engine"),
    pytest.mark.filterwarnings("default"),  # Ray's own warnings
]
PLAY = ["play.agent=r2egym", "play.context=50000", "play.max_response_tokens=4000", "play.max_steps=14", "runs=1"]
HELD = "aem-swe__demo-0"
NAMES = [HELD, "aem-swe__demo-1", "aem-swe__demo-2", "aem-swe__demo-3"]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--block"]
Turns = list[tuple[int, int]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("rows")
    tasks = [name.replace("aem-swe__demo-", "demo-train-") for name in NAMES]
    command = [sys.executable, "-m", "aem_swe.cli", "sandbox", "build", *tasks, "--out", str(out / "r2e")]
    done = subprocess.run(
        [*command, "--swebench-out", str(out / "swe")], env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "swe/rows.jsonl").read_text().splitlines()]


# --- the cluster


@contextlib.contextmanager
def started(*command: str, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A part of the cluster, in a session of its own; asked to end, then made to."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, env=environment() | env, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                kill_all_of(process)


def kill_all_of(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A head that plays nothing; nodes join it. Only who knows the token may speak to it, and Ray reads that once."""
    if "ray" in sys.modules:
        pytest.skip("Ray was imported by other tests; run this file in a process of its own, as make test-verl does")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        for key, value in settings.items():
            patch.setenv(key, value)
        words = [f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={folder}"]
        with started(*RAY, "--head", *words, "--object-store-memory=80000000") as head:
            until(lambda: answers(port) or head.poll() is not None)
            assert head.poll() is None
            yield f"127.0.0.1:{port}"


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


Join = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def join(address: str) -> Iterator[Join]:
    """join("name") -> a node of the cluster; instead: a folder in place of which it sees an empty one."""
    with contextlib.ExitStack() as nodes:

        def begin(name: str, instead: Path | None = None, **env: str) -> "subprocess.Popen[bytes]":
            words = [*RAY, f"--address={address}", f"--node-name={name}", "--num-cpus=1"]
            words += ["--object-store-memory=80000000"]
            if instead:
                words = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {instead} && exec "$@"', "sh", *words]
            node = nodes.enter_context(started(*words, **env))
            until(lambda: name in alive(address) or node.poll() is not None)
            assert node.poll() is None
            return node

        yield begin


def alive(address: str) -> list[str]:
    """The names of the cluster's nodes."""
    code = f"import ray; ray.init({address!r}, logging_level='ERROR', log_to_driver=False)\n"
    code += "print([n['NodeName'] for n in ray.nodes() if n['Alive'] and n['Resources'].get('CPU')])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    return json.loads(done.stdout.replace("'", '"') or "[]") if done.returncode == 0 else []


# --- what is played


@dataclass
class Scene:
    """Rows, and a server that plays them; evaluations of it in folders below."""

    folder: Path
    url: str
    rows: list[dict[str, Any]]

    @property
    def words(self) -> list[str]:
        """Of the command line, but for --ray."""
        given = ["--endpoint", self.url, "-d", str(self.folder / "rows.jsonl"), "-o", str(self.folder / "out")]
        return ["eval", "scripted", "-c", "swebench_demo", *given, *PLAY]

    def asked(self) -> Counter[tuple[str, int]]:
        entries = [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]
        return Counter((entry["asked"], entry["turn"]) for entry in entries if "asked" in entry)

    def plan(self, ray: str = "", out: str = "out") -> tuple[Plan, evaluate.Request]:
        protocol, folder = load_protocol("swebench_demo", PLAY), self.folder / out
        folder.mkdir(exist_ok=True)
        problems = [make_problem(row) for row in self.rows]
        by_id = {str(row["instance_id"]): row for row in self.rows}
        model = Model("scripted", url=self.url)
        request = evaluate.Request(model, protocol, Selection(), folder, workers=4, ray=ray)
        return Plan(folder, "scripted", protocol, by_id, problems, 4, 1), request


Stage = Callable[..., Scene]


@pytest.fixture
def stage(tmp_path: Path, rows: list[dict[str, Any]]) -> Iterator[Stage]:
    """stage("solve", "hold", ...) -> how the first instances are played, in the order of NAMES."""
    with contextlib.ExitStack() as servers:

        def begin(*behaviours: str) -> Scene:
            folder = tmp_path / secrets.token_hex(4)
            folder.mkdir()
            chosen = rows[: len(behaviours)]
            (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
            (folder / "plan.json").write_text(json.dumps(dict(zip(NAMES, behaviours, strict=False))))
            (folder / "log").touch()
            files = [str(folder / name) for name in ("rows.jsonl", "plan.json", "log")]
            words = [sys.executable, scripted_server.__file__, *files]
            server = servers.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            servers.callback(server.kill)
            assert server.stdout is not None
            return Scene(folder, f"http://127.0.0.1:{server.stdout.readline().strip()}/v1", chosen)

        yield begin


def play_all(player: Player, plan: Plan, turns: Turns | None = None) -> dict[str, Played]:
    """All instances at once."""
    heard: Turns = [] if turns is None else turns
    with ThreadPoolExecutor(len(plan.problems)) as threads:
        played = [
            threads.submit(player.play, 1, problem, lambda *tokens: heard.append(tokens)) for problem in plan.problems
        ]
        return {problem.task.id: one.result() for problem, one in zip(plan.problems, played, strict=True)}


def timeless(played: dict[str, Played]) -> dict[str, Played]:
    return {name: replace(one, seconds={}) for name, one in played.items()}


def trajectories(out: Path) -> dict[str, Any]:
    """Without what differs between two plays of the same."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(one) for key, one in value.items() if key != "seconds"}
        return [strip(one) for one in value] if isinstance(value, list) else value

    return {path.name: strip(json.loads(path.read_text())) for path in out.glob("run_1/*/*.traj.json")}


def containers(out: Path) -> list[str]:
    with contextlib.closing(docker.from_env()) as client:
        found = client.api.containers(all=True, filters={"label": "org.aem-swe=container"})
    return [one["Id"] for one in found if str(out) in one["Labels"].get("org.aem-swe.run", "")]


def actors() -> list[int]:
    """The processes of all actors of ours."""
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and (path / "cmdline").read_bytes().startswith(b"ray::Actor"):
                found.append(int(path.name))
    return found


def process_of(player: RayPlayer, number: int) -> int:
    import ray

    pid = ray.get(player.nodes[number].actor.__ray_call__.remote(lambda self: os.getpid()))
    assert isinstance(pid, int)
    return pid


def until(reached: Callable[[], bool], limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def cluster(plan: Plan, request: evaluate.Request) -> contextlib.AbstractContextManager[RayPlayer]:
    return evaluate._cluster(plan, request, lambda line: None)


# --- the tests


def test_two_nodes_play_what_one_machine_plays(join: Join, address: str, stage: Stage) -> None:
    join("one")
    join("two")
    scene = stage("solve", "fail", "chatty", "malformed")
    plan, request = scene.plan(out="here")
    with evaluate._opened(request, lambda line: None) as (setting, policy):
        local = LocalPlayer(setting, policy, request.out, request.protocol.retries, lambda: False)
        expected = play_all(local, plan)
    plan, request = scene.plan(address)
    turns: Turns = []
    with cluster(plan, request) as player:
        assert sorted(node.name.split()[0] for node in player.nodes) == ["one", "two"] and player.places == 2
        assert len({process_of(player, number) for number in (0, 1)}) == 2
        played = play_all(player, plan, turns)
    assert timeless(played) == timeless(expected)
    assert trajectories(request.out) == trajectories(scene.folder / "here") and len(played) == 4
    assert sum(map(sum, turns)) == sum(one.prompt_tokens + one.completion_tokens for one in played.values())
    assert containers(request.out) == [] and not list(request.out.glob(".ray-*"))
    until(lambda: not actors(), 20)


def test_an_actor_that_is_killed_costs_one_request_and_plays_on(join: Join, address: str, stage: Stage) -> None:
    join("one")
    join("two")
    scene = stage("hold", "chatty", "solve")
    plan, request = scene.plan(address)
    with cluster(plan, request) as player, ThreadPoolExecutor(3) as threads:
        first = threads.submit(player.play, 1, plan.problems[0], lambda *tokens: None)
        until(lambda: scene.asked()[HELD, 1] == 1)
        busy = [node.busy for node in player.nodes].index(1)
        dead = process_of(player, busy)
        os.kill(dead, signal.SIGKILL)
        others = [threads.submit(player.play, 1, problem, lambda *tokens: None) for problem in plan.problems[1:]]
        played = first.result(120)
        assert all((one.result(120).patch, one.result().attempts) > ("", 0) for one in others)
        assert not any(node.lost for node in player.nodes), player._last_lost
        assert process_of(player, busy) != dead
    assert (played.termination, played.attempts, played.turns, played.lost_requests) == ("finished", 1, 3, 1)
    assert played.patch == scene.rows[0]["patch"] or "+" in (played.patch or "")
    again = {key: times for key, times in scene.asked().items() if times > 1}
    assert again == {(HELD, 1): 2}, "no answered turn was asked again"
    until(lambda: containers(request.out) == [], 90)


def test_a_node_that_dies_is_left_for_another_and_without_any_there_is_one_line(
    join: Join, address: str, stage: Stage
) -> None:
    nodes = {name: join(name) for name in ("one", "two")}
    scene = stage("hold", "hold")
    plan, request = scene.plan(address)
    with cluster(plan, request) as player, ThreadPoolExecutor(2) as threads:
        first = threads.submit(player.play, 1, plan.problems[0], lambda *tokens: None)
        until(lambda: scene.asked()[HELD, 1] == 1)
        name = next(node.name for node in player.nodes if node.busy).split()[0]
        end_node(nodes.pop(name))
        assert first.result(180).termination == "finished"
        assert [node.name.split()[0] for node in player.nodes if node.lost] == [name]
        second = threads.submit(player.play, 1, plan.problems[1], lambda *tokens: None)
        until(lambda: scene.asked()[NAMES[1], 1] == 1)
        end_node(*nodes.values())
        with pytest.raises(
            ClusterError, match=r"^no node is left \(the last: node (one|two) .*\); mend them"
        ) as caught:
            second.result(180)
        assert "\n" not in str(caught.value)
    assert scene.asked()[HELD, 1] == 2 and scene.asked()[HELD, 0] == 1


def end_node(node: "subprocess.Popen[bytes]") -> None:
    """As a machine ends: Ray's own processes there, and with them the actors."""
    children = subprocess.run(["pgrep", "-P", str(node.pid)], capture_output=True, text=True, check=True).stdout.split()
    for pid in [*map(int, children), node.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_an_episode_whose_actor_always_dies_is_given_up_and_the_evaluation_goes_on(
    join: Join, address: str, stage: Stage
) -> None:
    join("one")
    scene = stage("slow", "solve")
    plan, request = scene.plan(address)
    assert request.protocol.retries.episodes < RESTARTS
    with cluster(plan, request) as player, ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(player.play, 1, plan.problems[0], lambda *tokens: None)
        killed: list[int] = []
        while not under_way.done():
            until(lambda: under_way.done() or scene.asked()[HELD, 1] > len(killed))
            if not under_way.done():
                killed.append(process_of(player, 0))
                os.kill(killed[-1], signal.SIGKILL)
        played = under_way.result()
        assert len(set(killed)) == request.protocol.retries.episodes + 1
        assert (played.patch, played.termination) == (None, "infrastructure_error")
        assert played.reason.startswith("lost with its node 3 times, the last was node one")
        assert player.play(1, plan.problems[1], lambda *tokens: None).termination == "finished"


def test_a_folder_that_a_node_does_not_see_is_said_in_one_line(join: Join, address: str, stage: Stage) -> None:
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    scene = stage("solve")
    join("one")
    join("apart", instead=scene.folder)
    plan, request = scene.plan(address)
    with pytest.raises(ConfigError, match=r"^node apart \(.*\): it does not see --out .*all nodes share") as caught:
        with cluster(plan, request):
            raise AssertionError("it was opened")
    assert "\n" not in str(caught.value) and not scene.asked() and not list(request.out.glob(".ray-*"))


def test_a_node_without_images_or_engine_is_named(join: Join, address: str, stage: Stage) -> None:
    scene = stage("solve")
    plan, request = scene.plan(address)
    join("one")
    gone = replace(plan.problems[0], task=replace(plan.problems[0].task, image="nobody/nothing:1"))
    with pytest.raises(
        ConfigError, match=r"^node one \(.*\): 1 of 1 images are on no engine of its own, the first is nob"
    ):
        with cluster(replace(plan, problems=[gone]), request):
            raise AssertionError("it was opened")
    join("two", DOCKER_HOST="unix:///nowhere.sock")
    with pytest.raises(EngineUnreachable, match=r"^node two \(.*nowhere.sock"), cluster(plan, request):
        raise AssertionError("it was opened")


def test_interrupted_it_leaves_nothing_behind_and_the_same_command_goes_on(
    join: Join, address: str, stage: Stage, start: Callable[..., "subprocess.Popen[str]"], run: Callable[..., Ended]
) -> None:
    pytest.importorskip("swebench", reason="needs swebench: pip install 'aem-swe[swebench]'")
    join("one")
    join("two")
    scene = stage("hold", "fail", "chatty", "solve")
    command, out = [*scene.words, "--ray", address], scene.folder / "out"
    process = start(*command)
    until(lambda: scene.asked()[HELD, 1] == 1 and (out / "results.jsonl").exists())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "aem-swe: interrupted; the same command goes on\n")
    assert containers(out) == []
    until(lambda: not actors(), 20)
    ended = run(*command)
    assert (ended.code, ended.err) == (0, "") and "playing on 2 nodes: " in ended.out
    statuses = {name: str(result.status) for (_, name), result in load_evaluation(out).results.items()}
    assert statuses == dict(zip(NAMES, ["resolved", "unresolved", "resolved", "resolved"], strict=True))
    assert {key for key, times in scene.asked().items() if times > 1} <= {(HELD, 1)} | {(name, 1) for name in NAMES}


@pytest.mark.parametrize("more", [["--embedded"], ["--embedded", "--endpoint", "http://127.0.0.1:1/v1"], []])
def test_models_that_other_machines_do_not_reach_are_refused(run: Callable[..., Ended], more: list[str]) -> None:
    ended = run("eval", "builtin/demo-policy", "-c", "swebench_demo", "--ray", "auto", *more)
    assert ended.code == 2 and ended.err.count("\n") == 1 and "give --endpoint URL, which every node" in ended.err


def test_where_ray_is_missing_or_does_not_answer_one_line_says_so(
    stage: Stage, run: Callable[..., Ended], invoke: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("swebench", reason="needs swebench: pip install 'aem-swe[swebench]'")
    scene = stage("solve")
    ended = run(*scene.words, "--ray", "127.0.0.1:1")
    assert ended.code == 2 and ended.err.startswith("aem-swe: --ray '127.0.0.1:1' does not answer ("), ended.err
    assert ended.err.count("\n") == 1 and "ray start --head" in ended.err
    monkeypatch.setitem(sys.modules, "ray", None)
    ended = invoke(*scene.words, "--ray", "auto")
    assert ended.code == 2 and "--ray needs Ray, which is not installed; pip install" in ended.err
