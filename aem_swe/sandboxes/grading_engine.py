"""A container engine as SWE-bench's official harness sees it: its containers are limited, labelled and removed at once.

The harness asks the SDK's client for four things (images, containers, the engine's own address, a list of both); what
stands here answers in the client's place. What differs from the client itself:

- containers have no network (unless they are to have one), limits of memory, processes and processors, our labels and
  a name of their own, so that two evaluations never remove each other's;
- no image is fetched: which image a verdict came from must not depend on the moment (`aem-swe sandbox pull` fetches).
"""

import contextlib
import functools
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal  # Any: the SDK's objects, which the harness uses as it likes

from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from aem_swe.errors import ConfigError, SandboxError
from aem_swe.sandboxes._connect import connected, name_of
from aem_swe.sandboxes._engine_errors import translated
from aem_swe.sandboxes.reaper import LABEL, is_stale, labels_of_this_process

State = Literal["running", "ended", "gone", "unknown"]
Network = Literal["none", "bridge"]
PROCESSES = 4096
CPUS = 4.0
_API_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class ContainerLimits:
    """What a container of the harness may have."""

    network: Network = "none"
    memory_mb: int = 8192
    """Together with swap; 0: no limit."""
    processes: int = PROCESSES
    cpus: float = CPUS
    """At most; an engine with fewer processors has that many."""
    lifetime_s: float = 7200.0
    """After it, anybody may remove the container."""

    def options(self, processors: int) -> dict[str, Any]:
        """What `containers.create` is told beside what the harness says."""
        memory = {"mem_limit": self.memory_mb << 20, "memswap_limit": self.memory_mb << 20} if self.memory_mb else {}
        network = {"network_mode": "none"} if self.network == "none" else {}
        return {**memory, **network, "pids_limit": self.processes, "nano_cpus": int(min(self.cpus, processors) * 1e9)}


class GradingClient:
    """Stands in for docker.DockerClient towards the harness."""

    def __init__(self, client: Any, limits: ContainerLimits, run: str) -> None:
        self.containers = _Containers(client, limits, run)
        self.images = _Images(client)
        self.api = client.api

    def answers(self) -> bool:
        """Whether the engine is there."""
        try:
            return bool(self.api.ping())
        except (DockerException, OSError):  # what the SDK's HTTP library raises is an OSError
            return False

    def close(self) -> None:
        """Make no more containers and remove those that there are."""
        self.containers.close()


class _Images:
    def __init__(self, client: Any) -> None:
        self._client = client
        self.get, self.list = client.images.get, client.images.list

    def pull(self, image: str) -> None:
        raise ImageNotFound(f"image {image} is not on this engine, and grading fetches none")


class _Containers:
    def __init__(self, client: Any, limits: ContainerLimits, run: str) -> None:
        self._client, self._limits, self._run = client, limits, run
        self._options = limits.options(int(client.info().get("NCPU") or 1))
        self._made: dict[str, Any] = {}
        self._lock, self._idle = threading.Lock(), threading.Condition()
        self._creating, self._closed = 0, False

    def get(self, name: str) -> Any:
        """The harness looks for containers of the same name, to remove them; ours have names that nobody has."""
        raise NotFound(f"no container of this grading is called {name}")

    def list(self, all: bool = False) -> list[Any]:
        return list(self._client.containers.list(all=all, filters={"label": f"{LABEL}.run={self._run}"}))

    def create(self, **wanted: Any) -> Any:
        with self._idle:
            if self._closed:
                raise APIError("this grading has ended")
            self._creating += 1
        try:
            wanted.pop("cap_add", None)  # SYS_ADMIN, for the browsers of other data sets: with it code may get out
            labels = labels_of_this_process(self._run, self._limits.lifetime_s)
            name = f"{wanted.pop('name')}.{secrets.token_hex(4)}"
            container = self._client.containers.create(**wanted, **self._options, name=name, labels=labels)
            with self._lock:
                self._made[container.id] = container
            return container
        finally:
            with self._idle:
                self._creating -= 1
                self._idle.notify_all()

    def works(self, container: Any) -> bool:
        """Whether a program of the image can be run: a container that is going away answers with a text instead."""
        try:
            return bool(container.exec_run(["git", "--version"]).exit_code == 0)
        except (DockerException, OSError):
            return False

    def remove(self, container: Any) -> State:
        """Remove a container of ours at once; return what it was doing until now."""
        state: State = "unknown"
        try:
            container.reload()
            state = "running" if container.status == "running" else "ended"
            container.remove(force=True, v=True)
        except NotFound:
            state = "gone" if state == "unknown" else state
        except (DockerException, OSError):
            return state  # still in _made: tried again at the end, and after that by whoever looks for old containers
        with self._lock:
            self._made.pop(container.id, None)
        return state

    def close(self) -> None:
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._creating, timeout=30.0)
        for container in list(self._made.values()):
            self.remove(container)


def image_ids(url: str, images: Iterable[str]) -> dict[str, str]:
    """{image: id} of those that an engine has. Raises EngineUnreachable."""
    found = {}
    with connected(url, timeout=_API_TIMEOUT_S) as client:
        for image in images:
            with translated(name_of(url), image), contextlib.suppress(ImageNotFound):
                found[image] = str(client.images.get(image).id)
    return found


def remove_left(url: str, run: str) -> int:
    """Remove containers of `run` whose process has ended; return how many. An engine that is away has none."""
    removed = 0
    try:
        with connected(url, timeout=_API_TIMEOUT_S) as client, translated(name_of(url)):
            for found in client.api.containers(all=True, filters={"label": f"{LABEL}.run={run}"}):
                if is_stale(found.get("Labels") or {}, now=time.time()):
                    client.api.remove_container(found["Id"], force=True, v=True)
                    removed += 1
    except (SandboxError, ConfigError):
        return removed
    return removed


def capped(exec_start: Any, limit: int) -> Any:
    """`exec_start` of the SDK's low-level client whose stream ends after `limit` bytes and comes in larger pieces."""

    @functools.wraps(exec_start)
    def start(*arguments: Any, **options: Any) -> Any:
        stream = exec_start(*arguments, **options)
        return _pieces(stream, limit) if options.get("stream") else stream

    return start


def _pieces(stream: Any, limit: int) -> Any:
    held, left = bytearray(), limit
    for piece in stream:
        held += piece[:left]
        left -= len(piece)
        if left <= 0:
            break
        if len(held) >= _PIECE:
            yield bytes(held)
            held.clear()
    yield bytes(held)


_PIECE = 1 << 20
