"""One container engine (Docker, or Podman with its compatible socket): what we ask of it, and its errors in our terms.

A container's life: create (its name is chosen first, so that it can be removed whatever happens), attach, start, first
message of PID 1. PID 1 ends when the attached connection does, so a killed trainer leaves no running container; the
labels tell the reaper (reaper.py) what it may remove.
"""

import contextlib
import io
import logging
import tarfile
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from docker.errors import ImageNotFound, NotFound

from aem_swe.errors import (
    EngineUnreachable,
    SandboxError,
    SandboxGone,
    SandboxOutOfMemory,
    SandboxUnavailable,
)
from aem_swe.sandboxes._attached import AttachedStreams
from aem_swe.sandboxes._bundle import MOUNTED_AT, Bundle, Pack
from aem_swe.sandboxes._channel import Channel
from aem_swe.sandboxes._connect import connected, name_of
from aem_swe.sandboxes._container import ContainerSpec, container_config
from aem_swe.sandboxes._engine_errors import translated
from aem_swe.sandboxes.base import SandboxEvent
from aem_swe.sandboxes.reaper import LABEL, is_stale, labels_of_this_process

_LOG = logging.getLogger(__name__)
_API_TIMEOUT_S = 180.0
"""Of one call; to commit a large image on a slow disk takes a minute."""
_READY_S = 30.0
_ATTACH = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
_COMPLETE = "complete"


@dataclass(slots=True)
class Container:
    """A started container whose PID 1 answers."""

    engine: "Engine"
    id: str
    spec: ContainerSpec
    channel: Channel
    streams: AttachedStreams
    events: list[SandboxEvent] = field(default_factory=list)

    def explain(self, error: SandboxError) -> SandboxError:
        """Why the conversation with PID 1 broke, as the engine sees it."""
        said = self.streams.stderr.decode(errors="replace").strip()
        return self.engine.why_gone(self.id, error, said)

    def remove(self) -> None:
        self.channel.close()
        self.engine.remove(self.id)


class Engine:
    """A connection to one engine; every method may be called from any thread."""

    def __init__(self, url: str, bundle: Bundle, *, starts: int) -> None:
        """url: unix://, tcp:// or ssh://user@host; empty: the SDK's default (DOCKER_HOST). starts: at a time."""
        self.url = url
        self._bundle = bundle
        self._starts = threading.BoundedSemaphore(starts)
        self._lock = threading.Lock()
        self._volumes_ready = False
        self._not_removed: set[str] = set()
        with contextlib.ExitStack() as undo:
            client = undo.enter_context(connected(url, timeout=_API_TIMEOUT_S, pool_size=64))
            self.api: Any = client.api  # half of the SDK's calls have no types
            with self.translated():
                info = client.info()
            if info.get("Architecture", bundle.machine) not in (bundle.machine, _ALIASES.get(bundle.machine)):
                raise SandboxUnavailable(
                    f"engine {self} runs on {info['Architecture']} and this process on {bundle.machine}; containers "
                    "get a copy of this Python, so use an engine of the same processor"
                )
            self._resources = undo.pop_all()

    def __str__(self) -> str:
        return name_of(self.url)

    def translated(self, image: str = "") -> AbstractContextManager[None]:
        """Turn what the SDK raises into our errors."""
        return translated(str(self), image)

    def ping(self) -> None:
        """Raise EngineUnreachable unless it answers."""
        with self.translated():
            self.api.ping()

    def image_id(self, image: str) -> str:
        with self.translated(image):
            return str(self.api.inspect_image(image)["Id"])

    def image_labels(self, image: str) -> dict[str, str]:
        """Empty where there is no such image."""
        with self.translated(image):
            try:
                config = self.api.inspect_image(image).get("Config") or {}
            except ImageNotFound:
                return {}
        return dict(config.get("Labels") or {})

    def image_environment(self, image: str) -> dict[str, str]:
        with self.translated(image):
            config = self.api.inspect_image(image).get("Config") or {}
        return dict(entry.partition("=")[::2] for entry in config.get("Env") or [])

    def reap(self) -> int:
        """Remove our containers that nobody owns any more; return how many. An engine that is away is left alone."""
        removed = 0
        try:
            self.ping()
            for identity in tuple(self._not_removed):
                self.remove(identity)
            with self.translated():
                found = self.api.containers(all=True, filters={"label": f"{LABEL}=container"})
        except SandboxError as error:
            _LOG.warning("old containers could not be looked for: %s", error)
            return 0
        for container in found:
            if is_stale(container.get("Labels") or {}, now=time.time()):
                self.remove(container["Id"])
                removed += 1
        return removed

    def start(self, name: str, spec: ContainerSpec) -> Container:
        """Create, attach and start a container, and wait for its PID 1."""
        self._fill_volumes(spec.image)
        asked = time.perf_counter()
        with self._starts:
            started = time.perf_counter()
            body = container_config(self.api, self._bundle, spec)
            try:
                with self.translated(spec.image):
                    identity = self.api.create_container_from_config(body, name)["Id"]
            except EngineUnreachable:
                self._not_removed.add(name)  # it may have been made all the same
                raise
            created = time.perf_counter()
            streams: AttachedStreams | None = None
            try:
                with self.translated(spec.image):
                    streams = AttachedStreams(self.api.attach_socket(identity, _ATTACH))
                    self.api.start(identity)
                container = Container(self, identity, spec, Channel(streams), streams)
                try:
                    container.channel.receive(_READY_S)
                except SandboxError as error:
                    raise container.explain(error) from error
            except BaseException:
                self._volumes_ready = False  # somebody may have removed them
                if streams is not None:
                    streams.close()
                self.remove(identity)
                raise
        container.events += [
            SandboxEvent("queue", asked, started - asked),
            SandboxEvent("create", started, created - started),
            SandboxEvent("start", created, time.perf_counter() - created),
        ]
        return container

    def _fill_volumes(self, image: str) -> None:
        with self._lock:
            if self._volumes_ready:
                return
            for pack in self._bundle.packs:
                self._fill_volume(pack, image)
            self._volumes_ready = True

    def _fill_volume(self, pack: Pack, image: str) -> None:
        """Create the volume and copy the pack into it, unless a marker says that this has been done to its end."""
        with self.translated(image):
            self.api.create_volume(pack.volume, labels={LABEL: "volume"})
            host = self.api.create_host_config(binds=[f"{pack.volume}:{MOUNTED_AT}"], network_mode="none")
            carrier = self.api.create_container(
                image, ["true"], host_config=host, labels=labels_of_this_process("", 600.0)
            )["Id"]
            try:
                with contextlib.suppress(NotFound):
                    b"".join(self.api.get_archive(carrier, f"{MOUNTED_AT}/{_COMPLETE}")[0])
                    return
                self.api.put_archive(carrier, MOUNTED_AT, pack.archive)
                self.api.put_archive(carrier, MOUNTED_AT, _empty_file(_COMPLETE))
            finally:
                self.api.remove_container(carrier, force=True)

    def commit(self, container: Container, repository: str, tag: str, labels: Mapping[str, str]) -> None:
        changes = [f"LABEL {name}={value}" for name, value in labels.items()]
        with self.translated(container.spec.image):  # nothing runs in it, and a rootless engine may not pause
            self.api.commit(container.id, repository=repository, tag=tag, changes=changes, pause=False)

    def remove(self, identity: str) -> None:
        """Remove a container, running or not. What an engine that is away still holds is removed by `reap`."""
        try:
            with self.translated():
                self.api.remove_container(identity, force=True, v=True)
        except SandboxGone:
            self._not_removed.discard(identity)
        except SandboxError as error:
            self._not_removed.add(identity)
            _LOG.warning("container %s could not be removed yet: %s", identity[:12], error)
        else:
            self._not_removed.discard(identity)

    def why_gone(self, identity: str, error: SandboxError, said: str) -> SandboxError:
        """A better error for a conversation that broke: ask the engine what became of the container."""
        try:
            with self.translated():
                state = self.api.inspect_container(identity)["State"]
        except SandboxGone:
            return SandboxGone(f"the container was removed from engine {self} while it was in use")
        except SandboxError as unreachable:
            return unreachable
        if state.get("OOMKilled") and not state.get("Running"):
            return SandboxOutOfMemory("the container ran out of memory as a whole; raise sandbox.memory_mb")
        if not state.get("Running"):
            code = state.get("ExitCode")
            reason = state.get("Error") or said or "killed from outside, or its engine was stopped"
            return SandboxGone(f"the container ended with exit code {code} while it was in use ({reason})")
        return error

    def close(self) -> None:
        self._resources.close()


_ALIASES = {"x86_64": "amd64", "aarch64": "arm64"}


def _empty_file(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()
