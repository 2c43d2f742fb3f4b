"""EndpointPolicy against real vLLM: exact ids over whole episodes, and the log-probs that the embedded engine gives."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from served_episodes import WatchedPolicy, play, reported, rescored, turns_of
from vllm_server import serving

from aem_swe.engines.local.checkpoint import save_checkpoint
from aem_swe.engines.local.model import LocalModel, load_model, score
from aem_swe.resources import resource
from aem_swe.sandboxes import Sandboxes
from aem_swe.types import Termination, Trajectory

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]  # warnings of libraries that we do not choose
EXACT = 1e-4
OTHER_TEMPERATURE = 0.6


def furthest(one: torch.Tensor, other: torch.Tensor) -> float:
    assert len(one) > 200, "enough tokens to mean something"
    return float((one - other).abs().max())


# --- the shipped policy, served as a user would


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(resource("agents", "demo/policy"), tmp_path_factory.mktemp("vllm")) as url:
        yield url


@pytest.fixture(scope="module")
def played(url: str, shipped: LocalModel, sandboxes: Sandboxes) -> tuple[WatchedPolicy, list[Trajectory]]:
    with WatchedPolicy(url, shipped, temperature=1.0) as policy:
        return policy, play(policy, shipped, sandboxes)


def test_vllm_sees_and_samples_exactly_the_ids_of_the_episodes(
    played: tuple[WatchedPolicy, list[Trajectory]], shipped: LocalModel
) -> None:
    policy, trajectories = played
    turns = turns_of(trajectories)
    assert len(policy.answers) == len(turns)
    by_prompt_and_response = sorted((turn.prompt_ids, turn.response_ids) for turn in turns)
    seen = sorted((tuple(a["prompt_token_ids"]), tuple(a["token_ids"])) for _, a in policy.answers)
    assert seen == by_prompt_and_response
    for ask, answer in policy.answers:
        assert tuple(answer["prompt_token_ids"]) == ask.prompt_ids
    for turn in turns:
        assert (turn.response_ids[-1] == shipped.chat.end_id) == (turn.finish_reason == "stop")
        assert shipped.chat.end_id not in turn.response_ids[:-1]
        assert turn.text == shipped.chat.text(turn.response_ids)


def test_every_prompt_starts_with_all_ids_of_the_turn_before(played: tuple[WatchedPolicy, list[Trajectory]]) -> None:
    _, trajectories = played
    followed = 0
    for trajectory in trajectories:
        for before, after in zip(trajectory.turns, trajectory.turns[1:], strict=False):
            everything = before.prompt_ids + before.response_ids
            assert after.prompt_ids[: len(everything)] == everything
            assert len(after.prompt_ids) > len(everything)
            followed += 1
    assert followed >= 10


def test_the_served_policy_solves_tasks_in_real_sandboxes(played: tuple[WatchedPolicy, list[Trajectory]]) -> None:
    _, trajectories = played
    assert all(trajectory.termination is not Termination.INFRASTRUCTURE_ERROR for trajectory in trajectories)
    assert not any(trajectory.retries for trajectory in trajectories)
    finished = [trajectory for trajectory in trajectories if trajectory.termination is Termination.FINISHED]
    assert any(trajectory.reward == 1.0 for trajectory in finished)


def test_vllms_log_probs_are_those_of_the_embedded_engine(
    played: tuple[WatchedPolicy, list[Trajectory]], shipped: LocalModel
) -> None:
    turns = turns_of(played[1])
    assert furthest(reported(turns), rescored(shipped, turns, temperature=1.0)) < EXACT
    assert reported(turns).min() < -1.0, "tokens that were not certain"
    assert furthest(reported(turns), rescored(shipped, turns, temperature=OTHER_TEMPERATURE)) > 0.1


def test_without_the_flag_log_probs_are_those_of_temperature_1(
    url: str, shipped: LocalModel, sandboxes: Sandboxes
) -> None:
    with WatchedPolicy(url, shipped, temperature=OTHER_TEMPERATURE) as policy:
        turns = turns_of(play(policy, shipped, sandboxes, problems=2))
    assert furthest(reported(turns), rescored(shipped, turns, temperature=1.0)) < EXACT
    assert furthest(reported(turns), rescored(shipped, turns, temperature=OTHER_TEMPERATURE)) > 0.1


# --- a checkpoint of the embedded engine, served with log-probs of the sampling temperature


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalModel, Path]:
    """The policy after one update that moves it far, and its checkpoint."""
    model = load_model("builtin/demo-policy", device="cpu")
    optimizer = torch.optim.AdamW(model.parameters, lr=5e-3)
    tokens = torch.randint(3, 500, (2, 64), generator=torch.Generator().manual_seed(0))
    sampled = torch.ones_like(tokens, dtype=torch.bool)
    sampled[:, 0] = False
    (-score(model, tokens, sampled, temperature=1.0).logprobs_BT.mean()).backward()
    optimizer.step()
    optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("checkpoints")
    save_checkpoint(folder, 1, model, optimizer)
    return model, folder / "step_000001"


@pytest.fixture(scope="module")
def trained_url(trained: tuple[LocalModel, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(trained[1], tmp_path_factory.mktemp("vllm"), "--logprobs-mode", "processed_logprobs") as url:
        yield url


@pytest.mark.parametrize("temperature", [1.0, OTHER_TEMPERATURE])
def test_a_checkpoint_of_the_embedded_engine_is_the_same_policy_in_vllm(
    trained: tuple[LocalModel, Path],
    trained_url: str,
    shipped: LocalModel,
    sandboxes: Sandboxes,
    temperature: float,
) -> None:
    model, _ = trained
    with WatchedPolicy(trained_url, model, temperature=temperature) as policy:
        turns = turns_of(play(policy, model, sandboxes))
    assert furthest(reported(turns), rescored(model, turns, temperature=temperature)) < EXACT
    assert furthest(reported(turns), rescored(shipped, turns, temperature=temperature)) > 100 * EXACT, (
        "the update shows"
    )
    other = 1.0 if temperature == OTHER_TEMPERATURE else OTHER_TEMPERATURE
    assert furthest(reported(turns), rescored(model, turns, temperature=other)) > 0.1
