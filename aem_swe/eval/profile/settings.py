"""The recipe of a run as far as advice needs it: which engine ran it, and what a key is set to now."""

from collections.abc import Mapping
from dataclasses import dataclass

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

    def number(self, key: str) -> float | None:
        """None where it is no number or not known."""
        now = self.value(key)
        return float(now) if isinstance(now, int | float) and not isinstance(now, bool) else None

    @property
    def docker(self) -> bool:
        """Whether keys about containers mean anything here; where the recipe cannot be read, they may."""
        return self.value("sandbox.kind") in ("docker", None)

    @property
    def gpus(self) -> float | None:
        """Of the whole cluster."""
        nodes, each = self.number("cluster.nodes"), self.number("cluster.gpus_per_node")
        return None if nodes is None or each is None else nodes * each

    @property
    def may_stream(self) -> bool:
        """Whether cluster.mode=fully_async can be asked for; it needs a GPU for each half, and has no minibatches."""
        enough = self.gpus is None or self.gpus > 1
        return self.engine == "rllm" and enough and self.number("trainer.minibatches") in (None, 1.0)


def read_settings(profile: Profile) -> Settings:
    """Of the run's recipe; where that says no engine, it is told from what was recorded."""
    settings = Settings("", profile.config)
    engine = settings.value("engine")
    if engine not in ENGINES:
        engine = "rllm" if CLUSTER_STAGE in profile.stages else "local"
    return Settings(str(engine), profile.config)
