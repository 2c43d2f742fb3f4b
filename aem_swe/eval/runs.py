"""A training run as it lies on disk: its recipe, its manifest and one row of metrics per step.

A run may have been killed at any moment. Torn lines are skipped and counted; a step that was written twice (before and
after a resume) counts once, with its last row. Not covered: trajectories, which are streamed by trajectories.py.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml  # type: ignore[import-untyped, unused-ignore]  # PyYAML ships no types; a stub package may be installed

from aem_swe.errors import RunError
from aem_swe.eval.jsonl import Row, number, read_rows
from aem_swe.eval.statistics import Floats


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the training steps in which it was recorded."""

    steps: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Run:
    folder: Path
    config: Mapping[str, object]
    manifest: Mapping[str, object]
    rows: tuple[Row, ...]
    """Sorted by step; step 0 holds only the evaluation of the starting policy."""
    unreadable_lines: int

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seed(self) -> object:
        return self.config.get("seed", self.manifest.get("seed"))

    @property
    def steps(self) -> int:
        """The last step that was completed."""
        return max(_step(row) for row in self.rows)

    def setting(self, key: str) -> object:
        """The recipe's value under a dotted key such as `trainer.steps`; None if it is not there."""
        value: object = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def series(self, key: str) -> Series:
        """The finite values of one metric over the training steps; steps without it are left out, not filled in."""
        found = [(_step(row), number(row.get(key))) for row in self.rows if _step(row) > 0]
        pairs = [(step, value) for step, value in found if value is not None]
        return Series(np.array([step for step, _ in pairs], float), np.array([value for _, value in pairs], float))

    def keys(self, prefix: str) -> set[str]:
        """The metrics that were recorded at least once and whose name starts with `prefix`."""
        return {key for row in self.rows for key in row if key.startswith(prefix)}

    def evaluation_files(self) -> dict[int, Path]:
        """Held-out episodes by step, in order."""
        return self._trajectory_files(r"eval_(\d+)\.jsonl")

    def training_files(self) -> dict[int, Path]:
        """Training episodes by step, in order."""
        return self._trajectory_files(r"step_(\d+)\.jsonl")

    def _trajectory_files(self, pattern: str) -> dict[int, Path]:
        folder = self.folder / "trajectories"
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        found = {name: re.fullmatch(pattern, name) for name in names}
        return {int(match[1]): folder / name for name, match in found.items() if match}


def load_run(folder: Path) -> Run:
    """Read one run folder.

    Raises RunError if the folder, its config.yaml or its metrics.jsonl is missing, broken or holds no step.
    """
    if not folder.is_dir():
        raise RunError(f"run folder {str(folder)!r} does not exist; give a folder that `aem-swe train` wrote")
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise RunError(f"{metrics} is missing; {str(folder)!r} is not a run folder or its run never started")
    rows: dict[int, Row] = {}
    unreadable = 0
    for row in read_rows(metrics):
        if row is None or number(row.get("step")) is None:
            unreadable += 1
        else:
            rows[_step(row)] = row
    if not rows:
        raise RunError(f"{metrics} holds no step; let the run finish at least one step, or leave it out")
    ordered = tuple(rows[step] for step in sorted(rows))
    return Run(folder, _read_config(folder / "config.yaml"), _read_manifest(folder), ordered, unreadable)


def _step(row: Row) -> int:
    step = number(row.get("step"))
    assert step is not None, "load_run keeps only rows with a step"
    return int(step)


def _read_config(path: Path) -> Mapping[str, object]:
    try:
        config: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}); every run folder holds its resolved recipe"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise RunError(f"{path} is not valid YAML ({where}); restore the file or leave the run out") from error
    if not isinstance(config, dict):
        raise RunError(f"{path} holds {type(config).__name__}, not a mapping; restore the file or leave the run out")
    return config


def _read_manifest(folder: Path) -> Mapping[str, object]:
    """The manifest, or an empty one if the run has none: its entries then read 'not recorded'."""
    path = folder / "manifest.json"
    if not path.exists():
        return {}
    try:
        manifest: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not readable JSON ({error}); delete it, or restore it") from error
    return manifest if isinstance(manifest, dict) else {}
