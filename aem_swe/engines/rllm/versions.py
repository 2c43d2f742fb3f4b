"""Which versions of rLLM, verl, vLLM and what they stand on were run together. The only place that knows.

Not covered: CUDA, drivers and GPUs. Nothing here says that other versions fail, only that nobody tried them.
"""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.specifiers import SpecifierSet

from aem_swe.errors import ConfigError

INSTALL: Final = "pip install 'rllm[verl] @ git+https://github.com/rllm-org/rllm'"
_MISSING: Final = "not installed"


@dataclass(frozen=True, slots=True)
class VersionSet:
    """Versions that were run together."""

    name: str
    tried: str
    """What ran with them."""
    needs: Mapping[str, str]
    """{distribution: specifier}"""


SETS: Final = (
    VersionSet(
        "verl 0.9.1",
        "rLLM 9beb6e0f with compat.py, FSDP2 and vLLM 0.28.0 on the CPU, weights in step",
        {
            "verl": "==0.9.1",
            "tensordict": "==0.10.0",
            "TransferQueue": "==0.1.11",
            "ray": "==2.60.*",
            "transformers": ">=5.2,<5.11",
            "torch": ">=2.10,<2.14",
            "numpy": ">=2",
            "vllm": ">=0.22",
        },
    ),
    VersionSet(
        "verl 0.8.0",
        "rLLM's own pin: rLLM 9beb6e0f and FSDP2 on the CPU; with numpy 1 it wants pyarrow<26",
        {
            "verl": "==0.8.0",
            "tensordict": "==0.10.0",
            "ray": "==2.60.*",
            "transformers": ">=5.5.3",
            "torch": ">=2.10,<2.14",
            "numpy": ">=1.26",
            "vllm": ">=0.22",
        },
    ),
)
SHOWN: Final = ("rllm", "verl", "vllm", "ray", "torch", "transformers", "tensordict", "TransferQueue", "numpy")


def folder_of(package: str) -> Path | None:
    """Where an installed package is, without importing it; None: it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:  # no origin: a folder of that name that happens to be on the path
        return None
    return Path(found.origin).parent


def require_installed() -> None:
    """Raise ConfigError with the install command where engine=rllm cannot run."""
    missing = [name for name in ("rllm", "verl", "hydra") if folder_of(name) is None]
    if missing:
        raise ConfigError(f"engine rllm needs {', '.join(missing)}, not installed here; install it with: {INSTALL}")


def installed(name: str) -> str:
    """The version of a distribution, with the commit where it came from a repository; or 'not installed'."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return "of an unknown version" if folder_of(name) is not None else _MISSING
    origin = found.read_text("direct_url.json")
    commit = json.loads(origin).get("vcs_info", {}).get("commit_id", "") if origin else ""
    return f"{found.version} at {commit[:8]}" if commit else found.version


def compare(versions: Mapping[str, str]) -> tuple[VersionSet, list[str]]:
    """Return the set of this verl (else the first one) and what differs from it, one line each."""
    fitting = [one for one in SETS if _fits(versions["verl"], one.needs["verl"])]
    chosen = (fitting or SETS)[0]
    differing = [
        f"{name} {versions[name]} (wants {wanted})"
        for name, wanted in chosen.needs.items()
        if not _fits(versions[name], wanted)
    ]
    if versions["rllm"] == _MISSING:
        differing.insert(0, f"rllm {_MISSING}")
    return chosen, differing


def here() -> dict[str, str]:
    """{distribution: version} of what matters, in this environment."""
    return {name: installed(name) for name in SHOWN}


def _fits(version: str, wanted: str) -> bool:
    return version[:1].isdigit() and SpecifierSet(wanted, prereleases=True).contains(version.split(" ")[0])
