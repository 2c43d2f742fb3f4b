"""What a recipe becomes: the whole configuration that rLLM and verl get, checked against the installed ones.

Unknown keys are errors of the composition. Keys that the composition knows and no code reads (verl keeps some of them
for old recipes) are errors too, as far as known: `keys_read.json` lists what was read in runs of the chain on the CPU.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final  # Any: a configuration's values

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aem_swe.engines.rllm.reads import is_read, known_reads
from aem_swe.engines.rllm.settings import below_rllm, cluster_config, overrides_of
from aem_swe.engines.rllm.twins import same_setting
from aem_swe.engines.rllm.versions import compare, here
from aem_swe.errors import ConfigError
from aem_swe.schema import Recipe

_OURS: Final = ("aem", "model.name", "ray_init")
"""Keys beyond rLLM's configuration that our backend, its gateway and its launcher read."""
_NOT_ON_A_CPU: Final = (
    "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.actor.fsdp_config.param_offload",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
    "ray_init.address",
    "rollout.nnodes",
    "rollout.n_gpus_per_node",
    "actor_rollout_ref.actor.kl_loss_type",
    "actor_rollout_ref.ref.fsdp_config.param_offload",
)
"""Read where there are GPUs, several machines, servers of their own (fully asynchronous) or a reference model: what the
recorded runs, on one CPU, do not have. They were looked up in the source of verl 0.9.1."""


def dry_run(recipe: Recipe) -> Iterator[str]:
    """Yield what a run would get, piece by piece. Raises ConfigError for keys that are unknown or that nothing reads.

    Our own overrides come first, so that they are seen also where rLLM is not installed.
    """
    overrides = overrides_of(recipe)
    yield f"# recipe {recipe.recipe}: {len(overrides)} overrides of rLLM's configuration"
    yield from (f"#   {override}" for override in overrides)
    config = cluster_config(recipe)
    versions = here()
    yield "# versions: " + ", ".join(f"{name} {version}" for name, version in versions.items())
    chosen, differing = compare(versions)
    verdict = (
        f"not the set that was tried ({', '.join(differing)})" if differing else f"tried together ({chosen.tried})"
    )
    yield f"# {chosen.name}: {verdict}"
    _require_whole_sections(recipe)
    values = _resolved(config)
    yield _check(overrides, values, versions)
    yield OmegaConf.to_yaml(OmegaConf.create(values)).rstrip()


def check_keys(recipe: Recipe, config: Any) -> str:
    """The check of a dry run, for a run: one line, or ConfigError for keys that are unknown or that nothing reads."""
    _require_whole_sections(recipe)
    return _check(overrides_of(recipe), _resolved(config), here())


def _resolved(config: Any) -> Any:
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"the configuration does not resolve ({said}); mend cluster.verl or cluster.rllm") from error


def _require_whole_sections(recipe: Recipe) -> None:
    """Raise ConfigError where cluster.verl or cluster.rllm replaces or takes away what has keys that are read below."""
    read = (known_reads() or ({}, frozenset[str]()))[1]
    users = [*recipe.cluster.verl, *(below_rllm(key) for key in recipe.cluster.rllm)]
    for key in users:
        name = key.lstrip("+~")
        if any(known.startswith(f"{name}.") for known in read) and not _is_below_free(name):
            raise ConfigError(f"{key} is a section with keys that are read; set or take away one of its keys")
        if key.startswith("~") and is_read(name, read):
            raise ConfigError(f"{key} takes away a key that is read; give it a value instead")


def _check(overrides: list[str], values: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """One line on what was checked. Raises ConfigError for keys that nothing reads."""
    given = [word.partition("=")[0] for word in overrides if not word.startswith(("~", "++"))]
    recorded = known_reads()
    if recorded is None:
        _require_home([key.lstrip("+") for key in given if key.startswith("+")], values, frozenset())
        return "# checked: every key is in the installed configuration; which keys are read is not recorded yet"
    of, read = recorded
    _require_home([key.lstrip("+") for key in given if key.startswith("+")], values, read)
    unread = [
        key
        for key in given
        if not (_expected(key.lstrip("+")) or _is_below_free(key.lstrip("+")))
        and not any(is_read(name, read) for name in same_setting(key.lstrip("+")))
    ]
    if unread:
        raise ConfigError(
            f"{', '.join(unread)}: not seen being read in the recorded runs of verl {of.get('verl')} and rLLM "
            f"{of.get('rllm')}; leave it out, use the key that took its place, or write ++ before a key that you know"
            " is read"
        )
    same = all(versions.get(name) == of.get(name) for name in ("verl", "rllm"))
    where = (
        "these versions" if same else f"verl {of.get('verl')} and rLLM {of.get('rllm')}, not the ones installed here"
    )
    forced = [word.partition("=")[0] for word in overrides if word.startswith("++")]
    but = f"; not checked: {', '.join(forced)}" if forced else ""
    return f"# checked: every key is in the installed configuration and was seen being read by {where}{but}"


def _expected(key: str) -> bool:
    return key in _NOT_ON_A_CPU or any(key == ours or key.startswith(f"{ours}.") for ours in _OURS)


def _require_home(added: list[str], values: Mapping[str, Any], read: frozenset[str]) -> None:
    """A key that is added (+) needs a place that takes such keys: ours, a free-form section, or one seen being read."""
    for key in added:
        if not (_expected(key) or is_read(key, read) or _is_free(key, values)):
            raise ConfigError(
                f"+{key} is a key that the installed rLLM and verl do not have; leave it out, or mend its spelling"
            )


_FREE: Final = (
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs",
    "actor_rollout_ref.actor.optim.override_optimizer_config",
)
"""Sections that verl hands to another library as they are: there every key is possible."""


def _is_below_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in _FREE)


def _is_free(key: str, values: Mapping[str, Any]) -> bool:
    if _is_below_free(key):
        return True
    # a field of the object that verl makes of this section, though verl's file of defaults does not name it
    above: Any = values
    for word in key.split(".")[:-1]:
        above = above.get(word, {}) if isinstance(above, Mapping) else {}
    return key.rpartition(".")[2] in _fields_of(above.get("_target_") if isinstance(above, Mapping) else None)


def _fields_of(target: object) -> set[str]:
    """The fields of the class that a section is made into."""
    import importlib

    if not isinstance(target, str):
        return set()
    module, _, name = target.rpartition(".")
    return set(getattr(importlib.import_module(module), name).__dataclass_fields__)
