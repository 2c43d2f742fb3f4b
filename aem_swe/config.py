"""Reading a recipe (schema.py has its keys and their defaults), and the one-line errors for wrong ones.

A recipe is a YAML file in configs/ (or a path); `key=value` on the command line overrides it, Hydra-style. The merged
recipe is validated whole before anything starts; unknown keys fail with a suggestion, and renamed keys get no alias.
"""

import difflib
import os.path
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from aem_swe.errors import ConfigError
from aem_swe.resources import names, resource
from aem_swe.schema import Recipe

_HALF = re.compile("[\ud800-\udfff]")  # no file can have it, so no run could write its recipe
_LONGEST = 200
_SANDBOX_KIND = re.compile(r"^sandbox=(\w+)$")


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema."""
    for name, info in section.model_fields.items():
        key = prefix + (info.alias or name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _keys(info.annotation, key + ".")
        else:
            yield key


KEYS = tuple(_keys(Recipe))


def complaint(error: ValidationError, model: type[BaseModel] = Recipe) -> str:
    """Turn pydantic's first error about a `model` into one line: what, value, remedy."""
    known_keys = KEYS if model is Recipe else tuple(_keys(model))
    first = error.errors()[0]
    key, value = _clipped(".".join(str(part) for part in first["loc"])), _clipped(repr(first["input"]))
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, known_keys, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(model.model_fields)}"
        return f"key {key!r} is unknown{hint}"
    if first["type"] == "model_type":
        inside = [known for known in known_keys if known.startswith(f"{key}.")]
        if not inside:  # one of a list, or of a mapping with names of its own
            return f"{key} {value} is not usable: it is a section".lstrip()
        return f"{key} is a section and cannot be {value}; set one of its keys, for example {inside[0]}=..."
    message = _clipped(first["msg"].removeprefix("Value error, "), 3 * _LONGEST)
    if not key or first["type"] == "value_error":  # a check over several keys names them itself
        return message
    if first["type"] == "tuple_type" and isinstance(first["input"], str):
        return f"{key} {value} is not usable: it is a list; write {key}=[{value[1:-1]}]"
    return f"{key} {value} is not usable: {message[0].lower() + message[1:]}"


def _clipped(text: str, longest: int = _LONGEST) -> str:
    """A file may hold megabytes where a word should be."""
    return text if len(text) <= longest else f"{text[:longest]}..."


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
    overrides = [_SANDBOX_KIND.sub(r"sandbox.kind=\1", override) for override in overrides]
    values = read_settings(path, overrides, "recipe")
    return validate_recipe({"recipe": path.stem, **values}, default_run_dir=f"runs/{path.stem}")


def read_settings(path: Path, overrides: Sequence[str], kind: str) -> dict[str, Any]:  # whatever the YAML holds
    """A YAML file of settings with `key=value` overrides merged in, not validated. Raises ConfigError."""
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"override {override!r} has no value; write key=value, for example trainer.steps=3")
    try:
        source = f"{kind} {str(path)!r}"
        loaded = OmegaConf.load(path)
        if not OmegaConf.is_dict(loaded):
            raise ValueError("it is not a mapping of sections like configs/demo.yaml")
        source = f"overrides {list(overrides)}"
        given = OmegaConf.from_dotlist(list(overrides))
        for key, value in _values(OmegaConf.to_container(given, resolve=False)):
            if value == "???":  # to OmegaConf no value at all; it would keep the file's
                raise ConfigError(f"override {key}=??? has no value; leave it out, or give one")
        merged = OmegaConf.merge(loaded, given)
        source = f"{kind} {str(path)!r} with overrides {list(overrides)}"
        values: Any = OmegaConf.to_container(merged, resolve=True)
    except (YAMLError, OmegaConfBaseException, OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{source} cannot be read ({' '.join(str(error).split())}); mend it") from error
    return dict(values)


def validate_recipe(values: dict[str, Any], *, default_run_dir: str = "") -> Recipe:  # Any: checked here
    """Validate a nested mapping. Raises ConfigError."""
    for key, value in _values(values):
        if isinstance(value, str) and _HALF.search(key + value):
            raise ConfigError(f"{key} {value!r} holds half a character (a lone surrogate); write the whole one")
    try:
        loaded = Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(complaint(error)) from error
    return loaded if loaded.run_dir else loaded.model_copy(update={"run_dir": default_run_dir})


def _values(values: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every value in nested mappings and lists, with its dotted key."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _values(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _values(value, key)
    else:
        yield key, values


def dump_recipe(recipe: Recipe) -> str:
    """Return the whole recipe as YAML, every default written out."""
    return OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump(by_alias=True)))
