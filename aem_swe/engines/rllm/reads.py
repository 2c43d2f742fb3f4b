"""Which keys of a configuration a run looks at: a key that nothing reads is a mistake that nobody notices.

`record_into(folder)` makes every OmegaConf mapping, and every configuration object that verl makes of one, write down
what is read of it, in this process; call it in each process of a run. `collect` turns what they wrote into the
committed list, which a dry run checks a recipe against (dry_run.py).

A section that is converted as a whole counts as read (`rollout.engine_kwargs.*`), the whole configuration does not, for
it is converted to be printed. Not covered: a value that is read and then not used.
"""

import functools
import json
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final  # Any: OmegaConf and verl have no types

from omegaconf import DictConfig, OmegaConf

LIST: Final = "keys_read.json"
"""Beside this file: {versions, runs, read}; made by `collect`."""
_MADE_BY: Final = ("hydra", "omegaconf", "dataclasses.py", "verl/base_config.py")
_CHECKED_BY: Final = ("verl/workers/config", "verl/trainer/config", "verl/utils/profiler/config")
"""Code that builds configuration objects; what it reads on the way (of the second: in its constructors) is not used
yet."""
_CONSTRUCTORS: Final = ("__init__", "__post_init__")


class Log:
    """Appends each key once, at once, so that a killed process leaves what it read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"{os.getpid()}.txt").open("a", buffering=1)
        self._seen: set[str] = set()

    def add(self, key: str) -> None:
        if key not in self._seen:
            self._seen.add(key)
            self._file.write(key + "\n")


def record_into(folder: Path) -> Log:
    """From now on, write down what this process reads of configurations. There is no way back: for test runs only."""
    log = Log(folder)
    _trace_mappings(log)
    _trace_conversions(log)
    if "verl" in sys.modules or os.environ.get("AEM_SWE_TRACE_VERL"):
        _trace_objects(log)
    return log


def _trace_mappings(log: Log) -> None:
    original = DictConfig._get_impl

    @functools.wraps(original)
    def reading(self: DictConfig, key: Any, *arguments: Any, **named: Any) -> Any:
        if not _made_by_machinery():
            log.add(str(self._get_full_key(key)))
        return original(self, key, *arguments, **named)

    DictConfig._get_impl = reading  # type: ignore[method-assign]  # to be in between is the point


def _trace_conversions(log: Log) -> None:
    original = OmegaConf.to_container
    select = OmegaConf.select

    @functools.wraps(original)
    def converting(cfg: Any, *arguments: Any, **named: Any) -> Any:
        name = cfg._get_full_key(None) if isinstance(cfg, DictConfig) else ""
        if name:
            log.add(f"{name}.*")
        return original(cfg, *arguments, **named)

    @functools.wraps(select)
    def selecting(cfg: Any, key: str, *arguments: Any, **named: Any) -> Any:
        above = cfg._get_full_key(None)
        if not _called_by("rllm/trainer/verl/utils.py", "rllm/trainer/algorithms/config.py"):  # copies twins about
            log.add(f"{above}.{key}" if above else key)
        return select(cfg, key, *arguments, **named)

    OmegaConf.to_container = staticmethod(converting)  # type: ignore[method-assign]  # as above
    OmegaConf.select = staticmethod(selecting)  # type: ignore[method-assign]  # as above


def _trace_objects(log: Log) -> None:
    """verl's configuration objects, as `module.Class:attribute`; `collect` finds the keys they were made of."""
    from verl.base_config import BaseConfig

    original = BaseConfig.__getattribute__

    def reading(self: Any, name: str) -> Any:
        if not name.startswith("_") and not _made_by_machinery():
            log.add(f"{type(self).__module__}.{type(self).__qualname__}:{name}")
        return original(self, name)

    BaseConfig.__getattribute__ = reading


def _made_by_machinery() -> bool:
    caller = _caller()
    if caller is None:
        return False
    if any(place in caller.co_filename for place in _MADE_BY):
        return True
    return caller.co_name in _CONSTRUCTORS and any(place in caller.co_filename for place in _CHECKED_BY)


def _called_by(*places: str) -> bool:
    caller = _caller()
    return caller is not None and any(place in caller.co_filename for place in places)


def _caller() -> CodeType | None:
    """The nearest caller outside this file, OmegaConf's mapping and the accessors of verl's objects."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_accessor(frame.f_code):
        frame = frame.f_back
    return None if frame is None else frame.f_code


def _is_accessor(code: CodeType) -> bool:
    if code.co_filename.endswith("verl/base_config.py"):
        return code.co_name in ("get", "__getitem__")
    return code.co_filename == __file__ or "omegaconf/dictconfig" in code.co_filename


def collect(folder: Path, configs: Iterable[Mapping[str, Any]]) -> set[str]:
    """Keys that were read, from what the processes wrote; objects are found in `configs` by their `_target_`."""
    lines = {line for file in folder.glob("*.txt") for line in file.read_text().splitlines() if line}
    keys = {line for line in lines if ":" not in line}
    of_class: dict[str, set[str]] = {}
    for line in lines - keys:
        name, _, attribute = line.partition(":")
        of_class.setdefault(name.rpartition(".")[2], set()).add(attribute)
    for config in configs:
        for path, target in _targets(config, ""):
            keys |= {f"{path}.{attribute}" for attribute in of_class.get(target.rpartition(".")[2], ())}
    return keys


def _targets(config: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            if "_target_" in value:
                yield f"{prefix}{name}", str(value["_target_"])
            yield from _targets(value, f"{prefix}{name}.")


def write_list(path: Path, read: set[str], *, versions: Mapping[str, str], run: str) -> None:
    """Add a run's keys to the committed list. run: one line that says what ran."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"versions": dict(versions)}
    if known["versions"] != dict(versions):
        known = {"versions": dict(versions)}
    known["runs"] = sorted({*known.get("runs", []), run})
    known["read"] = sorted({*known.get("read", []), *read})
    path.write_text(json.dumps(known, indent=1) + "\n")


def known_reads() -> tuple[Mapping[str, str], frozenset[str]] | None:
    """The versions and the keys of the committed list; None where there is none yet."""
    place = files("aem_swe.engines.rllm") / LIST
    if not place.is_file():
        return None
    values = json.loads(place.read_text())
    return values["versions"], frozenset(values["read"])


def is_read(key: str, read: frozenset[str]) -> bool:
    """Was this key read, or a section above it converted as a whole?"""
    words = key.split(".")
    return key in read or any(".".join(words[:count]) + ".*" in read for count in range(1, len(words) + 1))
