"""Result files of `aem-swe verify`, read back: strict JSON, and one line about anything else."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from aem_swe.config import complaint
from aem_swe.errors import ConfigError
from aem_swe.eval.visible import visible, visible_line
from aem_swe.section import Section

Json = dict[str, Any]  # JSON values
_LONGEST = 300
_MOST_BYTES = 1 << 26
_LARGEST, _SMALLEST = 1e15, 1e-100
"""Of what was measured; beyond them squares and quotients leave float64."""
_PLAIN = {
    "aem_swe": re.compile(r"[0-9A-Za-z.+]{1,40}"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "commit": re.compile(r"[0-9a-f]{7,40}(-dirty)?"),
    "command": re.compile(r"[^\x00-\x1f\x7f-\x9f`|<>]{1,2000}"),
    "name": re.compile(r"[0-9A-Za-z_.-]{1,100}"),
}
Result = TypeVar("Result")


def read_file(
    path: Path, option: str, command: str, parse: Callable[[Json], Result], model: type[Section] = Section
) -> Result:
    """What `parse` makes of the file. Raises ConfigError where it or JSON refuses, naming `option` and `command`.

    model: the section that pydantic's complaints are about.
    """
    try:
        return parse(read_json(path))
    except OSError as error:
        raise ConfigError(f"{option} {str(path)!r} cannot be read ({error.strerror}); name a file of --json") from error
    except ValidationError as error:
        said = complaint(error, model)
    except KeyError as error:
        said = f"{error} is missing"
    except (ConfigError, ValueError, TypeError, AttributeError, ArithmeticError, IndexError) as error:
        said = visible_line(str(error))[:_LONGEST]
    except (RecursionError, MemoryError):
        said = "it is nested too deeply, or too large"
    raise ConfigError(f"{option} {str(path)!r} is no result of `{command}` ({said}); make it again")


def read_json(path: Path) -> Any:  # JSON values
    """Strict JSON: NaN, numbers that are no measurement and a key that comes twice are ValueErrors."""
    with path.open("rb") as file:  # a device may have no end
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES >> 20} MB")
    return json.loads(
        content.decode("utf-8"),
        parse_constant=_refuse,
        parse_float=_measured,
        parse_int=_small_integer,
        object_pairs_hook=_once,
    )


def require_plain(**texts: object) -> None:
    """Raises ValueError for what a file says of its making, and a page or a terminal should not be given."""
    for key, text in texts.items():
        if not isinstance(text, str) or not _PLAIN[key].fullmatch(text) or visible(text) != text:
            raise ValueError(f"{key} is {text!r}"[:_LONGEST])


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that could be measured")


def _measured(text: str) -> float:
    number = float(text)
    return number if not number or _SMALLEST <= abs(number) <= _LARGEST else _refuse(text[:20])


def _small_integer(text: str) -> int:
    return int(text) if len(text) < 16 else _refuse(text[:20])


def _once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return found
