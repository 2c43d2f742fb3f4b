"""The journal and the player, in real local sandboxes: what was answered is never asked again, whatever was cut off."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import AskPolicy, Limits
from aem_swe.agents.policy import ScriptedPolicy, turn_of
from aem_swe.agents.tools import ToolResult
from aem_swe.engines.local.model import LocalModel, load_model
from aem_swe.errors import ContextExceeded, PolicyError, RunError, UnusableAnswer
from aem_swe.eval.swebench.journal import Journal
from aem_swe.eval.swebench.play import LocalPlayer, Stopped
from aem_swe.eval.swebench.played import read_played, trajectory_path
from aem_swe.eval.swebench.protocol import Retries
from aem_swe.rollout import Setting
from aem_swe.sandboxes import Sandboxes, SandboxLimits, open_sandboxes, unavailable_reason
from aem_swe.tasks.demo import make_problem
from aem_swe.tasks.demonstrations import call
from aem_swe.tasks.grading import Problem
from aem_swe.types import Response

DEMO = make_problem("train", 3)
PROBLEM = Problem(DEMO.task(), DEMO.grader())
FILE = f"{DEMO.target.module}.py"
TURNS = (
    call("execute_bash", cmd="date +%s%N; echo one >> notes.txt"),  # never the same twice, but for words
    "no call at all",
    call("execute_bash", cmd=f"cat notes.txt; sed -i s/return/return\\ /  {FILE}"),
    call("finish", command="submit"),
)
LIMITS = Limits(max_steps=6, response_budget=800, max_response_tokens=100, submit_unfinished=True)


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return load_model("builtin/demo-policy", device="cpu")


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandboxes]:
    if reason := unavailable_reason("local"):
        pytest.skip(reason)
    with open_sandboxes("local", limits=SandboxLimits(), programs=load_agent("demo").programs()) as opened:
        yield opened


class Asked:
    """A policy by script that remembers which turns it was asked for, and may fail first."""

    def __init__(self, model: LocalModel, fail: Callable[[AskPolicy, int], Exception | None] = lambda ask, n: None):
        self.turns: list[int] = []
        self._fail = fail
        self._policy = ScriptedPolicy(lambda ask: TURNS[turn_of(ask)], model.chat)

    def respond(self, ask: AskPolicy) -> Response:
        self.turns.append(turn_of(ask))
        if error := self._fail(ask, len(self.turns)):
            raise error
        return self._policy.respond(ask)


def player(folder: Path, policy: Asked, model: LocalModel, sandboxes: Sandboxes, **changes: object) -> LocalPlayer:
    setting = Setting(load_agent("demo"), LIMITS, "keep_thinking", model.chat, sandboxes)
    given: dict[str, object] = {"retries": Retries(), "stopping": lambda: False, **changes}
    return LocalPlayer(setting, policy, folder, **given)  # type: ignore[arg-type]  # as the tests give it


def play(one: LocalPlayer) -> object:
    return one.play(1, PROBLEM, lambda prompt, completion: None)


def test_an_episode_is_kept_in_the_form_that_the_field_reads(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes
) -> None:
    policy = Asked(model)
    counted: list[tuple[int, int]] = []
    played = player(tmp_path, policy, model, sandboxes).play(1, PROBLEM, lambda *tokens: counted.append(tokens))
    place = tmp_path / "run_1" / PROBLEM.task.id
    kept = json.loads(trajectory_path(place).read_text())
    assert policy.turns == [0, 1, 2, 3] and played.turns == 4 and played.termination == "finished"
    assert (played.prompt_tokens, played.completion_tokens) == tuple(map(sum, zip(*counted, strict=True)))
    assert kept["trajectory_format"] == "mini-swe-agent-1.1" and kept["instance_id"] == PROBLEM.task.id
    assert kept["info"]["submission"] == played.patch and "+one" in (played.patch or "")
    assert [message["role"] for message in kept["messages"]] == ["user", *["assistant", "user"] * 3, "assistant"]
    said = [message["extra"]["action"] for message in kept["messages"] if message["role"] == "assistant"]
    assert said[0]["name"] == "execute_bash" and "error" in said[1] and said[3]["name"] == "finish"
    assert read_played(place) == played


def test_cut_off_anywhere_it_ends_as_if_it_had_not_been_and_asks_no_answered_turn_again(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes
) -> None:
    whole = player(tmp_path / "whole", Asked(model), model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
    content = (tmp_path / "whole/run_1" / PROBLEM.task.id / "journal.jsonl").read_bytes()
    borders = [index + 1 for index, byte in enumerate(content) if byte == 10]
    cuts = sorted({0, *borders, *(border - 3 for border in borders)})
    for cut in cuts:
        place = tmp_path / str(cut) / "run_1" / PROBLEM.task.id
        place.mkdir(parents=True)
        (place / "journal.jsonl").write_bytes(content[:cut])
        rows = [json.loads(line) for line in content[: content.rfind(b"\n", 0, cut) + 1].splitlines()]
        answered = [row["answered"] for row in rows if "answered" in row]
        pending = bool(rows) and "asked" in rows[-1]
        policy = Asked(model)
        played = player(tmp_path / str(cut), policy, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
        assert policy.turns == [turn for turn in range(4) if turn not in answered], cut
        assert (played.patch, played.termination, played.turns) == (whole.patch, whole.termination, 4)
        assert (played.prompt_tokens > 0, played.lost_requests) == (True, int(pending))
        lost = (played.lost_prompt_tokens, played.lost_completion_tokens)
        assert lost == (rows[-1]["prompt_tokens"] if pending else 0, 0)


def test_an_answer_that_cannot_be_used_is_asked_for_again_and_a_refusal_ends_the_attempt(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes
) -> None:
    policy = Asked(model, lambda ask, number: UnusableAnswer("not JSON") if number in (2, 3) else None)
    played = player(tmp_path / "a", policy, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
    assert policy.turns == [0, 1, 1, 1, 2, 3] and (played.attempts, played.termination) == (1, "finished")
    policy = Asked(model, lambda ask, number: PolicyError("switched off") if number == 3 else None)
    played = player(tmp_path / "b", policy, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
    assert policy.turns == [0, 1, 2, 0, 1, 2, 3] and (played.attempts, played.termination) == (2, "finished")
    first_two = sum(len(ids) for ids in _prompts(tmp_path / "b" / "run_1" / PROBLEM.task.id)[:2])
    lost = played.lost_prompt_tokens + played.lost_completion_tokens
    assert lost >= first_two > 0 and played.lost_requests == 0


def test_an_unusable_answer_is_paid_for_and_the_next_try_has_another_seed(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes
) -> None:
    seeds: list[tuple[int, ...]] = []

    def fail(ask: AskPolicy, number: int) -> Exception | None:
        seeds.append(ask.seed)
        error = UnusableAnswer("too long")
        error.usage = (1000, 7)
        return error if number in (2, 3) else None

    played = player(tmp_path, Asked(model, fail), model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
    assert (played.lost_prompt_tokens, played.lost_completion_tokens) == (2000, 14)
    assert len(set(seeds)) == len(seeds) and [seed[-1] for seed in seeds] == [0, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("kills", [1, 4])
def test_an_episode_that_cannot_go_on_where_it_was_cut_off_begins_anew_and_has_not_failed(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes, kills: int
) -> None:
    """mktemp names another file every time, so no replay gives what was read."""
    texts = (call("execute_bash", cmd="mktemp -u XXXXXXXXXXXXXX"), call("execute_bash", cmd="ls"), TURNS[-1])
    policy = ScriptedPolicy(lambda ask: texts[turn_of(ask)], model.chat)
    place = tmp_path / "run_1" / PROBLEM.task.id
    for _ in range(kills):
        cut = player(tmp_path, policy, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)  # type: ignore[arg-type]
        assert cut.termination == "finished"
        content = (place / "journal.jsonl").read_bytes()
        last = content.rindex(b'{"did"')  # of ls: as if the kill had come while it ran
        (place / "journal.jsonl").write_bytes(content[:last])
        trajectory_path(place).unlink()
    played = player(tmp_path, policy, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)  # type: ignore[arg-type]
    assert (played.termination, played.attempts) == ("finished", kills + 1)
    assert played.lost_prompt_tokens > 0


def _prompts(place: Path) -> list[range]:
    rows = [json.loads(line) for line in (place / "journal.jsonl").read_text().splitlines()]
    return [range(row["tokens"][0] + row["tokens"][1]) for row in rows if "answered" in row]


def test_what_the_world_fails_every_time_has_no_patch_and_may_be_tried_anew(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes
) -> None:
    broken = Asked(model, lambda ask, number: PolicyError("switched off"))
    played = player(tmp_path, broken, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
    assert (played.patch, played.attempts, played.reason) == (None, 3, "policy: switched off")
    assert not trajectory_path(tmp_path / "run_1" / PROBLEM.task.id).exists()
    works = Asked(model)
    anew = player(tmp_path, works, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
    assert anew.termination == "finished" and anew.attempts == 4


def test_a_full_context_ends_the_episode_and_is_the_models_own(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes
) -> None:
    full = Asked(model, lambda ask, number: ContextExceeded("too long") if number == 3 else None)
    played = player(tmp_path, full, model, sandboxes).play(1, PROBLEM, lambda *tokens: None)
    assert (played.termination, played.attempts, played.turns) == ("token_budget", 1, 2)
    assert played.patch and "+one" in played.patch


def test_an_evaluation_that_is_being_ended_keeps_nothing_of_what_an_episode_meets(
    tmp_path: Path, model: LocalModel, sandboxes: Sandboxes
) -> None:
    ended: list[bool] = []

    def fail(ask: AskPolicy, number: int) -> Exception | None:
        ended.append(True)
        return PolicyError("the connection was closed")

    one = player(tmp_path, Asked(model, fail), model, sandboxes, stopping=lambda: bool(ended))
    with pytest.raises(Stopped):
        play(one)
    content = (tmp_path / "run_1" / PROBLEM.task.id / "journal.jsonl").read_text()
    assert "failed" not in content


# --- the journal alone


def test_a_journal_counts_what_was_paid_for_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.asked(0, 100)
    journal.answered(0, Response("x", (), (), "stop", usage=(100, 7)), 100, 7, 0.5)
    journal.record(0, ToolResult("seen"))
    journal.failed("the machine was switched off")
    assert (journal.attempt, journal.lost_tokens, journal.answer(0), journal.recorded(0)) == (2, 107, None, None)
    journal.asked(0, 100)
    journal.close()
    again = Journal(tmp_path / "j.jsonl")
    assert (again.attempt, again.lost_tokens, again.lost_requests) == (2, 207, 1)
    again.close()


def test_answers_come_back_as_they_were(tmp_path: Path) -> None:
    said = Response("\ud800 half a character\n</script>", (1, 2), (), "length", 3, (4, 5))
    for _ in range(2):
        journal = Journal(tmp_path / "j.jsonl")
        if journal.turns == 0:
            journal.asked(0, 4)
            journal.answered(0, said, 4, 5, 0.1)
        kept = journal.answer(0)
        journal.close()
        assert kept is not None and (kept.text, kept.response_ids, kept.usage) == (said.text, (1, 2), (4, 5))
        assert kept.finish_reason == "length"


@pytest.mark.parametrize("line", ["[]", "nothing", '{"answered": 0}', '{"did": 0}'])
def test_a_file_that_is_no_journal_is_refused_and_stays(tmp_path: Path, line: str) -> None:
    (tmp_path / "j.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match="line 1, is no entry of a journal; delete the file"):
        Journal(tmp_path / "j.jsonl")
    assert (tmp_path / "j.jsonl").read_text() == line + "\n"
