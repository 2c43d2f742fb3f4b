"""The section `aem` of a verl configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args  # Any: the configuration is OmegaConf's

from aem_swe.errors import ConfigError

EntropySource = Literal["policy", "surprisal"]
Group = Literal["trained", "all"]


@dataclass(frozen=True, slots=True)
class AemSettings:
    """What AEM does in a run on verl's workers."""

    enabled: bool = True
    lam: float = 1.0
    """`aem.lambda`, lambda of eq. 15; 0 is the base algorithm bit for bit."""
    entropy_source: EntropySource = "policy"
    """policy: of the old-log-prob pass (eq. 13). surprisal: minus the rollout's log-probs, its one-sample stand-in, for
    runs without that pass (rollout_correction.bypass_mode)."""
    group: Group = "trained"
    """G of the paper: the responses that carry gradient, or the masked ones too."""
    profile: str | None = None
    """The folder in which fit() records its spans (timers.py); None: it does not."""


def read_settings(config: Mapping[str, Any]) -> AemSettings:
    """Read the section `aem` of a verl configuration; none: the defaults. ConfigError for what is unknown or wrong."""
    section = dict(config.get("aem") or {})
    enabled, lam = section.pop("enabled", True), section.pop("lambda", 1.0)
    source, group = section.pop("entropy_source", "policy"), section.pop("group", "trained")
    profile = section.pop("profile", None)
    if section:
        raise ConfigError(
            f"aem.{sorted(section)[0]} is unknown; the keys are aem.enabled, aem.lambda, aem.group,"
            " aem.entropy_source and aem.profile"
        )
    if not isinstance(enabled, bool):
        raise ConfigError(f"aem.enabled is {enabled!r}; it must be true or false")
    if isinstance(lam, bool) or not isinstance(lam, int | float) or not (math.isfinite(lam) and lam >= 0):
        raise ConfigError(f"aem.lambda is {lam!r}; it must be a number, not negative (the paper uses 1)")
    if source not in get_args(EntropySource):
        raise ConfigError(f"aem.entropy_source is {source!r}; choose one of {list(get_args(EntropySource))}")
    if group not in get_args(Group):
        raise ConfigError(f"aem.group is {group!r}; choose one of {list(get_args(Group))}")
    if profile is not None and not (isinstance(profile, str) and Path(profile).is_absolute()):
        raise ConfigError(
            f"aem.profile is {profile!r}; it must be a folder, from the root (/...): Ray's processes begin elsewhere"
        )
    return AemSettings(enabled, float(lam), source, group, profile)


def require_trained_group(settings: AemSettings) -> None:
    """Raise ConfigError for aem.group=all, which verl's own trainers cannot give."""
    if settings.enabled and settings.group == "all":
        raise ConfigError(
            "aem.group is 'all', but verl's response_mask holds no token of a masked row, so its responses cannot be"
            " found; use aem.group=trained"
        )
