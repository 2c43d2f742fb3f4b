"""Predictions that somebody made: preds.json and preds.jsonl as mini-swe-agent, SWE-agent and the harness have them.

A dictionary by instance id, a list, or one prediction a line; each has instance_id, model_patch and
model_name_or_path. A folder stands for the file of predictions in it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # predictions are JSON of anybody's

from aem_swe.errors import ConfigError
from aem_swe.tasks.rows import Row, readable

GOLD, NO_OP = "gold", "no-op"
NAMES = ("preds.json", "preds.jsonl", "all_preds.jsonl", "predictions.jsonl", "predictions.json")
"""What a folder is searched for, in this order."""
NO_OP_PATCH = """\
diff --git a/aem_swe_no_op.txt b/aem_swe_no_op.txt
new file mode 100644
--- /dev/null
+++ b/aem_swe_no_op.txt
@@ -0,0 +1 @@
+This file changes nothing.
"""
"""Applies everywhere and resolves nothing: what an idle agent that did submit would be judged by."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The patches of one model, by instance id; an empty text where it made none."""

    model: str
    patches: Mapping[str, str]


def gold(rows: Sequence[Row]) -> Submission:
    """The reference patches of the data set."""
    return Submission(GOLD, {row["instance_id"]: row["patch"] for row in rows})


def no_op(rows: Sequence[Row]) -> Submission:
    """A patch that changes nothing, for every instance."""
    return Submission(NO_OP, dict.fromkeys((row["instance_id"] for row in rows), NO_OP_PATCH))


def read_submission(path: Path, model: str = "") -> Submission:
    """Read predictions. model: replaces the name in the file, and chooses nothing. Raises ConfigError that says what is
    malformed."""
    if path.is_dir():
        path = next((path / name for name in NAMES if (path / name).is_file()), path / NAMES[0])
    if not path.is_file():
        raise ConfigError(f"predictions {str(path)!r} are not there; name a file of them, or a folder with {NAMES[0]}")
    patches: dict[str, str] = {}
    models: dict[str, None] = {}
    for place, said in _predictions(path):
        if not isinstance(said, dict) or not isinstance(said.get("instance_id"), str):
            raise ConfigError(f"{place} is no prediction; each is an object with instance_id and model_patch")
        identity, patch = said["instance_id"], said.get("model_patch")
        if (patch is not None and not isinstance(patch, str)) or "model_patch" not in said:
            found = f"a {type(patch).__name__}" if "model_patch" in said else "missing"
            raise ConfigError(f"{place} ({identity}): model_patch is {found}; it has to be a text, empty for no patch")
        if identity in patches:
            raise ConfigError(f"{place}: {identity} has a prediction already; keep one of them")
        patches[identity] = patch or ""
        models[str(said.get("model_name_or_path") or "unnamed")] = None
    if not patches:
        raise ConfigError(f"predictions {str(path)!r} are empty; give a file that holds at least one")
    if len(models) > 1 and not model:
        raise ConfigError(
            f"predictions {str(path)!r} are of {len(models)} models ({', '.join(sorted(models)[:3])}); "
            "give one file for each, or one name with --model"
        )
    return Submission(model or next(iter(models)), patches)


def _predictions(path: Path) -> list[tuple[str, Any]]:
    """(where it stands, what stands there)."""
    with readable(path):
        content = path.read_text("utf-8", "replace")
    if path.suffix == ".jsonl":
        lines = [(f"{path}, line {number}", line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]
        return [(place, _parsed(line, place)) for place, line in lines]
    said = _parsed(content, str(path))
    if isinstance(said, list):
        return [(f"{path}, entry {number}", one) for number, one in enumerate(said, 1)]
    if not isinstance(said, dict):
        raise ConfigError(f"{path} holds a {type(said).__name__}; predictions are a dictionary, a list, or JSON lines")
    if "model_patch" in said:  # a single one, as SWE-agent writes it
        return [(str(path), said)]
    named = ({"instance_id": name, **one} if isinstance(one, dict) else one for name, one in said.items())
    return [(f"{path}, {name!r}", one) for name, one in zip(said, named, strict=True)]


def _parsed(content: str, place: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place} is no JSON ({error}); predictions end in .json or .jsonl") from error
