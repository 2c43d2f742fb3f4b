"""Several engines as one: choose one for a container, wait where none answers, prepare images on each.

An image is prepared once per engine: the task's `setup` script runs in a fresh container, the tree that patches are
compared with is recorded (_git.py), and the result is committed under a name that holds the hash of both.
"""

import hashlib
import itertools
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from aem_swe.errors import EngineUnreachable, ImageMissing, SandboxError, SandboxUnavailable, TaskError
from aem_swe.sandboxes._bundle import Bundle
from aem_swe.sandboxes._container import ContainerSpec
from aem_swe.sandboxes._engine import Container, Engine
from aem_swe.sandboxes._git import take_baseline
from aem_swe.sandboxes._guest_sandbox import GuestSandbox
from aem_swe.sandboxes.base import DockerSettings, SandboxLimits
from aem_swe.sandboxes.reaper import LABEL

PREPARED = "aem-swe/prepared"
_TREE = f"{LABEL}.tree"
_PREPARING = SandboxLimits(memory_mb=4096, processes=512, disk_mb=4096, command_timeout_s=1200.0)
_LAYOUT = "1"
"""Changes when a prepared image of an older version must not be used again."""


@dataclass(frozen=True, slots=True)
class Key:
    """Sandboxes with the same key start from the same prepared image."""

    image: str
    setup: str
    workdir: str

    @property
    def digest(self) -> str:
        return hashlib.sha256("\0".join((self.image, self.setup, self.workdir)).encode()).hexdigest()[:20]


@dataclass(slots=True)
class Member:
    """One engine of the fleet, connected or not."""

    url: str
    engine: Engine | None = None
    down_until: float = 0.0
    containers: int = 0
    locks: dict[str, threading.Lock] = field(default_factory=dict)


@dataclass(slots=True)
class Prepared:
    """A started container of a prepared image."""

    member: Member
    container: Container
    tree: str
    """What patches are compared with."""
    environment: Mapping[str, str]

    def usable(self) -> bool:
        try:
            self.container.channel.request({"op": "ping"}, timeout=5.0)
        except SandboxError:
            return False
        return True

    def remove(self) -> None:
        self.member.containers -= 1
        self.container.remove()


class Fleet:
    """The engines of one maker of sandboxes."""

    def __init__(
        self, urls: tuple[str, ...], bundle: Bundle, settings: DockerSettings, limits: SandboxLimits, run: str
    ):
        self.members = [Member(url.strip()) for url in urls]
        self._bundle, self._settings, self._limits, self._run = bundle, settings, limits, run
        self._prefix, self._numbers = f"aem-swe-{uuid.uuid4().hex[:12]}", itertools.count()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def connect(self) -> None:
        """Connect to every engine; raise the first one's error where none answers."""
        errors = [error for member in self.members if (error := self._connect(member))]
        if len(errors) == len(self.members):
            raise errors[0]

    def _connect(self, member: Member) -> SandboxUnavailable | None:
        try:
            member.engine = Engine(member.url, self._bundle, starts=self._settings.starts)
        except SandboxUnavailable as error:
            member.down_until = time.monotonic() + 5.0
            return error
        return None

    def engines(self) -> list[Engine]:
        """Those that have ever answered."""
        return [member.engine for member in self.members if member.engine]

    def reap(self) -> None:
        for engine in self.engines():
            engine.reap()

    def close(self) -> None:
        self._ended.set()
        for engine in self.engines():
            engine.reap()
            engine.close()

    def start(self, key: Key) -> Prepared:
        """Start a container for `key` on the engine with the fewest; wait for an engine where none answers."""
        deadline = time.monotonic() + self._settings.engine_wait_s
        while True:
            missing: ImageMissing | None = None
            unreachable: SandboxUnavailable | None = None
            for member in sorted(self.members, key=lambda member: member.containers):
                if member.down_until > time.monotonic():
                    continue
                if member.engine is None and (unreachable := self._connect(member)):
                    continue
                try:
                    return self._start_on(member, key)
                except ImageMissing as error:
                    missing = error
                except EngineUnreachable as error:
                    member.down_until, unreachable = time.monotonic() + 2.0, error
            if missing is not None and unreachable is None:
                raise missing
            if time.monotonic() > deadline or self._ended.wait(0.5):
                names = [member.url or "(default)" for member in self.members]
                raise unreachable or EngineUnreachable(f"none of the engines {names} answers")

    def _start_on(self, member: Member, key: Key) -> Prepared:
        assert member.engine
        engine = member.engine
        member.containers += 1
        try:
            image, tree = self._prepared_image(member, engine, key)
            container = engine.start(self._name(), self._spec(image, self._limits))
            return Prepared(member, container, tree, _environment(engine.image_environment(image)))
        except BaseException:
            member.containers -= 1
            raise

    def _name(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def _spec(self, image: str, limits: SandboxLimits) -> ContainerSpec:
        return ContainerSpec(image, limits, self._settings.cpus, self._run, self._settings.lifetime_s)

    def _prepared_image(self, member: Member, engine: Engine, key: Key) -> tuple[str, str]:
        """(name, id of the recorded tree) of the prepared image, made now if this engine has none."""
        with self._lock:
            lock = member.locks.setdefault(key.digest, threading.Lock())
        with lock:
            origin = engine.image_id(key.image)
            tag = hashlib.sha256(f"{origin}/{key.digest}/{_LAYOUT}".encode()).hexdigest()[:20]
            image = f"{PREPARED}:{tag}"
            tree = engine.image_labels(image).get(_TREE)
            return image, tree if tree is not None else self._prepare(engine, key, tag)

    def _prepare(self, engine: Engine, key: Key, tag: str) -> str:
        container = engine.start(self._name(), self._spec(key.image, _PREPARING))
        try:
            sandbox = GuestSandbox(
                container.channel,
                workdir=key.workdir,
                limits=_PREPARING,
                environment=_environment(engine.image_environment(key.image)),
                kill=lambda: None,
                closed=lambda: None,
                take_diff=lambda _: b"",
                explain=container.explain,
            )
            sandbox.run(["mkdir", "-p", key.workdir], cwd="/")
            _set_up(sandbox, key)
            try:
                tree = take_baseline(sandbox)
            except SandboxError as error:
                raise TaskError(f"image {key.image!r} cannot be used: {error}") from error
            sandbox.kill_all()
            engine.commit(container, PREPARED, tag, {LABEL: "prepared", _TREE: tree})
        finally:
            container.remove()
        return tree


def _set_up(sandbox: GuestSandbox, key: Key) -> None:
    if not key.setup:
        return
    result = sandbox.run(["bash", "-c", key.setup])
    if result.exit_code != 0:
        last = (result.stderr or result.stdout)[-500:].decode(errors="replace").strip()
        what = "reached its time limit" if result.timed_out else f"failed with exit code {result.exit_code}"
        raise TaskError(f"the setup of image {key.image!r} {what}: {last}")


def _environment(image: Mapping[str, str]) -> dict[str, str]:
    """The image's own, with what every command should find; nothing is taken from the trainer's."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **image}
