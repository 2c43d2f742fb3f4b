"""What a Harbor task folder says about its container, its time limits and its resources: task.toml and the Dockerfile.

Old spellings (`memory = "2G"`) are read too. What would make another task of it than its author meant (several steps,
several containers, a GPU, a verifier in a container of its own) is refused by name. Networks are not asked for: a
sandbox has none, so a test script that downloads its tools fails, and `tasks validate` shows it.
"""

import hashlib
import math
import os
import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # what a TOML file holds

from aem_swe.errors import TaskError

Env = tuple[tuple[str, str], ...]

_MAX_FILES = 32 << 20
_TIMEOUT_S = 600.0
"""Harbor's, where task.toml names none."""
_TEMPLATE = re.compile(r"\$\{([^}:]+)(?::-(.*))?\}")
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024}


@dataclass(frozen=True, slots=True)
class HarborSettings:
    """The settings of one task. `None`: the task names none."""

    image: str
    built: bool
    """Whether the image has to be built from environment/Dockerfile first (`build_image`)."""
    workdir: str
    env: Env
    verifier_env: Env
    solution_env: Env
    verifier_timeout_s: float
    agent_timeout_s: float | None
    build_timeout_s: float
    cpus: float | None
    memory_mb: float | None
    storage_mb: float | None


def read_settings(folder: Path) -> HarborSettings:
    """Read task.toml and environment/Dockerfile. Raises TaskError (without the task's id) where it cannot be used."""
    try:
        config = tomllib.loads((folder / "task.toml").read_text("utf-8"))
    except FileNotFoundError as error:
        raise TaskError("has no task.toml") from error
    except (OSError, ValueError) as error:
        raise TaskError(f"task.toml cannot be read: {error}") from error
    environment, verifier = _table(config, "environment"), _table(config, "verifier")
    _refuse(folder, config, environment, verifier)
    dockerfile = folder / "environment" / "Dockerfile"
    named = environment.get("docker_image")
    if not named and not dockerfile.is_file():
        raise TaskError("has neither environment/Dockerfile nor a docker_image in task.toml; add one of them")
    return HarborSettings(
        image=str(named or image_tag(folder)),
        built=not named,
        workdir=_workdir(environment, dockerfile),
        env=_env(environment, "environment"),
        verifier_env=_env(verifier, "verifier"),
        solution_env=_env(_table(config, "solution"), "solution"),
        verifier_timeout_s=_number(verifier, "timeout_sec") or _TIMEOUT_S,
        agent_timeout_s=_number(_table(config, "agent"), "timeout_sec"),
        build_timeout_s=_number(environment, "build_timeout_sec") or _TIMEOUT_S,
        cpus=_number(environment, "cpus"),
        memory_mb=_number(environment, "memory_mb") or _size(environment, "memory"),
        storage_mb=_number(environment, "storage_mb") or _size(environment, "storage"),
    )


def image_tag(folder: Path) -> str:
    """The name of the image that environment/ makes: another one as soon as a file in there differs."""
    hashed = hashlib.sha256()
    root = folder / "environment"
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            kind, content = "link", os.readlink(path).encode()
        elif path.is_file():
            kind, content = "run" if os.access(path, os.X_OK) else "file", path.read_bytes()
        else:
            continue
        hashed.update(f"{kind} {len(name)} {name} {len(content)} ".encode() + content)
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:60] or "task"
    return f"aem-swe/harbor-{name}:{hashed.hexdigest()[:16]}"


def files_below(folder: Path) -> dict[str, bytes]:
    """{path below the folder: content}. Links count as what they lead to, if that lies in the folder."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise TaskError(f"{folder.name}/{path.relative_to(folder)} leads out of its folder")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    if sum(map(len, found.values())) > _MAX_FILES:
        raise TaskError(f"{folder.name}/ holds more than {_MAX_FILES >> 20} MiB")
    return found


def _refuse(
    folder: Path, config: Mapping[str, Any], environment: Mapping[str, Any], verifier: Mapping[str, Any]
) -> None:
    """Raise TaskError for what these sandboxes cannot give."""
    wanted = {
        "[[steps]]: several steps": config.get("steps"),
        "docker-compose.yaml: several containers": (folder / "environment" / "docker-compose.yaml").exists(),
        "environment.os: another system than linux": str(environment.get("os", "linux")).lower() != "linux",
        "environment.gpus": environment.get("gpus"),
        "environment.tpu": environment.get("tpu"),
        "environment.mcp_servers": environment.get("mcp_servers"),
        "verifier.environment: a container of the verifier's own": verifier.get("environment")
        or verifier.get("environment_mode") == "separate",
    }
    for what, found in wanted.items():
        if found:
            raise TaskError(f"asks for {what}, which is not supported here")


def _workdir(environment: Mapping[str, Any], dockerfile: Path) -> str:
    """Where commands start: as task.toml says, else the last WORKDIR of the Dockerfile."""
    named = environment.get("workdir")
    workdir = str(named) if named else _last_workdir(dockerfile) if dockerfile.is_file() else ""
    plain = posixpath.normpath(workdir)
    if not workdir.startswith("/") or plain in ("/", "//") or "$" in workdir:
        raise TaskError(
            f"its working folder is {workdir or 'unknown'!r}; name one below / as workdir in [environment] of task.toml"
        )
    return plain


def _last_workdir(dockerfile: Path) -> str:
    """The WORKDIR that the final stage ends with; empty where neither it nor a stage below it sets one."""
    text = re.sub(r"\\\s*\n", " ", dockerfile.read_text("utf-8", "replace"))
    stages: dict[str, str] = {}
    current, name = "", ""
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0].upper() == "FROM":
            words = [word for word in words[1:] if not word.startswith("--")]
            current = stages.get(words[0].lower(), "")
            name = words[2].lower() if len(words) > 2 and words[1].upper() == "AS" else ""
        elif len(words) > 1 and words[0].upper() == "WORKDIR":
            current = posixpath.join(current or "/", line.split(None, 1)[1].strip().strip("\"'"))
        stages[name] = current
    return current


def _table(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name, {})
    if not isinstance(value, dict):
        raise TaskError(f"[{name}] in task.toml is no table")
    return value


def _number(table: Mapping[str, Any], name: str) -> float | None:
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise TaskError(f"{name} in task.toml is {value!r} and should be a number above 0")
    return float(value)


def _size(table: Mapping[str, Any], name: str) -> float | None:
    """Megabytes of an old "512M" or "2G"."""
    value = table.get(name)
    if value is None:
        return None
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMG])B?\s*", str(value).upper())
    if found is None:
        raise TaskError(f"{name} in task.toml is {value!r} and should look like '2G'")
    return float(found[1]) * _UNITS[found[2]]


def _env(table: Mapping[str, Any], name: str) -> Env:
    """The variables of a section. Defaults of ${NAME:-default} are taken: nothing comes from this machine."""
    values = table.get("env", {})
    if not isinstance(values, dict):
        raise TaskError(f"{name}.env in task.toml is no table")
    found = []
    for key, value in values.items():
        template = _TEMPLATE.fullmatch(str(value))
        if template and template[2] is None:
            raise TaskError(f"{name}.env.{key} in task.toml wants ${{{template[1]}}} of the host; give it a default")
        found.append((str(key), template[2] if template else str(value)))
    return tuple(found)
