"""The shipped policy's tokenizer: byte-level BPE trained on demonstrations, ChatML turns, XML tags as single tokens."""

import random
import re
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from aem_swe.agents.definition import load_agent
from aem_swe.tasks.demo import make_problem
from aem_swe.tasks.demonstrations import demonstrate

VOCABULARY = 640
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PIECES = r"return |def |\n    |[0-9]|[A-Za-z]+|\n| ?(?://|<=|>=|[^\sA-Za-z0-9]) ?| "
"""Words, single digits, an operator with the spaces around it."""


def _tags() -> list[str]:
    tools = load_agent("demo").tools
    parameters = {name for tool in tools.values() for name in tool.parameters}
    return [
        *(f"<function={name}>" for name in sorted(tools)),
        "</function>",
        *(f"<parameter={p}>" for p in sorted(parameters)),
        "</parameter>",
    ]


def _texts(count: int) -> Iterator[str]:
    stream = random.Random(0)
    splitter = re.compile("|".join(re.escape(tag) for tag in _tags()))
    for seed in range(count):
        problem = make_problem("train", seed)
        yield problem.issue
        yield "user\nassistant\nsystem\n"
        for text, observation in demonstrate(problem, stream, noise=0.5):
            yield from splitter.split(text)
            yield observation


def build_tokenizer(training_tasks: int = 1500) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same result on every machine."""
    return train_tokenizer(_texts(training_tasks), _tags(), pieces=_PIECES, vocabulary=VOCABULARY)


def train_tokenizer(texts: Iterator[str], tags: list[str], *, pieces: str, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train on `texts`, cut into `pieces` (a regular expression); each of `tags` is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(tags),
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers'
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
