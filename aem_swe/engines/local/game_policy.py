"""The starting policy of the text games: the demo's network, taught by the expert's games, with words for tokens.

About 500 tokens an episode. Noun, number and the space before each are one token, so what an observation names can be
copied token by token.
"""

import itertools
import random
import re
from collections.abc import Iterator

from transformers import PreTrainedTokenizerFast

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.engines.local.demo_tokenizer import train_tokenizer
from aem_swe.engines.local.warm_start import Example, Teaching, WarmStart, encode_turns
from aem_swe.worlds.demonstrations import demonstrate_game
from aem_swe.worlds.generate import generate
from aem_swe.worlds.source import task_of

AGENT = "alfworld_small"
SETTINGS = WarmStart(steps=1400, noise=0.05, last_noise=0.1, observation_weight=0.3)
POSITIONS = 2048
MAX_MOVES = 30
"""Longer demonstrations are cut here: the recipe's limit."""
_VOCABULARY = 768
_PIECES = r" ?[A-Za-z]+| ?[0-9]+|\n| ?[^\sA-Za-z0-9]+| "
_TAGS = ["<action>", "</action>"]


def _texts(count: int) -> Iterator[str]:
    stream = random.Random(0)
    splitter = re.compile("|".join(_TAGS))
    yield "user\nassistant\nsystem\n"
    for seed in range(count):
        game = generate("train", seed, small=True)
        yield game.intro
        for text, observation in demonstrate_game(game, stream, noise=0.1):
            yield from splitter.split(text)
            yield observation


def build_game_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on training games; the same result on every machine."""
    return train_tokenizer(_texts(600), _TAGS, pieces=_PIECES, vocabulary=_VOCABULARY)


def encode_game(
    seed: int, stream: random.Random, tokenizer: PreTrainedTokenizerFast, chat: ChatFormat, noise: float
) -> Example:
    """Encode one game exactly as an episode of the small agent would be."""
    game, definition = generate("train", seed, small=True), load_agent(AGENT)
    prompt = chat.first_prompt(definition.system, definition.first_message(task_of(game, admissible=False)))
    steps = itertools.islice(demonstrate_game(game, stream, noise=noise), MAX_MOVES)
    return encode_turns(prompt, steps, tokenizer, chat)


GAMES = Teaching(build_game_tokenizer, encode_game, POSITIONS)
