"""The games of ALFWorld's own download (`alfworld-download`), which nothing here needs.

A game is a folder with game.tw-pddl and traj_data.json. As ALFWorld does, those with sliced or movable-receptacle goals
and those that its authors found unsolvable are left out.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from aem_swe.errors import ConfigError
from aem_swe.worlds import FAMILIES
from aem_swe.worlds.games import GAME_FILE
from aem_swe.worlds.generate import Files

_ABOUT = "traj_data.json"
_DATA = "json_2.1.1"
"""Where the download keeps its splits: train, valid_seen, valid_unseen."""


def folder_of(name: str) -> Path:
    """A path, or the name of a split in $ALFWORLD_DATA. Raises ConfigError where there is no such folder."""
    data = os.environ.get("ALFWORLD_DATA")
    places = [Path(name).expanduser(), *([Path(data, _DATA, name)] if data else [])]
    for place in places:
        if os.path.isdir(place):
            return place
    where = f"nor in {places[1].parent}" if data else "and ALFWORLD_DATA is not set"
    raise ConfigError(
        f"data 'alfworld:{name}' is no folder, {where}; give the path of a split (alfworld-download fetches them),"
        " or alfworld alone for generated games"
    )


def game_folders(root: Path) -> list[Path]:
    """Every folder below `root` that holds a usable game, sorted. Raises ConfigError where there is none."""
    found = [path.parent for path in sorted(root.rglob(GAME_FILE)) if _usable(path)]
    if not found:
        raise ConfigError(f"{root} holds no game that can be played ({GAME_FILE} beside {_ABOUT}); give another folder")
    return found


def _usable(path: Path) -> bool:
    folder = str(path.parent)
    if "movable" in folder or "Sliced" in folder or not path.with_name(_ABOUT).is_file():
        return False
    return bool(json.loads(path.read_bytes()).get("solvable", True))


def read_games(folders: list[Path]) -> Iterator[tuple[str, Files]]:
    """(id, files) of each game, without the parts of traj_data.json that only a simulator needs."""
    for folder in folders:
        about = json.loads((folder / _ABOUT).read_bytes())
        if about["task_type"] not in FAMILIES:
            continue
        kept = {"task_type": about["task_type"], "pddl_params": about["pddl_params"]}
        identity = "-".join(folder.parts[-2:])
        yield identity, ((GAME_FILE, (folder / GAME_FILE).read_bytes()), (_ABOUT, json.dumps(kept).encode()))
