"""What games need of the seams, with no game engine: the action, how an episode ends, rewards, problems in PDDL."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import AskPolicy, Grade, Limits, RunTool, episode
from aem_swe.agents.parser import PARSERS
from aem_swe.agents.policy import ScriptedPolicy
from aem_swe.agents.tools import ToolResult
from aem_swe.config import load_recipe
from aem_swe.engines.local.model import load_model
from aem_swe.engines.problems import load_problems
from aem_swe.errors import ConfigError, SandboxUnavailable, TaskError
from aem_swe.resources import resource
from aem_swe.tasks.grading import PatchGrader
from aem_swe.types import Graded, Part, Task, Termination, ToolCall
from aem_swe.worlds import is_world
from aem_swe.worlds.expert import aim_of
from aem_swe.worlds.games import GameSandboxes
from aem_swe.worlds.generate import numbered
from aem_swe.worlds.layouts import Rules, Scene, missing
from aem_swe.worlds.official import folder_of, game_folders, read_games
from aem_swe.worlds.pddl import Item, goal_of, spell, write_problem
from aem_swe.worlds.reward import HELD_OUT, GameGrader
from aem_swe.worlds.sandbox import Seen, observation
from aem_swe.worlds.survey import Attempt, standings

AGENTS = ["alfworld", "alfworld_small"]
TASK = Task("game", (Part("text", "You are in a room."),))


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    return load_model("builtin/demo-policy", device="cpu").chat


# --- the action


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("<think>a desk</think>\n<action>go to desk 1</action>", "go to desk 1"),
        ("<action> look\n</action>", "look"),
        ("<action>look</action><action>inventory</action>", "look"),
        ("<action>go to", ""),
        ("go to desk 1", ""),
        ("", ""),
    ],
)
def test_every_response_is_a_move_and_one_without_an_action_is_an_empty_one(
    agent: str, text: str, command: str
) -> None:
    assert PARSERS["action"](text, load_agent(agent).tools) == ToolCall("act", {"command": command})


def test_the_action_format_wants_one_tool_that_takes_a_command(tmp_path: Path) -> None:
    content = yaml.safe_load(resource("agents", "demo/agent.yaml").read_text()) | {"action_format": "action"}
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "agent.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match="has action_format 'action'; give it one tool, with shell"):
        load_agent(str(folder))


# --- how an episode ends


def moves(chat: ChatFormat, results: Sequence[ToolResult]) -> tuple[list[str], Termination, float | None]:
    """Play an episode in which the n-th move has the n-th result; the grader says 7."""
    run = episode(
        TASK,
        load_agent("alfworld_small"),
        Limits(3, 10_000, None, None, True),
        chat,
        seed=(1,),
        history="keep_thinking",
    )
    policy = ScriptedPolicy(lambda ask: "<action>look</action>", chat)
    said, waiting, step = [], list(results), next(run)
    while True:
        try:
            if isinstance(step, AskPolicy):
                step = run.send(policy.respond(step))
            elif isinstance(step, RunTool):
                said.append(step.call.arguments["command"])
                step = run.send(waiting.pop(0))
            else:
                assert isinstance(step, Grade)
                step = run.send(Graded(7.0, "won"))
        except StopIteration as stop:
            ending = stop.value
            assert [turn.observation for turn in ending.turns] == [result.observation for result in results]
            return said, ending.termination, ending.graded.reward if ending.graded else None


def test_a_game_that_is_over_ends_the_episode_without_a_call_to_finish(chat: ChatFormat) -> None:
    results = [ToolResult("a room"), ToolResult("You have won.", over=True)]
    assert moves(chat, results) == (["look", "look"], Termination.FINISHED, 7.0)


def test_a_game_that_is_not_over_ends_at_the_last_step_and_is_graded_too(chat: ChatFormat) -> None:
    results = [ToolResult("a room")] * 3
    assert moves(chat, results) == (["look"] * 3, Termination.MAX_STEPS, 7.0)


# --- rewards


def record(*valid: bool, won: bool) -> bytes:
    return json.dumps({"won": won, "moves": [{"command": "look", "valid": one} for one in valid]}).encode()


@pytest.mark.parametrize(
    ("diff", "reward", "held_out", "reason"),
    [
        (record(True, True, won=True), 10.0, 1.0, "won"),
        (record(True, False, False, won=True), 9.8, 1.0, "won"),
        (record(won=False), 0.0, 0.0, "not_won"),
        (record(*[False] * 50, won=False), -5.0, 0.0, "not_won"),
    ],
)
def test_winning_is_worth_10_and_an_invalid_action_costs_a_tenth_and_held_out_games_count_wins_only(
    diff: bytes, reward: float, held_out: float, reason: str
) -> None:
    graded = GameGrader().grade_patch(TASK, diff)
    assert graded.reward == pytest.approx(reward) and graded.reason == reason
    assert HELD_OUT.grade_patch(TASK, diff).reward == held_out
    assert isinstance(GameGrader(), PatchGrader)  # so nobody opens a second game to grade in


def test_the_list_of_admissible_actions_is_shown_only_where_asked_for_and_never_after_winning() -> None:
    seen = Seen("A room.", ("go to desk 1", "help", "look"), won=False, valid=True, expert=None)
    assert observation(seen, admissible=False) == "A room."
    assert observation(seen, admissible=True) == "A room.\n\nAdmissible actions:\ngo to desk 1\nlook"
    won = Seen("A room.", ("look",), won=True, valid=True, expert=None)
    assert observation(won, admissible=True) == "A room."


# --- problems in PDDL

RULES = Rules(
    domain="",
    grammar="",
    goals={},
    holds={
        "Desk": frozenset({"Pen"}),
        "Drawer": frozenset({"Pen", "Mug"}),
        "SinkBasin": frozenset({"Mug"}),
        "Microwave": frozenset(),
        "Fridge": frozenset(),
    },
    openable=frozenset({"Drawer"}),
    properties={"Cleanable": frozenset({"Mug"}), "Heatable": frozenset(), "Coolable": frozenset(),
                "Sliceable": frozenset(), "Toggleable": frozenset({"DeskLamp"})},
    rooms={},
    rooms_of_family={},
    test_scenes=frozenset(),
)  # fmt: skip
HOUSE = Scene(1, {"Desk|+1.0": "Desk", "Drawer|-2.0": "Drawer"}, {"Desk|+1.0": (4, 0, 1, 30), "Drawer|-2.0": (4, 0, 1, 30)}, ())  # fmt: skip  # noqa: E501


def test_ids_are_spelled_as_pddl_can_have_them() -> None:
    assert spell("Pen|+01.50|-00.25") == "Pen_bar__plus_01_dot_50_bar__minus_00_dot_25"


def test_the_goals_surplus_parentheses_are_the_problems_and_are_dropped() -> None:
    assert goal_of("\n(:goal\n (exists (?r # receptacle)\n (at ?r {obj}Type)))\n)\n", {"obj": "Pen"}) == (
        "(:goal (exists (?r - receptacle) (at ?r PenType)))"
    )


def test_a_problem_says_what_is_where_and_what_can_be_done_with_it() -> None:
    items = (Item("Mug|+3.0", "Mug", "Drawer|-2.0"), Item("DeskLamp|+5.0", "DeskLamp", "Desk|+1.0"))
    problem = write_problem("p", HOUSE, items, "(:goal (and))", RULES)
    assert problem.count("(") == problem.count(")")
    facts = set(problem.splitlines())
    desk, drawer, place = spell("Desk|+1.0"), spell("Drawer|-2.0"), spell("loc|4|0|1|30")
    assert {
        f"(inReceptacle {spell('Mug|+3.0')} {drawer})",
        f"(pickupable {spell('Mug|+3.0')})",
        f"(cleanable {spell('Mug|+3.0')})",
        f"(toggleable {spell('DeskLamp|+5.0')})",
        f"(openable {drawer})",
        f"(receptacleAtLocation {desk} {place})",
        "(canContain DrawerType MugType)",
        "(canContain SinkBasinType MugType)",
    } <= facts
    assert not {f"(pickupable {spell('DeskLamp|+5.0')})", f"(openable {desk})", "(canContain DeskType MugType)"} & facts


def test_of_a_kind_the_first_id_has_the_highest_number_and_basins_say_so() -> None:
    ids = ["Shelf|-1", "Shelf|+2", "Sink|+1|SinkBasin", "Desk|0"]
    assert numbered(ids) == {
        "Desk|0": "desk 1", "Shelf|-1": "shelf 2", "Shelf|+2": "shelf 1", "Sink|+1|SinkBasin": "sinkbasin 1"
    }  # fmt: skip
    assert list(numbered(ids).values()) == ["desk 1", "shelf 2", "shelf 1", "sinkbasin 1"]


# --- where games come from


@pytest.mark.parametrize(
    ("source", "world"),
    [("alfworld", True), ("alfworld:train", True), ("demo", False), ("", False), ("x/alfworld", False)],
)
def test_a_source_names_a_world_by_its_first_word(source: str, world: bool) -> None:
    assert is_world(source) is world


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["sandbox=docker"],
            "data.source 'alfworld_small' brings processes of its own; use sandbox=local, no protocol",
        ),
        (["agent.definition=demo"], "agent.definition 'demo' cannot play games; use agent.definition=alfworld"),
        (["data.held_out=demo"], "data.held_out 'demo' is no world as data.source is; use data.held_out=alfworld"),
    ],
)
def test_a_recipe_that_cannot_play_games_is_refused_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_problems(load_recipe("demo_alfworld", overrides))
    assert str(caught.value) == said


@pytest.mark.parametrize("name", ["demo_alfworld", "alfworld"])
def test_recipes_with_and_without_aem_differ_in_one_line(name: str) -> None:
    one, other = (resource("configs", f"{file}.yaml").read_text().splitlines() for file in (name, f"{name}_aem"))
    differing = [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]]
    assert differing == [("  enabled: false", "  enabled: true")]


def test_without_the_extra_one_line_says_how_to_install_it() -> None:
    reason = missing()
    if reason is None:
        pytest.skip("the extra is installed here; an environment without it runs this test")
    assert "pip install 'aem-swe[alfworld]'" in reason and "\n" not in reason
    with pytest.raises(ConfigError, match=r"aem-swe\[alfworld\]"):
        load_problems(load_recipe("demo_alfworld"))
    with pytest.raises(SandboxUnavailable, match=r"aem-swe\[alfworld\]"), GameSandboxes():
        pass


# --- downloaded games


def write_game(folder: Path, *, family: str = "pick_and_place_simple", **game: object) -> None:
    folder.mkdir(parents=True)
    (folder / "game.tw-pddl").write_text(json.dumps({"pddl_problem": "", **game}))
    wanted = {"object_target": "Mug", "parent_target": "Desk"}
    (folder / "traj_data.json").write_text(json.dumps({"task_type": family, "pddl_params": wanted, "images": [1] * 99}))


def test_downloaded_games_leave_out_what_alfworld_leaves_out(tmp_path: Path) -> None:
    write_game(tmp_path / "pick-Mug-1" / "trial_1", solvable=True)
    write_game(tmp_path / "pick-Mug-2" / "trial_2", solvable=False)
    write_game(tmp_path / "pick-MugSliced-3" / "trial_3", solvable=True)
    write_game(tmp_path / "pick_and_place_with_movable_recep-4" / "trial_4", solvable=True)
    write_game(tmp_path / "other-5" / "trial_5", family="place_all_obj_type_into_recep")
    (tmp_path / "pick-Mug-6").mkdir()
    (tmp_path / "pick-Mug-6" / "game.tw-pddl").write_text("{}")  # no traj_data.json
    [(identity, files)] = read_games(game_folders(tmp_path))
    assert identity == "pick-Mug-1-trial_1"
    about = json.loads(dict(files)["traj_data.json"])
    assert about == {
        "task_type": "pick_and_place_simple",
        "pddl_params": {"object_target": "Mug", "parent_target": "Desk"},
    }
    aim = aim_of(Task("t", (), files=files))
    assert (aim.family, aim.target, aim.parent) == ("pick_and_place_simple", "mug", "desk")


def test_the_name_of_a_split_is_looked_up_in_alfworlds_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    with pytest.raises(ConfigError, match="data 'alfworld:valid_seen' is no folder, and ALFWORLD_DATA is not set"):
        folder_of("valid_seen")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match=r"nor in .*json_2.1.1"):
        folder_of("valid_seen")
    (tmp_path / "json_2.1.1" / "valid_seen").mkdir(parents=True)
    assert folder_of("valid_seen") == tmp_path / "json_2.1.1" / "valid_seen"
    with pytest.raises(ConfigError, match="holds no game that can be played"):
        game_folders(folder_of("valid_seen"))


def test_a_task_that_does_not_say_its_goal_is_named() -> None:
    with pytest.raises(TaskError, match=r"^game: its traj_data.json does not say"):
        aim_of(TASK)


# --- the table of the expert


def test_a_family_is_present_from_95_percent_on() -> None:
    attempts = [Attempt(str(i), "pick_and_place_simple", "", i > 0, 6) for i in range(20)]
    attempts += [Attempt(str(i), "pick_two_obj_and_place", "", i > 1, 9) for i in range(20)]
    simple, two = standings(attempts)
    assert (simple.family, simple.won, simple.games, simple.present, simple.mean_moves) == (
        "pick_and_place_simple", 19, 20, True, 6.0
    )  # fmt: skip
    assert (two.won, two.present) == (18, False)
    assert simple.low == pytest.approx(0.7513, abs=1e-4)  # Clopper-Pearson for 19 of 20, from tables
    assert simple.high == pytest.approx(0.9987, abs=1e-4)
