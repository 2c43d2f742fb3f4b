"""Data sets on the Hugging Face hub: which ones this project knows, and their files.

Not covered: data sets that are no parquet files. A token for private ones is the hub client's business (HF_TOKEN).
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aem_swe.errors import ConfigError
from aem_swe.tasks import r2e_gym, swebench_rows
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.rows import Row

UNSTATED: Final = "not stated; see the data set's page"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set of tasks."""

    name: str
    repository: str
    """On the hub."""
    split: str
    make_problem: Callable[[Row], Problem]
    """Raises TaskError for a row that is no task."""


DATA_SETS: Final = {
    one.name: one
    for one in (
        DataSet("r2e-gym", "R2E-Gym/R2E-Gym-Subset", "train", r2e_gym.make_problem),
        DataSet("swe-bench-verified", "SWE-bench/SWE-bench_Verified", "test", swebench_rows.make_problem),
    )
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """Files of a data set on this machine."""

    files: tuple[Path, ...]
    revision: str
    licence: str


def fetch(data_set: DataSet, *, revision: str | None, say: Callable[[str], None]) -> Fetched:
    """Download the split's parquet files into the hub client's cache, or find them there. Raises ConfigError."""
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ValueError as error:  # the client reads the address when it is imported
        address = os.environ.get("HF_ENDPOINT")
        raise ConfigError(f"HF_ENDPOINT {address!r} is no address ({error}); correct it, or unset it") from error

    # the client's HTTP library changed its name twice; the base of its errors is the one that a hub's error has
    network = next(
        kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError" and issubclass(kind, Exception)
    )
    invalid = getattr(importlib.import_module(network.__module__.partition(".")[0]), "InvalidURL", ValueError)
    name = data_set.repository
    try:
        about = HfApi().dataset_info(name, revision=revision)
        files = sorted(
            file.rfilename
            for file in about.siblings or ()
            if file.rfilename.endswith(".parquet") and Path(file.rfilename).name.startswith(f"{data_set.split}-")
        )
        if not files or about.sha is None:
            raise ConfigError(
                f"{name} has no parquet files of its split {data_set.split!r}; give rows with --from FILE"
            )
        paths = []
        for file in files:
            say(f"{name}@{about.sha[:8]}: {file}")
            paths.append(Path(hf_hub_download(name, file, repo_type="dataset", revision=about.sha)))
    except (network, invalid, ValueError, OSError) as error:  # of HF_ENDPOINT too, whatever it holds
        why = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"{name} cannot be fetched from the Hugging Face hub ({type(error).__name__}: {why}); try again, or give a"
            " copy of its rows with --from FILE"
        ) from error
    card = about.card_data
    return Fetched(tuple(paths), about.sha, str(card.get("license") or UNSTATED) if card else UNSTATED)
