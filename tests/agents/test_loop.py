"""The episode, driven by hand: what it asks for, what it counts, and every way it ends."""

from dataclasses import replace

import pytest

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import AgentDefinition, load_agent
from aem_swe.agents.loop import Abort, AskPolicy, Ending, Episode, Grade, History, Limits, RunTool, episode
from aem_swe.agents.policy import ScriptedPolicy
from aem_swe.agents.tools import ToolResult
from aem_swe.types import FormatError, Graded, Part, Response, Task, Termination, ToolCall

TASK = Task("t", (Part("text", "fix {workdir} and"), Part("text", "{statement}")))
LOOK = "look\n<function=search><parameter=search_term>x</parameter></function>"
FINISH = "<function=finish></function>"
NONSENSE = "no call here"
PASSED = Graded(1.0, "tests_passed")


def start(
    chat: ChatFormat | None,
    *,
    agent: AgentDefinition | None = None,
    history: History = "keep_thinking",
    max_steps: int = 10,
    response_budget: int = 10_000,
    max_response_tokens: int | None = None,
    max_format_errors: int | None = None,
    submit_unfinished: bool = False,
    soft_steps: int | None = None,
    context: int | None = None,
) -> tuple[Episode, AskPolicy]:
    limits = Limits(
        max_steps, response_budget, max_response_tokens, max_format_errors, submit_unfinished, soft_steps, context
    )
    run = episode(TASK, agent or load_agent("demo"), limits, chat, seed=(7, 8), history=history)
    ask = next(run)
    assert isinstance(ask, AskPolicy)
    return run, ask


def saying(chat: ChatFormat, text: str) -> Response:
    return ScriptedPolicy(lambda ask: text, chat).respond(AskPolicy((), (), 10_000, (0,)))


def answer(run: Episode, result: Response | ToolResult) -> AskPolicy:
    """Send a result that must lead to the next question."""
    ask = run.send(result)
    assert isinstance(ask, AskPolicy)
    return ask


def act(run: Episode, chat: ChatFormat, observation: str = "seen") -> AskPolicy:
    """Take one turn with a tool call."""
    request = run.send(saying(chat, LOOK))
    assert request == RunTool(ToolCall("search", {"search_term": "x"}))
    return answer(run, ToolResult(observation))


def end(run: Episode, result: Response | ToolResult | Graded | Abort) -> Ending:
    """Send a result that must end the episode."""
    with pytest.raises(StopIteration) as stopped:
        run.send(result)
    ending = stopped.value.value
    assert isinstance(ending, Ending)
    return ending


# --- what it asks for


def test_the_first_question_is_the_task(chat: ChatFormat) -> None:
    _, ask = start(chat)
    text = "fix {workdir} and\n{statement}"
    assert ask.messages == ({"role": "user", "content": text},)
    assert ask.prompt_ids == chat.first_prompt("", text)
    assert ask.max_tokens == 10_000


def test_prompts_show_system_and_task_with_their_fields_filled_once(chat: ChatFormat) -> None:
    agent = load_agent("r2egym")
    _, ask = start(chat, agent=agent)
    assert [message["role"] for message in ask.messages] == ["system", "user"]
    assert "The repository is in /testbed." in ask.messages[1]["content"]
    assert "<issue>\nfix {workdir} and\n{statement}\n</issue>" in ask.messages[1]["content"], "the statement is data"
    assert ask.prompt_ids == chat.first_prompt(agent.system, ask.messages[1]["content"])


def test_every_question_has_its_own_seed(chat: ChatFormat) -> None:
    run, ask = start(chat)
    seeds = [ask.seed]
    for _ in range(3):
        seeds.append(act(run, chat).seed)
    assert seeds == [(7, 8, 0), (7, 8, 1), (7, 8, 2), (7, 8, 3)]


def test_prompts_grow_by_the_response_and_the_observation_and_nothing_is_tokenised_twice(chat: ChatFormat) -> None:
    run, ask = start(chat)
    response = Response(LOOK, (5, 0, 6, 0, chat.end_id), (-1.0,) * 5, "stop")
    assert isinstance(run.send(response), RunTool)
    after = answer(run, ToolResult("seen"))
    assert after.prompt_ids == chat.extend((*ask.prompt_ids, *response.response_ids), "seen")
    assert after.messages[1:] == ({"role": "assistant", "content": LOOK}, {"role": "user", "content": "seen"})


def test_strip_thinking_forgets_thoughts_and_so_breaks_the_prefix(chat: ChatFormat) -> None:
    thought = saying(chat, "<think>hm</think>\n" + LOOK)
    prompts = {}
    for history in ("keep_thinking", "strip_thinking"):
        run, ask = start(chat, history=history)  # type: ignore[arg-type]  # both literals
        run.send(thought)
        prompts[history] = answer(run, ToolResult("seen")).prompt_ids
    assert prompts["keep_thinking"][: len(ask.prompt_ids) + len(thought.response_ids)] == (
        *ask.prompt_ids,
        *thought.response_ids,
    )
    assert prompts["strip_thinking"] == chat.extend((*ask.prompt_ids, *saying(chat, LOOK).response_ids), "seen")


def test_turns_hold_what_the_policy_saw_and_said(chat: ChatFormat) -> None:
    run, ask = start(chat)
    response = replace(saying(chat, LOOK), logprobs=(-0.5,), policy_version=3)
    run.send(response)
    second = answer(run, ToolResult("seen"))
    assert run.send(saying(chat, FINISH)) == Grade()
    first_turn, last_turn = end(run, PASSED).turns
    assert (first_turn.prompt_ids, first_turn.response_ids) == (ask.prompt_ids, response.response_ids)
    assert (first_turn.logprobs, first_turn.policy_version, first_turn.text) == ((-0.5,), 3, LOOK)
    assert (first_turn.action, first_turn.observation) == (ToolCall("search", {"search_term": "x"}), "seen")
    assert (last_turn.prompt_ids, last_turn.observation) == (second.prompt_ids, "")
    assert last_turn.action == ToolCall("finish", {})


def test_the_action_format_of_the_definition_is_the_one_that_is_read(chat: ChatFormat) -> None:
    run, _ = start(chat, agent=load_agent("demo", "json"))
    said = saying(chat, '<tool_call>{"name": "search", "arguments": {"search_term": "x"}}</tool_call>')
    assert run.send(said) == RunTool(ToolCall("search", {"search_term": "x"}))


def test_chat_mode_has_messages_only_and_no_token_budget() -> None:
    run, ask = start(None, response_budget=5)
    for _ in range(4):
        assert (ask.prompt_ids, ask.max_tokens) == ((), 5)
        run.send(Response(LOOK, (), (), "stop"))
        ask = answer(run, ToolResult("seen " * 100))
    assert len(ask.messages) == 9


# --- steps remaining


def test_observations_say_how_many_steps_remain(chat: ChatFormat) -> None:
    run, _ = start(chat, agent=load_agent("r2egym"), max_steps=3)
    first = act(run, chat).messages[-1]["content"]
    second = act(run, chat).messages[-1]["content"]
    assert first == "seen\n\nSteps Remaining: 2"
    assert second == "seen\n\nSteps Remaining: 1\nThe next step is the last one. Submit your work now."


def test_past_its_soft_steps_an_agent_is_told_to_submit_and_may_go_on(chat: ChatFormat) -> None:
    run, _ = start(chat, agent=load_agent("r2egym"), max_steps=4, soft_steps=2)
    said = [act(run, chat).messages[-1]["content"] for _ in range(3)]
    assert said == [
        "seen\n\nSteps Remaining: 1\nThe next step is the last one. Submit your work now.",
        "seen\n\nSteps Remaining: 0\nAll steps are used. Submit your work now.",
        "seen\n\nSteps Remaining: 0\nAll steps are used. Submit your work now.",
    ]
    run.send(saying(chat, LOOK))
    assert end(run, ToolResult("seen")).termination is Termination.MAX_STEPS


def test_the_context_holds_prompt_and_response_together(chat: ChatFormat) -> None:
    _, free = start(chat)
    run, ask = start(chat, context=len(free.prompt_ids) + 30)
    assert ask.max_tokens == 30
    said = saying(chat, LOOK)
    request = run.send(said)
    assert isinstance(request, RunTool)
    assert len(said.response_ids) < 30
    assert end(run, ToolResult("seen " * 30)).termination is Termination.TOKEN_BUDGET


def test_without_a_tokenizer_the_servers_counts_fill_the_context_and_texts_are_guessed_high() -> None:
    run, ask = start(None, context=1000)
    first = sum(len(message["content"].encode()) // 2 for message in ask.messages)
    assert first > 0 and ask.max_tokens == 1000 - first
    run.send(Response(LOOK, (), (), "stop", usage=(300, 100)))
    ask = answer(run, ToolResult("x" * 100))
    assert ask.max_tokens == 1000 - 400 - 50
    run.send(Response(LOOK, (), (), "stop", usage=(500, 460)))
    assert end(run, ToolResult("x" * 100)).termination is Termination.TOKEN_BUDGET


def test_a_format_error_costs_a_step_and_is_told(chat: ChatFormat) -> None:
    run, _ = start(chat, agent=load_agent("r2egym"), max_steps=3)
    ask = answer(run, saying(chat, NONSENSE))
    assert ask.messages[-1]["content"] == "ERROR: no complete function call found\n\nSteps Remaining: 2"


def test_the_demo_does_not_count_steps_aloud(chat: ChatFormat) -> None:
    run, _ = start(chat)
    assert act(run, chat).messages[-1]["content"] == "seen"


# --- ends


def test_finish_is_graded(chat: ChatFormat) -> None:
    run, _ = start(chat)
    act(run, chat)
    assert run.send(saying(chat, FINISH)) == Grade()
    ending = end(run, PASSED)
    assert (ending.termination, ending.graded, len(ending.turns)) == (Termination.FINISHED, PASSED, 2)


def test_finish_on_the_last_step_is_a_finish(chat: ChatFormat) -> None:
    run, _ = start(chat, max_steps=1)
    assert run.send(saying(chat, FINISH)) == Grade()
    assert end(run, PASSED).termination is Termination.FINISHED


def test_the_last_step_is_carried_out_and_then_the_steps_are_used_up(chat: ChatFormat) -> None:
    run, _ = start(chat, max_steps=2)
    act(run, chat)
    assert isinstance(run.send(saying(chat, LOOK)), RunTool)
    ending = end(run, ToolResult("seen"))
    assert (ending.termination, ending.graded, len(ending.turns)) == (Termination.MAX_STEPS, None, 2)


def test_a_response_at_its_token_limit_ends_the_episode_even_if_it_holds_a_call(chat: ChatFormat) -> None:
    run, _ = start(chat)
    ending = end(run, replace(saying(chat, FINISH), finish_reason="length"))
    assert (ending.termination, ending.graded) == (Termination.TOKEN_BUDGET, None)
    assert isinstance(ending.turns[0].action, FormatError)
    assert ending.turns[0].text == FINISH


@pytest.mark.parametrize("room", [-3, -1, 0, 1, 2])
def test_the_budget_counts_responses_and_observations_to_the_token(chat: ChatFormat, room: int) -> None:
    first = chat.first_prompt("", TASK.text)
    second = chat.extend((*first, *saying(chat, LOOK).response_ids), "seen")
    third = chat.extend((*second, *saying(chat, NONSENSE).response_ids), "ERROR: no complete function call found")
    run, ask = start(chat, response_budget=len(third) - len(first) + room)
    assert ask.max_tokens == len(third) - len(first) + room
    ask = act(run, chat)
    assert ask.max_tokens == len(third) - len(second) + room
    if room >= 1:
        assert answer(run, saying(chat, NONSENSE)).max_tokens == room
    else:
        ending = end(run, saying(chat, NONSENSE))
        assert (ending.termination, len(ending.turns)) == (Termination.TOKEN_BUDGET, 2)


def test_a_turn_may_have_a_cap_of_its_own_within_the_budget(chat: ChatFormat) -> None:
    run, ask = start(chat, response_budget=100, max_response_tokens=60)
    assert ask.max_tokens == 60
    used = len(act(run, chat).prompt_ids) - len(ask.prompt_ids)
    assert act(run, chat).max_tokens == min(60, 100 - 2 * used)


def test_format_errors_in_a_row_end_the_episode_and_a_call_starts_the_count_again(chat: ChatFormat) -> None:
    run, _ = start(chat, max_format_errors=2)
    answer(run, saying(chat, NONSENSE))
    act(run, chat)
    answer(run, saying(chat, NONSENSE))
    ending = end(run, saying(chat, NONSENSE))
    assert (ending.termination, ending.graded, len(ending.turns)) == (Termination.FORMAT_ERRORS, None, 4)


def test_without_a_limit_format_errors_only_cost_steps(chat: ChatFormat) -> None:
    run, _ = start(chat, max_steps=3)
    answer(run, saying(chat, NONSENSE))
    answer(run, saying(chat, NONSENSE))
    assert end(run, saying(chat, NONSENSE)).termination is Termination.MAX_STEPS


@pytest.mark.parametrize("reason", [Termination.TIMEOUT, Termination.INFRASTRUCTURE_ERROR])
def test_an_abort_ends_the_episode_wherever_it_is_with_the_turns_it_has(chat: ChatFormat, reason: Termination) -> None:
    abort = Abort(reason)  # type: ignore[arg-type]  # two of its values
    run, _ = start(chat)
    assert end(run, abort) == Ending((), reason, None)
    run, _ = start(chat)
    act(run, chat)
    run.send(saying(chat, LOOK))
    ending = end(run, abort)
    assert (ending.termination, len(ending.turns), ending.turns[-1].observation) == (reason, 2, "")
    run, _ = start(chat)
    assert run.send(saying(chat, FINISH)) == Grade()
    ending = end(run, abort)
    assert (ending.termination, ending.graded, len(ending.turns)) == (reason, None, 1)


# --- submit_unfinished


def unfinished(chat: ChatFormat, reason: Termination, submit: bool) -> tuple[Episode, Response | ToolResult | Abort]:
    """An episode and the result that ends its conversation for `reason`."""
    run, _ = start(chat, max_steps=2, max_format_errors=1, submit_unfinished=submit)
    if reason is Termination.MAX_STEPS:
        act(run, chat)
        run.send(saying(chat, LOOK))
        return run, ToolResult("seen")
    if reason is Termination.TOKEN_BUDGET:
        return run, replace(saying(chat, LOOK), finish_reason="length")
    if reason is Termination.FORMAT_ERRORS:
        return run, saying(chat, NONSENSE)
    return run, Abort(reason)  # type: ignore[arg-type]  # the two that are left


UNFINISHED = [Termination.MAX_STEPS, Termination.TOKEN_BUDGET, Termination.FORMAT_ERRORS, Termination.TIMEOUT]


@pytest.mark.parametrize("reason", UNFINISHED)
def test_an_unfinished_episode_is_graded_only_where_the_protocol_says_so(chat: ChatFormat, reason: Termination) -> None:
    run, last = unfinished(chat, reason, submit=False)
    assert end(run, last).graded is None
    run, last = unfinished(chat, reason, submit=True)
    assert run.send(last) == Grade()
    ending = end(run, PASSED)
    assert (ending.termination, ending.graded) == (reason, PASSED)


def test_an_episode_whose_infrastructure_failed_is_never_graded(chat: ChatFormat) -> None:
    run, last = unfinished(chat, Termination.INFRASTRUCTURE_ERROR, submit=True)
    assert end(run, last) == Ending((), Termination.INFRASTRUCTURE_ERROR, None)
