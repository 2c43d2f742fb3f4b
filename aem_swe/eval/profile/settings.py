"""The recipe of a run as far as advice needs it: which engine ran it, and what a key is set to now."""

from collections.abc import Mapping
from dataclasses import dataclass

import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types; a stub package may be installed

from aem_swe.eval.profile.profile import Profile
from aem_swe.eval.visible import visible_line

ENGINES = ("local", "rllm")
CLUSTER_STAGE = "policy/request"
"""Only a server is asked for a whole turn at a time."""


@dataclass(frozen=True, slots=True)
class Settings:
    engine: str
    config: Mapping[str, object]
    """Empty where the folder has no readable config.yaml."""

    def value(self, key: str) -> object:
        """Of a dotted key; None where it is not known."""
        found: object = self.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    def named(self, key: str) -> str:
        """The key with what it is now, such as sandbox.warm (now 8)."""
        now = self.value(key)
        if isinstance(now, bool):
            return f"{key} (now {str(now).lower()})"
        return f"{key} (now {visible_line(str(now), 40)})" if isinstance(now, int | float | str) and now != "" else key

    @property
    def docker(self) -> bool:
        """Whether keys about containers mean anything here; where the recipe cannot be read, they may."""
        return self.value("sandbox.kind") in ("docker", None)


def read_settings(profile: Profile) -> Settings:
    """Of the run folder's config.yaml; without one, the engine is told from what was recorded."""
    try:
        config: object = yaml.safe_load((profile.folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        config = None
    settings = Settings("", config if isinstance(config, Mapping) else {})
    engine = settings.value("engine")
    if engine not in ENGINES:
        engine = "rllm" if CLUSTER_STAGE in profile.stages else "local"
    return Settings(str(engine), settings.config)
