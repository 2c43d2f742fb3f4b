"""One finding of `aem-swe doctor`, and what several of its checks ask."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    passed: bool
    finding: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for a folder that is not made yet."""

    place: Path
    """The nearest one above it that is there."""
    free_gib: float
    problem: str
    """Why the folder cannot be made; empty: it can."""


def room_for(folder: str) -> Room:
    """Look at the nearest existing place of `folder`."""
    place = Path(folder).absolute()
    while not os.path.exists(place):  # unlike Path.exists, it says no to a name that is too long
        place = place.parent
    problem = ""
    if not os.path.isdir(place):
        problem = "no folder"
    elif any(len(os.fsencode(name)) > os.pathconf(place, "PC_NAME_MAX") for name in Path(folder).parts):
        problem = "where no name can be as long as in run_dir"
    elif not os.access(place, os.W_OK):
        problem = "not writable"
    return Room(place, shutil.disk_usage(place).free / 2**30, problem)
