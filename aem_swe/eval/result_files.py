"""Result files of `aem-swe verify`, read back: strict JSON, and one line about anything else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from aem_swe.config import complaint
from aem_swe.errors import ConfigError
from aem_swe.section import Section

Json = dict[str, Any]  # JSON values
Result = TypeVar("Result")


def read_file(
    path: Path, option: str, command: str, parse: Callable[[Json], Result], model: type[Section] = Section
) -> Result:
    """What `parse` makes of the file. Raises ConfigError where it or JSON refuses, naming `option` and `command`.

    model: the section that pydantic's complaints are about.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse))
    except OSError as error:
        raise ConfigError(f"{option} {str(path)!r} cannot be read ({error.strerror}); name a file of --json") from error
    except ValidationError as error:
        said = complaint(error, model)
    except KeyError as error:
        said = f"{error} is missing"
    except (ConfigError, ValueError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
    raise ConfigError(f"{option} {str(path)!r} is no result of `{command}` ({said}); make it again")


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number")
