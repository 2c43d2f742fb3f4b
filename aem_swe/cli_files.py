"""What the commands of `aem-swe verify` ask of the files that they are to write."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from aem_swe.errors import ConfigError


def require_different_files(files: Mapping[str, Path | None]) -> None:
    """Raises ConfigError where two options name one file."""
    seen: dict[str, str] = {}
    for option, path in files.items():
        other = seen.setdefault(os.path.realpath(path), option) if path else option
        if other != option:
            raise ConfigError(f"{option} {str(path)!r} is {other}'s file as well; choose another {option}")


def image_format(plot: Path | None) -> Literal["png", "svg"]:
    """The form of a figure by its name. Raises ConfigError for another."""
    suffix = plot.suffix.lower() if plot else ".svg"
    if suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot {str(plot)!r} is neither .png nor .svg; choose a name that ends so")
    return "png" if suffix == ".png" else "svg"
