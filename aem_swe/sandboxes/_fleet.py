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

from aem_swe.errors import (
    EngineUnreachable,
    ImageMissing,
    SandboxError,
    SandboxGone,
    SandboxUnavailable,
    TaskError,
)
from aem_swe.sandboxes._bundle import Bundle
from aem_swe.sandboxes._connect import name_of
from aem_swe.sandboxes._container import ContainerSpec
from aem_swe.sandboxes._engine import Container, Engine
from aem_swe.sandboxes._prepare import PREPARING, Key, environment_of, record_tree
from aem_swe.sandboxes.base import DockerSettings, SandboxEvent, SandboxLimits
from aem_swe.sandboxes.reaper import LABEL

PREPARED = "aem-swe/prepared"
_TREE = f"{LABEL}.tree"
_LAYOUT = "1"
"""Changes when a prepared image of an older version must not be used again."""


@dataclass(slots=True)
class Member:
    """One engine of the fleet, connected or not."""

    url: str
    engine: Engine | None = None
    down_until: float = 0.0
    containers: int = 0
    connecting: threading.Lock = field(default_factory=threading.Lock)
    locks: dict[str, threading.Lock] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Why an image cannot be prepared, so that it is not tried again for every sandbox."""


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
        self.members = [Member(url) for url in urls]
        self._bundle, self._settings, self._limits, self._run = bundle, settings, limits, run
        self._prefix, self._numbers = f"aem-swe-{uuid.uuid4().hex[:12]}", itertools.count()
        self._lock = threading.Lock()
        self._preparing: list[Container] = []
        self._ended = threading.Event()

    def connect(self) -> None:
        """Connect to every engine; raise the first one's error where none answers."""
        errors = [error for member in self.members if (error := self._connect(member))]
        if len(errors) == len(self.members):
            raise errors[0]

    def _connect(self, member: Member) -> SandboxUnavailable | None:
        with member.connecting:
            if member.engine is not None:
                return None
            try:
                member.engine = Engine(member.url, self._bundle, starts=self._settings.starts)
            except SandboxUnavailable as error:
                member.down_until = time.monotonic() + 5.0
                return error
            return None

    def _lost(self, member: Member) -> None:
        """Leave an engine out for a moment. A tunnel that has ended does not come back: it is opened anew."""
        member.down_until = time.monotonic() + 2.0
        if member.url.startswith("ssh://"):
            with member.connecting:
                engine, member.engine = member.engine, None
            if engine is not None:
                engine.close()

    def engines(self) -> list[Engine]:
        """Those that have ever answered."""
        return [member.engine for member in self.members if member.engine]

    def reap(self) -> None:
        for engine in self.engines():
            engine.reap()

    def stop(self) -> None:
        """Let every start and preparation under way fail now."""
        self._ended.set()
        with self._lock:
            preparing = list(self._preparing)
        for container in preparing:
            container.remove()

    def close(self) -> None:
        self.stop()
        for engine in self.engines():
            engine.reap()
            engine.close()

    def start(self, key: Key) -> Prepared:
        """Start a container for `key` on the engine with the fewest; wait for an engine where none answers.

        An engine that fails in any other way is left out for a moment as well, or it would attract every start.
        """
        deadline = time.monotonic() + self._settings.engine_wait_s
        last: SandboxUnavailable | None = None
        while True:
            errors: list[SandboxError] = []
            waiting = False
            for member in sorted(self.members, key=lambda member: member.containers):
                if self._ended.is_set():
                    raise SandboxGone("the sandboxes were closed")
                if member.down_until > time.monotonic():
                    waiting = True
                    continue
                error = self._connect(member) if member.engine is None else None
                if error is None:
                    try:
                        return self._start_on(member, key)
                    except EngineUnreachable as lost:
                        self._lost(member)
                        error = lost
                    except ImageMissing as missing:
                        errors.append(missing)
                        continue
                    except SandboxError as failure:
                        member.down_until = time.monotonic() + 1.0
                        errors.append(failure)
                        continue
                waiting = True
                last = error
            if errors and not waiting:
                raise errors[0]
            if time.monotonic() > deadline or self._ended.wait(0.5):
                names = [name_of(member.url) for member in self.members]
                raise (errors[0] if errors else last) or EngineUnreachable(f"none of the engines {names} answers")

    def _start_on(self, member: Member, key: Key) -> Prepared:
        engine = member.engine
        if engine is None:  # another start has just lost it
            raise EngineUnreachable(f"engine {name_of(member.url)} has gone away")
        member.containers += 1
        try:
            asked = time.perf_counter()
            image, tree = self._prepared_image(member, engine, key)
            found = SandboxEvent("image", asked, time.perf_counter() - asked)
            container = engine.start(self._name(), self._spec(image, self._limits))
            container.events.insert(0, found)
            return Prepared(member, container, tree, environment_of(engine.image_environment(image)))
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
            if self._ended.is_set():  # meanwhile
                raise SandboxGone("the sandboxes were closed")
            origin = engine.image_id(key.image)
            tag = hashlib.sha256(f"{origin}/{key.digest}/{_LAYOUT}".encode()).hexdigest()[:20]
            image = f"{PREPARED}:{tag}"
            tree = engine.image_labels(image).get(_TREE)
            if tree is None:
                if tag in member.failed:
                    raise TaskError(member.failed[tag])
                try:
                    tree = self._prepare(engine, key, tag)
                except TaskError as error:
                    member.failed[tag] = str(error)
                    raise
            return image, tree

    def _prepare(self, engine: Engine, key: Key, tag: str) -> str:
        container = engine.start(self._name(), self._spec(key.image, PREPARING))
        with self._lock:
            self._preparing.append(container)
        try:
            if self._ended.is_set():
                raise SandboxGone("the sandboxes were closed")
            tree = record_tree(container, key, engine.image_environment(key.image))
            engine.commit(container, PREPARED, tag, {LABEL: "prepared", _TREE: tree})
        finally:
            with self._lock:
                self._preparing.remove(container)
            container.remove()
        return tree
