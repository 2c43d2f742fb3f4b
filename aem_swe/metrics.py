"""The run folder: what a run leaves behind, written so that a kill at any moment loses nothing that was finished.

runs/<name>/config.yaml      the resolved recipe          manifest.json   "can I reproduce this?"
            metrics.jsonl    one row per step             trajectories/   step_N.jsonl and eval_N.jsonl
            spans.jsonl      where the time went          checkpoints/    step_N (engines)
            report.html      (eval/report)
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aem_swe.errors import RunError
from aem_swe.profiling import recording
from aem_swe.resources import resource

Row = Mapping[str, Any]  # JSON values
_STEP = re.compile(rb'"step": ([0-9]+)')
_PACKAGES = ("aem-swe", "torch", "transformers", "tokenizers", "numpy", "safetensors")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` or leave it as it was. Raises RunError where the disk is full or not writable."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{path} cannot be written ({error.strerror}); free space or choose another folder") from error


def _json_line(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n").encode()


def read_rows(path: Path) -> list[dict[str, Any]]:  # JSON values
    """Read a .jsonl file; a torn last line (the writer was killed) is left out."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def drop_torn_line(path: Path) -> None:
    """What a kill left of a last line would become the beginning of the next one. Raises RunError."""
    try:
        content = path.read_bytes() if path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
    except OSError as error:
        raise RunError(f"{path} cannot be used ({error.strerror}); mend it, or choose another folder") from error


class RunFolder:
    """Writes into one run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def started(self) -> bool:
        return (self.path / "metrics.jsonl").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold it for this process. Raises RunError where another process has it."""
        with held(self.path, "run_dir", ("trajectories", "checkpoints")):
            yield

    def read_manifest(self) -> dict[str, Any]:  # JSON values
        """Return manifest.json. Raises RunError if it is missing or broken."""
        path = self.path / "manifest.json"
        try:
            about = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{path} cannot be read ({error}); restore it or choose another run_dir") from error
        if not isinstance(about, dict):
            raise RunError(f"{path} does not hold a manifest; restore it or choose another run_dir")
        return about

    def create(self, config: str, manifest: Row) -> None:
        """Write config and manifest."""
        write_atomically(self.path / "config.yaml", config.encode())
        write_atomically(self.path / "manifest.json", (json.dumps(manifest, indent=2) + "\n").encode())

    def append(self, row: Row) -> None:
        """Add one row to metrics.jsonl."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("ab") as file:
                file.write(_json_line(row))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{path} cannot be written ({error.strerror}); free space, then use --resume") from error

    def recorded_spans(self, wanted: bool) -> AbstractContextManager[None]:
        """Record this process's spans in spans.jsonl, if wanted. Raises RunError where that cannot be written."""
        path = self.path / "spans.jsonl"
        if wanted:
            try:
                path.open("ab").close()
            except OSError as error:
                raise RunError(
                    f"{path} cannot be written ({error.strerror}); mend that, or use trainer.profile=false"
                ) from error
        return recording(path if wanted else None)

    def amend(self, step: int, values: Row) -> None:
        """Add values to the row of a step, or write one with nothing else."""
        rows = read_rows(self.path / "metrics.jsonl") if self.started else []
        if not any(row["step"] == step for row in rows):
            return self.append({"step": step, **values})
        lines = [_json_line({**row, **values} if row["step"] == step else row) for row in rows]
        write_atomically(self.path / "metrics.jsonl", b"".join(lines))

    def last_step(self) -> int:
        """Return the last step in metrics.jsonl, 0 if there is none."""
        rows = read_rows(self.path / "metrics.jsonl") if self.started else []
        return max((row["step"] for row in rows), default=0)

    def write_trajectories(self, name: str, rows: Iterable[Row]) -> None:
        """Write trajectories/<name>.jsonl."""
        write_atomically(self.path / "trajectories" / f"{name}.jsonl", b"".join(_json_line(row) for row in rows))

    def rewind(self, step: int) -> None:
        """Forget all that was written after `step` (-1: everything), so that those steps can run again."""
        metrics = self.path / "metrics.jsonl"
        if metrics.is_file():
            write_atomically(metrics, b"".join(_json_line(row) for row in read_rows(metrics) if row["step"] <= step))
        spans = self.path / "spans.jsonl"
        if spans.is_file():
            with spans.open("rb") as lines:
                kept = b"".join(line for line in lines if not (of := _STEP.search(line)) or int(of[1]) <= step)
            write_atomically(spans, kept)
        for path in (self.path / "trajectories").glob("*_*.jsonl"):
            if int(path.stem.rpartition("_")[2]) > step:
                path.unlink()


@contextmanager
def held(folder: Path, option: str, inside: Iterable[str] = ()) -> Iterator[None]:
    """Make a folder (with folders `inside`) and hold it for this process. option: how a user chooses another one.

    Raises RunError where it cannot be made, or another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in inside:
            (folder / name).mkdir(exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise RunError(
            f"{option} {str(folder)!r} cannot be made ({error.strerror}); choose another {option}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back by the kernel, however this process ends
        except OSError as error:
            raise RunError(
                f"{option} {str(folder)!r} is in use by another process; wait for it or choose another {option}"
            ) from error
        yield


def hash_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the files' names and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def package_version(package: str) -> str | None:
    """The installed version, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_commit() -> str | None:
    """Return the commit of the checkout that runs, "-dirty" where it differs; None outside a checkout."""
    root = resource("configs").parent
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("-dirty" if status.stdout.strip() else "")


def manifest(*, recipe: str, seed: int, model_folder: Path, agent_folder: Path) -> dict[str, Any]:  # JSON values
    """Return what one needs to know to run this again."""
    weights = [p for p in model_folder.iterdir() if p.suffix in (".safetensors", ".bin") or p.name == "config.json"]
    tokenizer = [
        p
        for p in model_folder.iterdir()
        if "token" in p.name or p.name in ("vocab.json", "merges.txt", "chat_template.jinja")
    ]
    return {
        "recipe": recipe,
        "seed": seed,
        "git_commit": git_commit(),
        "versions": {name: package_version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "model_sha256": hash_files(weights),
        "tokenizer_sha256": hash_files(tokenizer),
        "agent_sha256": hash_files(p for p in agent_folder.iterdir() if p.is_file()),
    }
