"""Generated games in ALFWorld's real engine. Needs the extra: pip install 'aem-swe[alfworld]'."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import environment

from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import AskPolicy, Limits
from aem_swe.agents.parser import PARSERS
from aem_swe.agents.policy import ScriptedPolicy
from aem_swe.drivers import run_thread
from aem_swe.engines.local.model import load_model
from aem_swe.errors import SandboxGone, SandboxTimeout, TaskError
from aem_swe.rollout import EpisodeRun, Setting
from aem_swe.sandboxes import SandboxLimits
from aem_swe.types import Part, Task, Termination, Trajectory
from aem_swe.worlds import FAMILIES
from aem_swe.worlds.demonstrations import demonstrate_game
from aem_swe.worlds.expert import Expert, aim_of
from aem_swe.worlds.games import GameSandboxes
from aem_swe.worlds.generate import generate
from aem_swe.worlds.layouts import rules, scene
from aem_swe.worlds.reward import GameGrader
from aem_swe.worlds.sandbox import GameSandbox
from aem_swe.worlds.simulation import NOTHING, Simulation
from aem_swe.worlds.source import held_out_games, task_of, training_games

pytestmark = pytest.mark.usefixtures("alfworld")
SMALL_ROOM = 14
"""A bathroom: it loads fast."""


def small(*, admissible: bool = False) -> Task:
    return task_of(generate("train", SMALL_ROOM), admissible=admissible)


def solve(sandbox: GameSandbox, task: Task, limit: int = 50) -> list[str]:
    """The commands of our expert, up to the win."""
    expert = Expert(aim_of(task))
    command, said = expert.begin(sandbox.seen.feedback), []
    while not sandbox.seen.won and len(said) < limit:
        sandbox.run(command)
        said.append(command)
        command = expert.act(command, sandbox.seen.feedback)
    return said


# --- generation


def test_a_game_is_a_function_of_split_and_seed_and_the_families_take_turns() -> None:
    games = [generate("train", seed) for seed in range(12)]
    assert [game.family for game in games] == [*FAMILIES, *FAMILIES]
    assert [generate("train", seed) for seed in range(12)] == games
    assert len({game.files for game in games}) == 12


def test_held_out_games_are_in_rooms_that_training_never_sees() -> None:
    rooms = {split: {generate(split, seed).scene.number for seed in range(240)} for split in ("train", "test")}
    assert rooms["test"] <= rules().test_scenes
    assert not rooms["train"] & rules().test_scenes
    assert len(rooms["train"]) > 40 and len(rooms["test"]) > 12


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_goal_holds_at_the_start_and_what_it_needs_is_there(split: str) -> None:
    known = rules()
    for seed in range(240):
        game = generate(split, seed)  # type: ignore[arg-type]  # mypy does not know the parameters
        kinds = [item.kind for item in game.items]
        placed = [(item.kind, game.scene.receptacles[item.receptacle]) for item in game.items]
        assert (game.target, game.parent) not in placed
        assert kinds.count(game.target) >= (2 if game.family == "pick_two_obj_and_place" else 1)
        if game.parent:
            assert game.parent in game.scene.receptacles.values() and game.target in known.holds[game.parent]
        needed = {"look_at_obj_in_light": "DeskLamp"}.get(game.family)
        assert needed is None or needed in kinds
        assert all(kind in known.holds[where] for kind, where in placed if kind != "DeskLamp")
        assert len({item.identity for item in game.items}) == len(game.items)


def test_all_120_floor_plans_can_be_read_and_every_receptacle_has_a_place() -> None:
    for numbers in rules().rooms.values():
        for number in numbers:
            here = scene(number)
            assert here.receptacles.keys() == here.places.keys() and here.receptacles
            assert set(here.receptacles.values()) <= set(rules().holds)


def test_small_rooms_are_small_and_every_family_has_them_in_both_splits() -> None:
    for split in ("train", "test"):
        games = [generate(split, seed, small=True) for seed in range(24)]  # type: ignore[arg-type]  # as above
        assert [game.family for game in games] == [*FAMILIES] * 4
        assert max(len(game.receptacles) for game in games) <= 20
    assert held_out_games("alfworld_small", 1, admissible=False)[0].task.id == "alfworld_small-test-0"


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(TaskError, match="alfworld split 'valid' is unknown"):
        generate("valid", 0)  # type: ignore[arg-type]  # on purpose


# --- the engine


@pytest.mark.parametrize("seed", range(6))
def test_the_engine_plays_every_family_and_says_what_the_statement_says(games: GameSandboxes, seed: int) -> None:
    task = task_of(generate("test", seed), admissible=True)
    with games.open(task) as sandbox:
        listed = "\n".join(c for c in sandbox.seen.admissible if c != "help")
        assert task.text == f"{sandbox.seen.feedback}\n\nAdmissible actions:\n{listed}"
        moves = solve(sandbox, task)
        assert sandbox.seen.won and 0 < len(moves) <= 50
        graded = GameGrader().grade_patch(task, sandbox.diff())
        assert (graded.reason, graded.output.split(",")[0]) == ("won", f"{len(moves)} moves")


@pytest.mark.parametrize("seed", [2, 5, SMALL_ROOM])
def test_the_simulation_answers_as_the_engine_does_word_for_word(games: GameSandboxes, seed: int) -> None:
    game = generate("train", seed)
    with games.open(task_of(game, admissible=False)) as sandbox:
        for text, observation in demonstrate_game(game, random.Random(seed), noise=0.3):
            result = sandbox.run(PARSERS["action"](text, load_agent("alfworld_small").tools).arguments["command"])
            assert result.over is (observation == "")
            assert result.over or result.stdout.decode() == observation


def test_the_simulation_admits_what_the_engine_admits(games: GameSandboxes) -> None:
    """Random play: every simulated command, admitted or not, gives the engine's words and the engine's verdict."""
    game, stream = generate("train", SMALL_ROOM), random.Random(1)
    names = [*game.receptacles, *(name for name in Simulation(game)._order)]
    simulation, refused = Simulation(game), 0
    with games.open(task_of(game, admissible=False)) as sandbox:
        for _ in range(120):
            known = [
                c for c in sandbox.seen.admissible if c.split()[0] in ("go", "open", "close", "take", "move", "clean")
            ]
            one, two = stream.choice(names), stream.choice(game.receptacles)
            made_up = stream.choice([f"take {one} from {two}", f"move {one} to {two}", f"open {two}", f"go to {two}"])
            command = stream.choice(known) if stream.random() < 0.6 else made_up
            result = sandbox.run(command)
            assert simulation.run(command) == sandbox.seen.feedback, command
            assert simulation.won == result.over
            assert (result.exit_code == 1) == (sandbox.seen.feedback == NOTHING)
            refused += result.exit_code
            if result.over:
                break
    assert refused > 5


def test_episodes_of_one_game_share_nothing(games: GameSandboxes) -> None:
    task = small()
    with games.open(task) as one, games.open(task) as other:
        solve(one, task)
        assert one.seen.won and not other.seen.won
        assert other.run("inventory").stdout == b"You are not carrying anything."
        assert json.loads(other.diff()) == {"won": False, "moves": [{"command": "inventory", "valid": True}]}


def test_what_a_game_says_does_not_depend_on_the_process_it_runs_in(games: GameSandboxes) -> None:
    task = small(admissible=True)

    def play(sandboxes: GameSandboxes) -> list[bytes]:
        with sandboxes.open(task) as sandbox:
            stream = random.Random(3)
            return [sandbox.run(stream.choice(sandbox.seen.admissible)).stdout for _ in range(15)]

    first = play(games)
    with GameSandboxes() as fresh:
        assert play(games) == play(fresh) == first


def test_an_inadmissible_command_is_an_observation_and_is_counted(games: GameSandboxes) -> None:
    with games.open(small()) as sandbox:
        for command in ("", "fly", "go to nowhere 7", "look\nlook", "look"):
            result = sandbox.run(command)
            assert (result.exit_code, result.over) == (0 if command == "look" else 1, False)
        assert GameGrader().grade_patch(small(), sandbox.diff()).reward == pytest.approx(-0.4)
        with pytest.raises(FileNotFoundError):
            sandbox.read("x")


def test_a_statement_that_is_not_how_the_game_begins_is_the_tasks_fault(games: GameSandboxes) -> None:
    with pytest.raises(TaskError, match=f"^alfworld-train-{SMALL_ROOM}: the game begins otherwise"):
        games.open(replace(small(), statement=(Part("text", "You are somewhere else."),)))
    with pytest.raises(TaskError, match=r"^t: it is no game"):
        games.open(Task("t", ()))


# --- processes


def send(sandbox: GameSandbox, number: int) -> None:
    assert sandbox._process is not None
    signal.pidfd_send_signal(sandbox._process, number)


def test_a_game_that_hangs_and_one_that_dies_are_the_sandboxs_failure() -> None:
    with GameSandboxes(SandboxLimits(command_timeout_s=0.5)) as games:
        with games.open(small()) as hanging:
            send(hanging, signal.SIGSTOP)
            with pytest.raises(SandboxTimeout, match=r"no answer in 0 s|no answer in 1 s"):
                hanging.run("look")
            assert not hanging.alive()
        with games.open(small()) as dying:
            send(dying, signal.SIGKILL)
            with pytest.raises(SandboxGone):
                dying.run("look")
        with games.open(small()) as third:  # the others did it no harm
            assert third.run("look").exit_code == 0


def test_a_game_without_memory_to_load_fails_and_a_server_that_is_killed_is_started_again() -> None:
    said = "hung up: killed, or short of its 64 MB, or not loaded within 60 s"
    with GameSandboxes(SandboxLimits(memory_mb=64)) as games, pytest.raises(SandboxGone, match=said):
        games.open(small())
    with GameSandboxes() as games:
        games.open(small()).close()
        assert games._server is not None
        games._server.kill()
        games._server.wait()
        with games.open(small()) as again:
            assert again.run("look").exit_code == 0


def processes_of(folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if folder.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_nothing_is_left_behind_and_this_process_never_imports_the_engine() -> None:
    before = dict(os.environ)
    with GameSandboxes() as games:
        assert games._folder is not None
        folder = games._folder.name
        sandboxes = [games.open(small()) for _ in range(3)]
        assert len(processes_of(folder)) == 5  # server, template, three players
        sandboxes[0].close()
    deadline = time.monotonic() + 10
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(folder) == [] and not os.path.exists(folder)
    assert dict(os.environ) == before
    assert not {"textworld", "alfworld", "fast_downward"} & sys.modules.keys()


# --- episodes, as a trainer plays them


def play(games: GameSandboxes, task: Task, say: "dict[int, str] | None" = None, *, steps: int = 50) -> Trajectory:
    """An episode in which our expert speaks, and something else at the turns of `say`."""
    expert, commands = Expert(aim_of(task)), []

    def script(ask: AskPolicy) -> str:
        seen = ask.messages[-1]["content"]
        turn = ask.seed[-1]
        commands.append(expert.begin(seen) if turn == 0 else expert.act(commands[-1], seen))
        text = (say or {}).get(turn)
        if text is not None:
            commands[-1] = "nothing"
        return text or f"<action>{commands[-1]}</action>"

    chat = load_model("builtin/demo-policy", device="cpu").chat
    limits = Limits(steps, 100_000, None, None, submit_unfinished=True)
    setting = Setting(load_agent("alfworld_small"), limits, "keep_thinking", chat, games)
    return run_thread(EpisodeRun(setting, task, GameGrader(), 0, 0, (1,)), ScriptedPolicy(script, chat))


def test_a_won_episode_is_finished_and_has_the_papers_reward(games: GameSandboxes) -> None:
    trajectory = play(games, small())
    assert (trajectory.termination, trajectory.reward, trajectory.reward_reason) == (Termination.FINISHED, 10.0, "won")
    assert trajectory.retries == () and trajectory.turns[-1].observation.startswith("You move the")
    wrong = play(games, small(), {0: "hello", 2: "<action>fly</action>"})
    assert (wrong.termination, wrong.reward) == (Termination.FINISHED, pytest.approx(9.8))
    assert wrong.turns[0].observation == NOTHING


def test_an_unfinished_episode_pays_for_its_invalid_actions(games: GameSandboxes) -> None:
    trajectory = play(games, small(), dict.fromkeys(range(4), "hello"), steps=4)
    assert (trajectory.termination, trajectory.reward) == (Termination.MAX_STEPS, pytest.approx(-0.4))


def test_an_episode_whose_game_dies_goes_on_in_another(games: GameSandboxes) -> None:
    class Mortal(GameSandboxes):
        """Its first game dies at its third move."""

        deaths = 0

        def open(self, task: Task, **options: object) -> GameSandbox:  # type: ignore[override]  # passes them on
            sandbox = games.open(task)
            played, moves = sandbox.run, 0

            def run(command: str, **more: object):  # type: ignore[no-untyped-def]  # passes them on
                nonlocal moves
                moves += 1
                if moves == 3 and not self.deaths:
                    self.deaths += 1
                    send(sandbox, signal.SIGKILL)
                return played(command)

            sandbox.run = run  # type: ignore[method-assign]  # a game with a fault
            return sandbox

    mortal = Mortal()
    trajectory = play(mortal, small())
    assert mortal.deaths == 1 and len(trajectory.retries) == 1
    assert (trajectory.reward, [t.observation for t in trajectory.turns]) == (
        10.0, [t.observation for t in play(games, small()).turns]
    )  # fmt: skip


# --- problems of a recipe


def test_training_and_held_out_problems_are_what_a_recipe_asks_for() -> None:
    pool = training_games("alfworld", 4, 7, admissible=True)
    assert [p.task.id for p in pool] == [f"alfworld-train-{700_000 + i}" for i in range(4)]
    held = held_out_games("alfworld", 3, admissible=False)
    assert [p.task.id for p in held] == [f"alfworld-test-{i}" for i in range(3)]
    assert "Admissible actions:\ngo to" in pool[0].task.text and "Admissible" not in held[0].task.text


def test_games_in_alfworlds_folders_are_played_as_they_are(tmp_path: Path) -> None:
    """Our own games, laid out as the download lays out its own."""
    for seed in (SMALL_ROOM, 8):
        game = generate("train", seed)
        folder = tmp_path / f"{game.family}-{seed}" / "trial"
        folder.mkdir(parents=True)
        for name, data in game.files:
            (folder / name).write_bytes(data)
    problems = held_out_games(f"alfworld:{tmp_path}", 5, admissible=False)
    assert sorted(p.task.text for p in problems) == sorted(generate("train", s).intro for s in (SMALL_ROOM, 8))


def test_the_expert_of_alfworld_can_be_asked(games: GameSandboxes) -> None:
    with games.open(small(), expert=True, seed=1) as sandbox:
        assert sandbox.seen.expert == "look"
        for _ in range(50):
            if sandbox.seen.won or sandbox.seen.expert is None:
                break
            assert sandbox.seen.expert in sandbox.seen.admissible
            sandbox.run(sandbox.seen.expert)
        assert sandbox.seen.won


def test_the_command_says_which_families_there_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aem_swe.cli", "tasks", "worlds", "-n", "1", "--split", "test", "-o", "table.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["family"] for row in table["families"]] == list(FAMILIES)
    assert all(row["present"] for row in table["families"]) and done.stdout.count("present") == 6
