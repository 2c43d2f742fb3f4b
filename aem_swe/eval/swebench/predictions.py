"""What the field reads of a run: preds.jsonl and preds.json in SWE-bench's form, and who ended how."""

import json

import yaml

from aem_swe.eval.swebench.plan import Plan
from aem_swe.eval.swebench.played import read_played
from aem_swe.metrics import write_atomically


def write_predictions(plan: Plan, run: int) -> dict[str, str]:
    """Write the files of a run that has been played; returns {instance id: patch}.

    An instance that the world kept from being played is in none of them: it is no empty prediction.
    """
    folder = plan.folder / f"run_{run}"
    patches: dict[str, str] = {}
    endings: dict[str, list[str]] = {}
    for problem in plan.problems:
        name = problem.task.id
        played = read_played(folder / name)
        if played is not None and played.patch is not None:
            patches[name] = played.patch
        endings.setdefault(played.termination if played else "infrastructure_error", []).append(name)
    rows = {
        name: {"instance_id": name, "model_name_or_path": plan.model, "model_patch": patch}
        for name, patch in patches.items()
    }
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "preds.json", (json.dumps(rows, indent=1) + "\n").encode())
    write_atomically(folder / "preds.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows.values()))
    listed = yaml.safe_dump({"instances_by_exit_status": endings})
    write_atomically(folder / f"exit_statuses_run_{run}.yaml", listed.encode())
    return patches


def resolved_by_summary(plan: Plan, run: int) -> set[str] | None:
    """What the harness's own summary of a run says is resolved; None where there is none that can be read."""
    path = plan.folder / f"run_{run}" / f"{plan.model.replace('/', '__')}.run_{run}.json"
    try:
        return set(json.loads(path.read_bytes())["resolved_ids"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
