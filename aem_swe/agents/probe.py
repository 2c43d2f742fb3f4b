"""Ask an endpoint one small question before anything expensive begins."""

import openai

from aem_swe.agents.endpoint import EndpointPolicy
from aem_swe.agents.loop import AskPolicy
from aem_swe.errors import ConfigError

_PROMPT = "Say yes."
_TOKENS = 16


def probe(policy: EndpointPolicy, *, context: int) -> None:
    """A few tokens from the model, as the run will ask for them. context: the longest prompt with its response.

    Raises PolicyError where the endpoint cannot be used, ConfigError where it serves another model or less context.
    """
    served = _served(policy)
    if served and policy.model not in served:
        raise ConfigError(f"the endpoint serves {sorted(served)[:5]}, not {policy.model!r}; name one of them")
    longest = served.get(policy.model)
    if longest is not None and longest < context:
        raise ConfigError(
            f"play.context {context} is more than the {longest} tokens that the endpoint serves; use "
            f"play.context={longest}, or serve the model with a longer context"
        )
    ids = policy.chat.first_prompt("", _PROMPT) if policy.chat else ()
    policy.respond(AskPolicy(({"role": "user", "content": _PROMPT},), ids, _TOKENS, (0,)))


def _served(policy: EndpointPolicy) -> dict[str, int | None]:
    """{model: its longest context, where the server says it}; empty where it has no list of models."""
    try:
        listed = policy.client.models.list().data
    except openai.APIError:  # not every server has the list; whether it can be used at all, the question shows
        return {}
    found = {model.id: (model.model_extra or {}).get("max_model_len") for model in listed}
    return {name: longest if isinstance(longest, int) else None for name, longest in found.items()}
