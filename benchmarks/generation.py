"""Our sampling loop against transformers' `model.generate`: the same model, prompts, rows and number of new tokens.

    one turn      every row samples `--new-tokens`, at temperature 1
    five turns    every row says `--turn-tokens` and reads an observation, `--turns` times: the sampler prefills what is
                  new, `generate`, which keeps nothing between its calls, the whole conversation

Ratios of seconds, taken in turns (ratios.py), on the CPU. Prompts are the first ones of the demo's tasks, padded on the
left for `generate`; no row may end early. Both say the tokens that they sample; the sampler finds their log-probs as
well, which training needs, and reproduces its choices from seeds.
Not covered: a GPU (benchmarks/gpu.py), and vLLM, which the cluster engine samples with.

    python benchmarks/generation.py --json benchmarks/results/generation.json
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from ratios import Result, divided, in_turns, parse, report

from aem_swe.agents.chat import ChatFormat
from aem_swe.agents.definition import load_agent
from aem_swe.agents.loop import AskPolicy
from aem_swe.config import load_recipe
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import LocalModel, load_model
from aem_swe.engines.problems import load_problems

MODEL = "builtin/demo-policy"
OBSERVATION = "The file has been edited. Here is what it looks like now:\n  def f(n):\n      return n + 1\n"
MOST_OBSERVED = 64
"""Tokens of the observation and what the template puts around it, at most."""
GENERATE: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}
SIZES = {
    "rows": (32, 8),
    "new-tokens": (96, 16),
    "turns": (5, 3),
    "turn-tokens": (17, 6),
    "threads": (1, 1),
    "repeats": (9, 6),
}
Ids = tuple[int, ...]


def first_prompts(model: LocalModel, rows: int) -> list[Ids]:
    """The first prompts of as many tasks of the demo."""
    recipe = load_recipe("demo", [f"data.pool={rows}", "trainer.eval_every=0"])
    definition = load_agent("demo")
    tasks = [problem.task for problem in load_problems(recipe).pool]
    return [model.chat.first_prompt(definition.system, definition.first_message(task)) for task in tasks]


@dataclass(frozen=True, slots=True)
class Scene:
    model: LocalModel
    chat: ChatFormat
    """The model's own, which closes a response with the real end of a turn."""
    sampler: Sampler
    prompts: list[Ids]

    def converse(self, turns: int, tokens: int, speak: Callable[[list[Ids], int, int], list[Ids]]) -> list[Ids]:
        """Return the last responses."""
        said, answers = self.prompts, self.prompts
        self.sampler.reset(0)
        for turn in range(turns):
            answers = speak(said, tokens, turn)
            said = [
                self.chat.extend((*asked, *answer), OBSERVATION) for asked, answer in zip(said, answers, strict=True)
            ]
        return answers

    def sample(self, prompts: list[Ids], tokens: int, turn: int) -> list[Ids]:
        """One turn of every row by the sampler."""
        asks = [AskPolicy((), prompt, tokens, (row, turn)) for row, prompt in enumerate(prompts)]
        return [response.response_ids for response in self.sampler.respond_batch(asks) if response is not None]

    def generate(self, prompts: list[Ids], tokens: int, turn: int) -> list[Ids]:
        """One turn of every row by `model.generate`."""
        width = max(len(prompt) for prompt in prompts)
        ids_BT = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask_BT = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        out_BT = self.model.network.generate(
            input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=tokens, **GENERATE
        )
        return [tuple(row) for row in out_BT[:, width:].tolist()]


def open_scene(rows: int, longest: int) -> Scene:
    """A model whose rows do not end, prompts, and a sampler with room for `longest` tokens after each."""
    real = load_model(MODEL, device="cpu")
    real.network.generation_config.eos_token_id = None
    endless = replace(real, chat=replace(real.chat, end_id=-1))
    prompts = first_prompts(real, rows)
    context = max(len(prompt) for prompt in prompts) + longest
    sampler = Sampler(endless, rows=len(prompts), context=context, temperature=1.0, seed=0)
    return Scene(endless, real.chat, sampler, prompts)


def main() -> int:
    arguments = parse(__doc__, SIZES)
    torch.set_num_threads(arguments.threads)
    new, turns, said = arguments.new_tokens, arguments.turns, arguments.turn_tokens
    scene = open_scene(arguments.rows, max(new, turns * (said + MOST_OBSERVED)))
    actions: dict[str, Callable[[], list[Ids]]] = {
        "one turn, sampler": lambda: scene.converse(1, new, scene.sample),
        "one turn, generate": lambda: scene.converse(1, new, scene.generate),
        f"{turns} turns, sampler": lambda: scene.converse(turns, said, scene.sample),
        f"{turns} turns, generate": lambda: scene.converse(turns, said, scene.generate),
    }
    tokens = dict(zip(actions, [new, new, turns * said, turns * said], strict=True))
    for name, action in actions.items():  # untimed: warm memory
        assert {len(ids) for ids in action()} == {new if name.startswith("one") else said}, name
    seconds = in_turns(actions, arguments.repeats)
    for name, values in seconds.items():
        print(f"{name:<20}{len(scene.prompts) * tokens[name] / min(values):8.0f} tokens/s (best of {len(values)})")
    ratios = [
        divided("generation", case, "model.generate", seconds[f"{case}, sampler"], seconds[f"{case}, generate"])
        for case in ("one turn", f"{turns} turns")
    ]
    details = {name: getattr(arguments, name.replace("-", "_")) for name in SIZES}
    details |= {"context": scene.sampler.context, "prompt tokens": max(map(len, scene.prompts)), "seconds": seconds}
    return report(Result("generation", tuple(ratios), details), arguments)


if __name__ == "__main__":
    sys.exit(main())
