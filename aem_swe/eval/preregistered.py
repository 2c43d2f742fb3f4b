"""The confirmatory analysis as it was fixed in eval/preregistered.yaml, and the refusal of any other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aem_swe.config import read_settings
from aem_swe.errors import ConfigError
from aem_swe.eval.dynamics import ALPHA, CLAIMS, FEWEST_POLICIES, TEST
from aem_swe.resources import resource

FIRST_SEED = 100
"""Seeds from here on are for the confirmation; whatever is chosen by its result uses seeds below."""
_KEYS = {"status", "setting", "metric", "test", "alpha", "fewest_policies", "seeds", "claims"}


@dataclass(frozen=True, slots=True)
class Preregistration:
    setting: Mapping[str, Any]  # JSON values, as Setting.as_json makes them
    seeds: tuple[int, ...]


def preregistered_file() -> Path:
    return resource("eval", "preregistered.yaml")


def read_preregistration(path: Path) -> Preregistration:
    """Raises ConfigError for a draft, and where the file asks for another analysis than the one implemented here."""
    found = read_settings(path, [], "pre-registration")
    odd = sorted(_KEYS ^ found.keys())
    if odd:
        raise ConfigError(f"{path}: key {odd[0]!r} is missing or unknown; give exactly {', '.join(sorted(_KEYS))}")
    if found["status"] != "registered":
        raise ConfigError(
            f"{path}: status is {found['status']!r}; finish the exploration, then commit the file with registered"
        )
    here = {
        "test": TEST,
        "alpha": ALPHA,
        "fewest_policies": FEWEST_POLICIES,
        "claims": {claim.name: [claim.regime, claim.direction] for claim in CLAIMS},
    }
    for key, value in here.items():
        if found[key] != value:
            raise ConfigError(f"{path}: {key} is {found[key]!r}, and this version computes {value!r}; use the same")
    seeds = tuple(found["seeds"])
    low = [seed for seed in seeds if seed < FIRST_SEED]
    if low or len(set(seeds)) < FEWEST_POLICIES:
        wrong = f"seed {low[0]} is below {FIRST_SEED}" if low else f"{len(set(seeds))} different seeds are too few"
        raise ConfigError(f"{path}: {wrong}; give at least {FEWEST_POLICIES} seeds from {FIRST_SEED} on")
    return Preregistration(found["setting"], seeds)


def require_registered(registered: Preregistration, setting: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Raises ConfigError where a confirmation differs from what was registered."""
    different = [key for key in setting if setting[key] != registered.setting.get(key)]
    if different:
        key = different[0]
        raise ConfigError(
            f"--confirm: {key} is {setting[key]!r}, registered is {registered.setting.get(key)!r}; leave options out"
        )
    low = [seed for seed in seeds if seed < FIRST_SEED]
    if low:
        raise ConfigError(f"--confirm: seed {low[0]} is one of exploration; use those of eval/preregistered.yaml")
    if sorted(seeds) != sorted(registered.seeds):
        raise ConfigError(f"--confirm: seeds are {sorted(seeds)}, registered are {sorted(registered.seeds)}; use these")


def require_exploratory(seeds: Sequence[int]) -> None:
    """Raises ConfigError for a seed that is kept for the confirmation."""
    high = [seed for seed in seeds if seed >= FIRST_SEED]
    if high:
        raise ConfigError(f"seed {high[0]} is kept for --confirm; explore with seeds below {FIRST_SEED}")
