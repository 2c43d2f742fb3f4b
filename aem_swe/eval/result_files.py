"""Result files of `aem-swe verify`, read back: strict JSON, and one line about anything else."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from aem_swe.config import complaint
from aem_swe.errors import ConfigError
from aem_swe.eval.visible import visible_line
from aem_swe.section import Section

Json = dict[str, Any]  # JSON values
_LONGEST = 300
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
    """Strict JSON: NaN, Infinity and numbers beyond float64 are ValueErrors."""
    return json.loads(
        path.read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_finite, parse_int=_small_integer
    )


def require_plain(**texts: object) -> None:
    """Raises ValueError for what a file says of its making, and a page or a terminal should not be given."""
    for key, text in texts.items():
        if not isinstance(text, str) or not _PLAIN[key].fullmatch(text):
            raise ValueError(f"{key} is {text!r}"[:_LONGEST])


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text[:20])


def _small_integer(text: str) -> int:
    return int(text) if len(text) < 19 else _refuse(text[:20])
