"""ScriptedPolicy: real token ids, real limits."""

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.loop import AskPolicy
from aem_swe.agents.policy import ScriptedPolicy, turn_of


def ask(max_tokens: int = 100, seed: tuple[int, ...] = (1, 2, 0)) -> AskPolicy:
    return AskPolicy(({"role": "user", "content": "fix it"},), (5, 6), max_tokens, seed)


def test_a_script_is_said_in_ids_that_end_with_the_end_of_turn_token(chat: ChatFormat) -> None:
    response = ScriptedPolicy(lambda asked: f"turn {turn_of(asked)}", chat).respond(ask(seed=(1, 2, 3)))
    assert (response.text, response.finish_reason) == ("turn 3", "stop")
    assert response.response_ids[-1] == chat.end_id
    assert chat.text(response.response_ids) == "turn 3"
    assert response.logprobs == (0.0,) * len(response.response_ids)


def test_a_script_that_is_too_long_is_cut_like_a_models_response(chat: ChatFormat) -> None:
    whole = ScriptedPolicy(lambda asked: "a long answer", chat).respond(ask())
    fits = ScriptedPolicy(lambda asked: "a long answer", chat).respond(ask(len(whole.response_ids)))
    cut = ScriptedPolicy(lambda asked: "a long answer", chat).respond(ask(len(whole.response_ids) - 1))
    assert fits == whole
    assert (cut.response_ids, cut.finish_reason) == (whole.response_ids[:-1], "length")
    short = ScriptedPolicy(lambda asked: "a long answer", chat).respond(ask(2))
    assert short.text == chat.text(whole.response_ids[:2]) != "a long answer"


def test_a_script_sees_the_conversation_and_rows_that_are_over_stay_empty(chat: ChatFormat) -> None:
    policy = ScriptedPolicy(lambda asked: asked.messages[-1]["content"], chat)
    first, none, last = policy.respond_batch([ask(), None, ask()])
    assert none is None
    assert first == last == policy.respond(ask())
    assert first is not None
    assert first.text == "fix it"
