"""Where a run starts: at its first step, or behind its newest usable checkpoint.

A step counts when its row is in metrics.jsonl and, every `save_every` steps, its checkpoint is whole. What a kill left
beyond that (a checkpoint without its row, rows without their checkpoint) is removed and those steps run again, to the
same result. A run that has lost the checkpoints it should have is refused: it is never silently started over.
"""

import shutil
from pathlib import Path

from aem_swe.engines.local.checkpoint import checkpoint_step, last_checkpoint
from aem_swe.engines.run_start import may_resume
from aem_swe.errors import RunError
from aem_swe.metrics import RunFolder
from aem_swe.schema import Recipe


def starting_point(recipe: Recipe, folder: RunFolder, *, resume: bool) -> tuple[Path | None, int]:
    """Return the checkpoint to start from (None: the starting policy) and the first step to run."""
    if not may_resume(recipe, folder, resume=resume):
        return None, 1
    recorded = folder.last_step()
    checkpoint = last_checkpoint(folder.path / "checkpoints", recorded=recorded)
    if checkpoint is None:
        if recipe.trainer.save_every and recorded >= recipe.trainer.save_every:
            raise RunError(
                f"run_dir {recipe.run_dir!r} has {recorded} steps but none of its checkpoints;"
                " restore checkpoints/step_* or choose another run_dir"
            )
        return None, 1
    step = checkpoint_step(checkpoint)
    for newer in (folder.path / "checkpoints").glob("step_*"):
        if newer.name > checkpoint.name:  # its row was never written
            shutil.rmtree(newer)
    folder.rewind(step)
    return checkpoint, step + 1
