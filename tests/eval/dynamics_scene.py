"""A confirmation of eval/preregistered.yaml with chosen numbers, and its file: nothing is measured."""

import json
from pathlib import Path
from typing import Any

from ablations_scene import ABOUT, batch

from aem_swe.eval.dynamics_result import make_result, to_text
from aem_swe.eval.preregistered import preregistered_file, read_preregistration

Json = dict[str, Any]  # JSON values
STEADY = (0.9, 1.1, 1.0, 0.95, 1.05)


def confirmation(sign: float = 1.0) -> Json:
    """Every claim in the paper's direction, or with sign -1 in the other; registered setting, seeds and batches."""
    registered = read_preregistration(preregistered_file())
    rows = [
        row
        for seed, size in zip(registered.seeds, STEADY, strict=True)
        for number in range(registered.setting["batches"])
        for row in (_early(seed, number, sign * size), _late(seed, number, sign * size))
    ]
    about = {**ABOUT, "confirmatory": True, "setting": dict(registered.setting)}
    return make_result(
        {**about, "policies": [{"name": f"seed_{seed}", "seed": seed} for seed in registered.seeds]}, rows
    )


def _early(seed: int, number: int, size: float) -> Json:
    effects = {f"aem_{strength:g}": strength * size for strength in (0.5, 1.0, 2.0, 4.0)}
    return batch(seed, "early", number, rise=size, inverted=-size, **effects)


def _late(seed: int, number: int, size: float) -> Json:
    return batch(seed, "late", number, positive=8, aem_1=-size, aem_4=1.0)


def write(path: Path, result: Json, **changes: Any) -> Path:
    """The file, with other values of some of its keys."""
    path.write_text(json.dumps({**json.loads(to_text(result)), **changes}))
    return path
