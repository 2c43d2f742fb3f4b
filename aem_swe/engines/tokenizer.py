"""The tokenizer of a policy that is served elsewhere."""

from typing import cast

from transformers import AutoTokenizer

from aem_swe.agents.chat import ChatFormat, Tokenizer
from aem_swe.engines.paths import model_path
from aem_swe.errors import ConfigError


def load_chat(path: str) -> ChatFormat:
    """Load the tokenizer of `model.path`: a folder, a shipped policy, or a name on the Hugging Face hub.

    Raises ConfigError where there is none, or its chat template cannot be used.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path(path))
    except (OSError, ValueError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"the tokenizer of model.path {path!r} cannot be loaded ({first}); give a checkpoint folder, or download it"
        ) from error
    return ChatFormat.of(cast(Tokenizer, tokenizer))
