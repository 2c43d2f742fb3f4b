"""Does a container engine have what a run needs: does it answer, hold the images, enforce the limits, have the room?"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any  # the engine's answers are JSON

import docker
from docker.errors import ImageNotFound

from aem_swe.check import Check
from aem_swe.errors import ConfigError, SandboxError
from aem_swe.sandboxes._connect import connected, engine_urls, name_of
from aem_swe.sandboxes._engine_errors import translated
from aem_swe.sandboxes.base import DockerSettings, SandboxLimits
from aem_swe.sandboxes.docker import unavailable_reason
from aem_swe.types import Task

_PREPARED_GB = 0.5
"""What one prepared image may add at most, on top of its task's own (history written anew, an index)."""
_ENFORCED = {"MemoryLimit": "memory", "SwapLimit": "swap", "PidsLimit": "processes"}


def diagnose(
    settings: DockerSettings, limits: SandboxLimits, images: Sequence[str], task: Task | None, *, at_once: int
) -> list[Check]:
    """Ask every engine. images: that the run's tasks need; task: one of them, to be tried (None: one without an image);
    at_once: sandboxes that may be open at the same time."""
    findings: list[Check] = []
    urls = engine_urls(settings)
    for url in urls:
        name = f"engine {name_of(url)}"
        try:
            with connected(url, timeout=30) as client, translated(name_of(url), "of the run's tasks"):
                info: dict[str, Any] = client.info()
                missing = [image for image in sorted(set(images)) if not _has(client, image)]
        except SandboxError as error:
            what, _, remedy = str(error).partition("; ")
            findings.append(Check(name, False, what, remedy))
            continue
        here = url.startswith("unix://") or not url
        findings.append(
            Check(name, True, f"{info.get('ServerVersion')}, {info.get('Driver')}, {info.get('NCPU')} cores")
        )
        findings += [
            _limits(name, info),
            _memory(name, info, limits, -(-at_once // len(urls))),
            _images(name, missing, len(set(images))),
        ]
        findings += [_disk(name, info, len(set(images)))] if here else []
    if all(finding.passed for finding in findings):
        settings = replace(settings, engine_wait_s=0.0)
        reason = unavailable_reason(settings) if task is None else unavailable_reason(settings, task)
        good = "a command ran inside and its change came back as a patch"
        findings.append(Check("sandbox", reason is None, reason or good, "see the message"))
    return findings


def missing_images(settings: DockerSettings, images: Sequence[str]) -> list[str]:
    """Those that no engine has, sorted. Raises EngineUnreachable where one does not answer."""
    missing = set(images)
    for url in engine_urls(settings):
        with connected(url, timeout=60) as client, translated(name_of(url), "of the run's tasks"):
            missing -= {image for image in missing if _has(client, image)}
    return sorted(missing)


def require_images(settings: DockerSettings, images: Sequence[str], rows: str) -> None:
    """Raise ConfigError where no engine has one of the images of `rows`."""
    if missing := missing_images(settings, images):
        raise ConfigError(
            f"{len(missing)} of {len(set(images))} images are on no engine, the first is {missing[0]}; fetch them: "
            f"aem-swe sandbox pull {rows}, or build the project's own: aem-swe sandbox build"
        )


def _has(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


def _limits(name: str, info: Mapping[str, Any]) -> Check:
    lacking = [what for key, what in _ENFORCED.items() if not info.get(key)]
    if not lacking:
        return Check(f"{name}: limits", True, "the kernel limits memory, swap and processes of a container")
    if "memory" in lacking and "processes" in lacking:
        finding = "no cgroups for containers (rootless on cgroup v1?): PID 1 watches memory and processes every 25 ms"
        return Check(f"{name}: limits", True, finding)
    remedy = "boot with swapaccount=1, or turn swap off" if lacking == ["swap"] else "give the engine these cgroups"
    return Check(f"{name}: limits", lacking == ["swap"], f"the kernel does not limit {', '.join(lacking)}", remedy)


def _memory(name: str, info: Mapping[str, Any], limits: SandboxLimits, at_once: int) -> Check:
    total, needed = int(info.get("MemTotal", 0)) / 2**30, at_once * limits.memory_mb / 1024
    finding = f"{at_once} sandboxes of {limits.memory_mb} MB may use {needed:.1f} of {total:.1f} GB"
    return Check(
        f"{name}: memory", needed <= total, finding, "lower sandbox.memory_mb or sandbox.workers, or add engines"
    )


def _images(name: str, missing: Sequence[str], total: int) -> Check:
    finding = f"{total - len(missing)} of {total} images are there" + (f"; missing: {missing[0]}" if missing else "")
    remedy = "fetch them (aem-swe sandbox pull ROWS), or build the project's own (aem-swe sandbox build)"
    return Check(f"{name}: images", not missing, finding, remedy)


def _disk(name: str, info: Mapping[str, Any], images: int) -> Check:
    place = str(info.get("DockerRootDir", "/"))
    while not os.path.exists(place):
        place = os.path.dirname(place)
    free, needed = shutil.disk_usage(place).free / 2**30, max(1.0, _PREPARED_GB * images)
    finding = (
        f"{free:.1f} GB free at {place}, up to {needed:.1f} GB for prepared images; no limit on a container's disk"
    )
    return Check(f"{name}: disk", free >= needed, finding, "free space there: aem-swe sandbox gc --images")
