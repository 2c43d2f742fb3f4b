"""The files that the commands of `aem-swe verify` are to write: their options, and what is asked of the names."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from aem_swe.errors import ConfigError

PlotOption = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it (.png, .svg).")]


def page_option(page: str) -> Any:  # typer declares its options as Any
    """--markdown, of a command that makes tables of `page`."""
    said = f"FILE has the two marker lines of {page}; what stands between them is replaced."
    return typer.Option("--markdown", metavar="FILE", help=said)


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
