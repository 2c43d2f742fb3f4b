"""Checkpoints of the embedded engine: HF weights and tokenizer, optimiser state, and the step. Whole or absent.

A checkpoint is written beside its final name and renamed when everything is on the disk, so a folder named step_N is
always complete. Random streams and the data position are functions of (seed, step) and need no saving.
"""

import json
import os
import shutil
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from aem_swe.engines.local.model import LocalModel, first_line
from aem_swe.errors import RunError

_STATE = "trainer_state.pt"


def _name(step: int) -> str:
    return f"step_{step:06d}"


def _sync_to_disk(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_checkpoint(folder: Path, step: int, model: LocalModel, optimizer: torch.optim.Optimizer) -> None:
    """Write checkpoints/step_N atomically. Raises RunError where the disk is full."""
    final, temporary = folder / _name(step), folder / f".{_name(step)}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        model.network.save_pretrained(temporary)
        model.chat.tokenizer.save_pretrained(temporary)  # type: ignore[attr-defined]  # every HF tokenizer has it
        torch.save({"optimizer": optimizer.state_dict()}, temporary / _STATE)
        (temporary / "trainer_state.json").write_text(json.dumps({"step": step}))
        _sync_to_disk(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
    except (OSError, RuntimeError, SafetensorError) as error:  # the last two are a full disk, to torch and safetensors
        shutil.rmtree(temporary, ignore_errors=True)
        raise RunError(
            f"checkpoint {final} cannot be written ({first_line(error)}); free space, then use --resume"
        ) from error


def prune_checkpoints(folder: Path, *, keep: int) -> None:
    """Keep the newest `keep`. Not before the row of the newest is in metrics.jsonl: see `last_checkpoint`."""
    for old in sorted(folder.glob("step_*"))[:-keep]:
        shutil.rmtree(old)


def last_checkpoint(folder: Path, *, recorded: int) -> Path | None:
    """Return the newest complete checkpoint up to the step `recorded`, or None; removes what a kill left half written.

    (A later one was written by a step that was killed before its row of metrics: that step runs again.)
    """
    for leftover in folder.glob(".step_*.tmp"):
        shutil.rmtree(leftover)
    return max((path for path in folder.glob("step_*") if path.name <= _name(recorded)), default=None)


def checkpoint_step(checkpoint: Path) -> int:
    """Return the step of a checkpoint. Raises RunError if it is broken."""
    try:
        return int(json.loads((checkpoint / "trainer_state.json").read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"checkpoint {checkpoint} is broken ({first_line(error)}); remove it to resume from the one before"
        ) from error


def load_optimizer(checkpoint: Path, optimizer: torch.optim.Optimizer) -> None:
    """Restore the optimiser's state. Raises RunError if the file is missing or broken."""
    try:
        state: dict[str, Any] = torch.load(checkpoint / _STATE, weights_only=True)  # Any: torch's own structure
        optimizer.load_state_dict(state["optimizer"])
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        UnpicklingError,
    ) as error:  # what torch.load raises for a torn file
        raise RunError(
            f"checkpoint {checkpoint} is broken ({first_line(error)}); remove it to resume from the one before"
        ) from error
