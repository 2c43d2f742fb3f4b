"""Which training runs `aem-swe verify training` makes and what it compares: eval/training.yaml, checked whole."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from aem_swe.config import complaint, load_recipe, read_settings
from aem_swe.errors import ConfigError
from aem_swe.eval.result_files import require_plain
from aem_swe.resources import resource
from aem_swe.schema import Recipe
from aem_swe.section import CountOrZero, Section

Measure = Literal["held_out", "reward", "truncation", "entropy"]
Name = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Part of a folder's name and of a figure."""
_OURS = ("seed=", "run_dir=")


class Contrast(Section):
    """`arm` minus `against`, paired by seed, in each measure of `of`."""

    arm: str
    against: str
    of: Annotated[tuple[Measure, ...], Field(min_length=1)]
    """The first is the one that a claim is judged by."""
    paper: Literal["higher", "lower"] | None = None
    """Where a paper says that the arm is; None: none does."""


class Plan(Section):
    seeds: Annotated[tuple[CountOrZero, ...], Field(min_length=1)]
    overrides: tuple[str, ...] = ()
    arms: Annotated[dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=1)]
    """Recipe, then overrides."""
    contrasts: dict[Name, Contrast] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        require_different(self.seeds, "seeds")
        for words in (self.overrides, *self.arms.values()):
            if ours := [word for word in words if word.startswith(_OURS)]:
                raise ValueError(f"override {ours[0]!r} is set for every run by the command; leave it out")
            for word in words:
                require_plain(command=word)  # pages quote it
        for name, contrast in self.contrasts.items():
            for arm in (contrast.arm, contrast.against):
                if arm not in self.arms:
                    raise ValueError(f"contrast {name!r} names arm {arm!r}, which is unknown; {self._known(arm)}")
            if contrast.arm == contrast.against:
                raise ValueError(f"contrast {name!r} sets arm {contrast.arm!r} against itself; name another")
        _require_once(self.contrasts)
        return self

    def _known(self, arm: str) -> str:
        near = difflib.get_close_matches(arm, self.arms, n=1)
        return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(self.arms)}"

    def family(self) -> dict[str, int]:
        """How many contrasts there are of each measure: what Holm's correction is over."""
        return dict(Counter(measure for contrast in self.contrasts.values() for measure in contrast.of))

    def restricted(self, only: Sequence[str], seeds: Sequence[int]) -> "Plan":
        """These arms (none: all) with the contrasts among them, these seeds (none: the plan's). Raises ConfigError."""
        for arm in only:
            if arm not in self.arms:
                raise ConfigError(f"--only {arm!r} is no arm; {self._known(arm)}")
        try:
            require_different(seeds, "--seed")
        except ValueError as error:
            raise ConfigError(str(error)) from error
        arms = {name: words for name, words in self.arms.items() if name in only or not only}
        contrasts = {name: one for name, one in self.contrasts.items() if {one.arm, one.against} <= arms.keys()}
        return self.model_copy(update={"seeds": tuple(seeds) or self.seeds, "arms": arms, "contrasts": contrasts})

    def words(self, arm: str, seed: int, out: Path) -> list[str]:
        """Recipe and overrides of one run, as `aem-swe train` takes them."""
        recipe, *overrides = self.arms[arm]
        return [recipe, *self.overrides, *overrides, f"seed={seed}", f"run_dir={out / f'{arm}_seed{seed}'}"]

    def require_plain(self, out: Path) -> None:
        """Raises ConfigError for a folder whose name is something else where overrides are read, as YAML."""
        arm, seed = next(iter(self.arms)), self.seeds[0]
        try:
            same = self.recipe(arm, seed, out).run_dir == str(out / f"{arm}_seed{seed}")
        except ConfigError:  # of the folder: the plan's own recipes were read before
            same = False
        if not same:
            raise ConfigError(f"--out {str(out)!r} cannot be a run_dir; choose a plainer name")

    def recipe(self, arm: str, seed: int, out: Path) -> Recipe:
        """The same, resolved. Raises ConfigError."""
        recipe, *overrides = self.words(arm, seed, out)
        return load_recipe(recipe, overrides)


def _require_once(contrasts: Mapping[str, Contrast]) -> None:
    """Raises ValueError for two arms that are compared twice in a measure: one test, counted and reported as two."""
    seen: dict[tuple[frozenset[str], Measure], str] = {}
    for name, one in contrasts.items():
        for measure in one.of:
            sides = frozenset((one.arm, one.against))
            if other := seen.get((sides, measure)):
                where = f"after {other!r}" if other != name else "twice"
                raise ValueError(
                    f"contrast {name!r} has {measure} of {one.arm} and {one.against} {where}; list it once"
                )
            seen[sides, measure] = name


def require_different(seeds: Sequence[int], where: str) -> None:
    """Raises ValueError for a seed that is given twice: the second run would be a copy of the first."""
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise ValueError(f"{where}: {twice[0]} is given twice; a seed counts once")


def check_plan(values: Mapping[str, object]) -> Plan:
    """Validate a mapping as a plan; recipes are not looked at. Raises ConfigError."""
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        raise ConfigError(complaint(error, Plan)) from error


def shipped_plan() -> Path:
    return resource("eval", "training.yaml")


def read_plan(path: Path | None) -> Plan:
    """A plan with recipes that exist; None: eval/training.yaml. Raises ConfigError with one line."""
    where = path or shipped_plan()
    values = read_settings(where, [], "plan")
    try:
        plan = check_plan(values)
        if len(plan.seeds) < 2:
            raise ConfigError(f"seeds {list(plan.seeds)} give no spread between runs; give at least 2")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    for arm in plan.arms:
        try:
            plan.recipe(arm, plan.seeds[0], Path("runs"))
        except ConfigError as error:
            raise ConfigError(f"{where}: arm {arm!r}: {error}") from error
    return plan
