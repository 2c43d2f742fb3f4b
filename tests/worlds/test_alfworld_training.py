"""Warm start and reinforcement learning on games, small: the whole way runs, in the real engine. Needs the extra."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.worlds.demonstrations import demonstrate_game
from aem_swe.worlds.generate import generate
from aem_swe.worlds.source import task_of

pytestmark = pytest.mark.usefixtures("alfworld")
QUICK = [
    "trainer.steps=1", "sampling.prompts=2", "sampling.rollouts=2", "data.pool=2", "agent.max_steps=3",
    "agent.max_response_tokens=200", "trainer.eval_tasks=2", "trainer.eval_every=1", "trainer.minibatches=1",
]  # fmt: skip


def test_a_demonstration_is_encoded_as_an_episode_would_be() -> None:
    import random

    from aem_swe.engines.local.game_policy import AGENT, GAMES

    tokenizer = GAMES.tokenizer()
    chat = ChatFormat.of(tokenizer)
    example = GAMES.encode(8, random.Random(1), tokenizer, chat, 0.0)
    game, definition = generate("train", 8, small=True), load_agent(AGENT)
    first = definition.first_message(task_of(game, admissible=False))
    prompt = chat.first_prompt(definition.system, first)
    assert example.ids[: len(prompt)] == list(prompt) and not any(example.sampled[: len(prompt)])
    said, current = [], []
    for token, sampled in zip(example.ids, example.sampled, strict=True):
        if sampled:
            current.append(token)
        elif current:
            said.append(chat.text(current))
            current = []
    said.append(chat.text(current))
    assert said == [text for text, _ in demonstrate_game(game, random.Random(1), noise=0.0)]
    assert len(example.ids) <= GAMES.positions
    assert tokenizer.encode("<action>", add_special_tokens=False) != tokenizer.encode("action")
    assert len(tokenizer.encode(" cabinet 12", add_special_tokens=False)) == 2


def test_a_policy_is_made_judged_and_trained_and_the_same_seed_gives_the_same_run(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    made = run(
        "warm-start", "--world", "alfworld", "--out", "policy", "--steps", "2", "--threads", "1", "--episodes", "2"
    )
    assert (made.code, made.err) == (0, "")
    assert json.loads((tmp_path / "policy" / "warm_start.json").read_text())["episodes"] == 2
    rows = []
    for name in ("a", "b"):
        ended = run("train", "demo_alfworld_aem", f"run_dir={name}", "model.path=policy", *QUICK)
        assert (ended.code, ended.err) == (0, "")
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        rows.append([{k: v for k, v in json.loads(line).items() if not k.startswith("timing")} for line in lines])
    assert rows[0] == rows[1]
    first, last = rows[0]
    assert first["val/episodes"] == 2 and first["val/infrastructure_error"] == 0
    assert last["rollout/trajectories"] == 4 and -0.3 <= last["critic/rewards/mean"] <= 10.0
    [kept] = (tmp_path / "a" / "trajectories").glob("step_*")
    for line in kept.read_text().splitlines():
        episode = json.loads(line)
        said = [turn["action"]["arguments"]["command"] for turn in episode["turns"] if "arguments" in turn["action"]]
        assert [move["command"] for move in json.loads(episode["diff"])["moves"]] == [" ".join(c.split()) for c in said]
