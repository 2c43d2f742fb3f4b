"""The recipe: every key that a run has, its default (here and nowhere else), and the one-line errors for wrong ones.

A recipe is a YAML file in configs/ (or a path); `key=value` on the command line overrides it, Hydra-style. The merged
recipe is validated whole before anything starts; unknown keys fail with a suggestion, and renamed keys get no alias.
"""

import difflib
import os.path
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from yaml import YAMLError

from aem_swe.errors import ConfigError
from aem_swe.resources import names, resource

# strict: YAML has types of its own, so `true` is no number
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, strict=True)]
CountOrZero = Annotated[int, Field(ge=0, strict=True)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(Section):
    path: str = "builtin/demo-policy"
    """A Hugging Face checkpoint folder, or a policy that ships with the package."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic; weights and optimiser states are float32 in either case."""
    gradient_checkpointing: bool = False


class Data(Section):
    source: Literal["demo"] = "demo"
    pool: Count = 16
    """Training tasks that are repeated, epoch after epoch."""
    seed: CountOrZero | None = None
    """Which tasks; None: the run's seed."""


class Agent(Section):
    definition: str = "demo"
    """A folder in agents/."""
    action_format: Literal["xml", "json"] | None = None
    """None: the definition's own."""
    history: Literal["keep_thinking", "strip_thinking"] = "keep_thinking"
    max_steps: Count = 12
    response_budget: Count = 640
    """Tokens of an episode after its first prompt, observations included; also the constant of seq-sum-over-budget."""
    max_response_tokens: Count | None = 56
    """Cap of one response; None (DeepSWE): what is left. A cut response ends its episode (token_budget)."""
    max_format_errors: Count | None = None
    trajectory_timeout_s: Positive | None = None


class SandboxSection(Section):
    kind: Literal["local"] = "local"
    memory_mb: Count = 256
    processes: Count = 48
    disk_mb: Count = 32
    command_timeout_s: Positive = 10.0
    max_output: Count = 20_000
    retries: CountOrZero = 2
    workers: Count = 4
    """Threads that run tools and rewards."""


class Sampling(Section):
    prompts: Count = 4
    rollouts: Count = 8
    """Rollouts per prompt: the group size."""
    cohorts: Count = 2
    """Batches that take turns: while one generates, the tools of the others run."""
    temperature: Positive = 1.0
    drop_uniform_groups: bool = False
    """Leave groups without contrast (all rewards equal) out of loss and denominator (dynamic sampling without
    refill)."""


class Algorithm(Section):
    advantage: Literal["leave_one_out", "grpo", "mean_baseline"] = "leave_one_out"
    loss: Literal["ppo", "gspo"] = "ppo"
    gspo_unit: Literal["response", "trajectory"] = "trajectory"
    clip_low: NotNegative = 0.2
    clip_high: NotNegative = 0.28
    aggregation: Literal["token-mean", "seq-sum-over-budget"] = "seq-sum-over-budget"
    kl_coefficient: NotNegative = 0.0
    """Weight of the k3 KL loss against the frozen starting policy; 0 (DeepSWE): no reference is loaded."""
    overlong_buffer: CountOrZero = 0
    """DAPO's soft punishment over the last so many tokens of the budget; 0: none."""
    filter: Annotated[Literal["mask", "drop", "off"], BeforeValidator(lambda v: "off" if v is False else v)] = "mask"
    """YAML reads a bare off as False."""
    layout: Literal["trajectory", "turn"] = "trajectory"
    """Training rows: one growing row per trajectory, or one row per turn (needed by strip_thinking)."""


class Aem(Section):
    enabled: bool = False
    lam: NotNegative = Field(default=1.0, alias="lambda")
    group: Literal["trained", "all"] = "trained"


class Optimizer(Section):
    lr: Positive = 1e-6
    weight_decay: NotNegative = 0.01
    beta1: Annotated[NotNegative, Field(lt=1)] = 0.9
    beta2: Annotated[NotNegative, Field(lt=1)] = 0.999
    grad_clip: Positive = 1.0
    warmup_steps: CountOrZero = 0


class Trainer(Section):
    steps: Count = 40
    minibatches: Count = 1
    """Optimiser updates per step; each takes whole prompts."""
    micro_batch: Count = 16
    """Rows per forward pass of scoring and update."""
    threads: Count = 1
    """CPU threads of torch."""
    eval_every: CountOrZero = 0
    """Held-out evaluation every so many steps, before the first and after the last; 0: never."""
    eval_tasks: Count = 64
    eval_rollouts: Count = 2
    save_every: CountOrZero = 10
    keep_checkpoints: Count = 2


class Recipe(Section):
    """All keys of a run."""

    recipe: str = ""  # its name, set by load_recipe
    engine: Literal["local"] = "local"
    run_dir: str = ""
    """Where the run is kept; empty: runs/<recipe>."""
    seed: CountOrZero = 1
    model: Model = Model()
    data: Data = Data()
    agent: Agent = Agent()
    sandbox: SandboxSection = SandboxSection()
    sampling: Sampling = Sampling()
    algorithm: Algorithm = Algorithm()
    aem: Aem = Aem()
    optimizer: Optimizer = Optimizer()
    trainer: Trainer = Trainer()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        s, a, episodes = self.sampling, self.algorithm, self.sampling.prompts * self.sampling.rollouts
        budget, updates = self.agent.response_budget, self.trainer.minibatches
        bad = ""
        if s.rollouts < 2:
            bad = f"sampling.rollouts {s.rollouts} leaves {a.advantage} without a baseline; use 2 or more (DeepSWE: 8)"
        elif episodes % s.cohorts:
            bad = f"sampling.cohorts {s.cohorts} does not divide prompts x rollouts = {episodes}; choose a divisor"
        elif s.prompts % updates:
            bad = f"trainer.minibatches {updates} does not divide sampling.prompts {s.prompts}; choose a divisor"
        elif s.prompts > self.data.pool:
            bad = f"sampling.prompts {s.prompts} is more than data.pool {self.data.pool}; raise data.pool"
        elif a.overlong_buffer > budget:
            bad = f"algorithm.overlong_buffer {a.overlong_buffer} is more than agent.response_budget {budget}; use less"
        elif self.agent.history == "strip_thinking" and a.layout == "trajectory":
            bad = "agent.history strip_thinking makes no growing row; use algorithm.layout=turn"
        if bad:
            raise ValueError(bad)
        return self


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema."""
    for name, info in section.model_fields.items():
        key = prefix + (info.alias or name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _keys(info.annotation, key + ".")
        else:
            yield key


KEYS = tuple(_keys(Recipe))


def _complaint(error: ValidationError) -> str:
    """Turn pydantic's first error into one line: what, value, remedy."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else f"; the sections are {', '.join(Recipe.model_fields)}"
        return f"key {key!r} is unknown{hint}"
    if first["type"] == "model_type":
        inside = [known for known in KEYS if known.startswith(f"{key}.")]
        return f"{key} is a section and cannot be {first['input']!r}; set one of its keys, for example {inside[0]}=..."
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key} {first['input']!r} is not usable: {message[0].lower() + message[1:]}"


def recipe_path(recipe: str) -> Path:
    """Resolve a recipe's name or path. Raises ConfigError with a suggestion."""
    path = Path(recipe) if recipe.endswith((".yaml", ".yml")) else resource("configs", f"{recipe}.yaml")
    if not os.path.isfile(path):  # unlike Path.is_file, it says no to a name that is too long
        known = names("configs", ".yaml")
        near = difflib.get_close_matches(recipe.removesuffix(".yaml"), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {known}, or an existing YAML file"
        raise ConfigError(f"recipe {recipe!r} is unknown; {hint}")
    return path


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and its overrides. Raises ConfigError with one line for whatever is wrong."""
    path = recipe_path(recipe)
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override {override!r} has no value; write key=value, for example trainer.steps=3")
    try:
        source = f"recipe {str(path)!r}"
        loaded = OmegaConf.load(path)
        if not OmegaConf.is_dict(loaded):
            raise ValueError("it is not a mapping of sections like configs/demo.yaml")
        source = f"overrides {list(overrides)}"
        merged = OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides)))
        source = f"recipe {str(path)!r} with overrides {list(overrides)}"
        values: Any = OmegaConf.to_container(merged, resolve=True)  # Any: whatever the YAML holds, checked next
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{source} cannot be read ({' '.join(str(error).split())}); mend it") from error
    return validate_recipe({"recipe": path.stem, **values}, default_run_dir=f"runs/{path.stem}")


def validate_recipe(values: dict[str, Any], *, default_run_dir: str = "") -> Recipe:  # Any: checked here
    """Validate a nested mapping. Raises ConfigError."""
    try:
        loaded = Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_complaint(error)) from error
    return loaded if loaded.run_dir else loaded.model_copy(update={"run_dir": default_run_dir})


def dump_recipe(recipe: Recipe) -> str:
    """Return the whole recipe as YAML, every default written out."""
    return OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump(by_alias=True)))
