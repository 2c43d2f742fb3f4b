"""What is fixed before a probe: the tasks, the sizes, the rules. A result belongs to exactly one setting."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from aem_swe.config import load_recipe
from aem_swe.errors import ConfigError
from aem_swe.schema import Recipe

Regime = Literal["early", "late"]
REGIMES: tuple[Regime, ...] = ("early", "late")


@dataclass(frozen=True, slots=True)
class Setting:
    """The defaults are those of a full run."""

    recipe: str = "demo"
    overrides: tuple[str, ...] = ()
    """key=value of the recipe, for the probe and for the training of late policies alike."""
    batches: int = 40
    """Batches per policy and regime."""
    probe_episodes: int = 64
    """Episodes whose sampled tokens are the fixed states."""
    late_steps: int = 40
    """Training steps of the base algorithm between the early and the late policy; 0: no late regime."""
    lam: float = 1.0
    lambdas: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    check_lr: float = 0.05
    """Learning rate of the real SGD steps that check the linear estimate; the estimate itself needs none."""
    checked_batches: int = 1
    """Batches per policy and regime in which real steps are made as well, and gradient norms measured."""
    warm_start_steps: int = 1500
    """Of the policies that --make makes."""

    def as_json(self) -> dict[str, Any]:  # JSON values
        """Lists instead of tuples, so that it compares equal after a file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Setting":  # JSON values
        """Raises ConfigError for keys that are missing or unknown."""
        wrong = sorted({field.name for field in fields(cls)} ^ values.keys())
        if wrong:
            raise ConfigError(f"setting key {wrong[0]!r} is missing or unknown; give exactly those of a setting.json")
        found: dict[str, Any] = {  # as above
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**found)

    @property
    def regimes(self) -> tuple[Regime, ...]:
        return REGIMES if self.late_steps else REGIMES[:1]

    def probe_recipe(self, model: str, seed: int) -> Recipe:
        """Raises ConfigError for a recipe whose step is not the one that the probe measures."""
        recipe = load_recipe(
            self.recipe, [*self.overrides, "trainer.eval_every=0", f"model.path={model}", f"seed={seed}"]
        )
        algorithm = recipe.algorithm
        if recipe.engine != "local":
            raise ConfigError(f"recipe {self.recipe!r} has engine {recipe.engine}; verify dynamics needs engine=local")
        if algorithm.loss != "ppo" or algorithm.kl_coefficient:
            raise ConfigError(
                f"recipe {self.recipe!r} has loss {algorithm.loss} and kl_coefficient {algorithm.kl_coefficient:g};"
                " verify dynamics measures algorithm.loss=ppo with algorithm.kl_coefficient=0"
            )
        return recipe

    def training_recipe(self, model: str, seed: int, run_dir: str) -> Recipe:
        """How a late policy is made from an early one: the same recipe without AEM."""
        steps = self.late_steps
        training = [f"trainer.steps={steps}", "trainer.eval_every=0", f"trainer.save_every={min(10, steps)}"]
        names = [f"model.path={model}", f"seed={seed}", f"run_dir={run_dir}", "aem.enabled=false"]
        return load_recipe(self.recipe, [*self.overrides, *training, *names])


QUICK = Setting(
    overrides=("sampling.prompts=2", "sampling.rollouts=4", "data.pool=4", "data.seed=15", "agent.max_steps=8"),
    batches=2,
    probe_episodes=6,
    late_steps=1,
)
"""Shows that everything works, in CI; decides nothing."""
