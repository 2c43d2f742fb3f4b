"""Several container engines for grading: which has an image, and which is the least busy."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from aem_swe.errors import EngineUnreachable, ImageMissing
from aem_swe.sandboxes._connect import engine_urls, name_of
from aem_swe.sandboxes.base import DockerSettings
from aem_swe.sandboxes.grading_engine import image_ids

_AWAY_S = 10.0


@dataclass(slots=True)
class _Engine:
    url: str
    busy: int = 0
    away_until: float = 0.0
    images: dict[str, str] = field(default_factory=dict)
    asked: bool = False


class Engines:
    """Any thread may ask. An engine that does not answer is left out for a moment."""

    def __init__(self, urls: Sequence[str], images: Sequence[str]) -> None:
        """urls: none means DOCKER_HOST (a list with commas), else the SDK's default. images: that will be asked for."""
        self._expected = list(dict.fromkeys(images))
        self._engines = [_Engine(url) for url in engine_urls(DockerSettings(engines=tuple(urls)))]
        self._lock = threading.Lock()

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(engine.url for engine in self._engines)

    def image_id(self, image: str) -> str:
        """The id of an image. Raises ImageMissing where no engine has it, EngineUnreachable where none answers."""
        return self._having(image)[0].images[image]

    def take(self, image: str) -> str:
        """The address of the least busy engine that has the image; give it back. Raises like `image_id`."""
        having = self._having(image)
        with self._lock:
            engine = min(having, key=lambda one: one.busy)
            engine.busy += 1
            return engine.url

    def give_back(self, url: str, *, answers: bool = True) -> None:
        """answers: whether the engine still did at the end."""
        with self._lock:
            engine = next(one for one in self._engines if one.url == url)
            engine.busy -= 1
            if not answers:
                engine.away_until = time.monotonic() + _AWAY_S

    def _having(self, image: str) -> list[_Engine]:
        """The engines that have an image, those that are away only where no other is left."""
        now = time.monotonic()
        away = [engine for engine in self._engines if engine.away_until > now]
        having, lost = self._asked(image, [engine for engine in self._engines if engine not in away])
        if not having and away:
            having, lost = self._asked(image, away)
        if having:
            return having
        if lost is not None:
            raise lost
        names = ", ".join(name_of(engine.url) for engine in self._engines)
        raise ImageMissing(
            f"image {image!r} is on no engine ({names}); fetch it with aem-swe sandbox pull, or build the "
            "project's own with aem-swe sandbox build"
        )

    def _asked(self, image: str, engines: Sequence[_Engine]) -> tuple[list[_Engine], EngineUnreachable | None]:
        having, lost = [], None
        for engine in engines:
            try:
                if image not in engine.images:
                    wanted = [image] if engine.asked else [image, *self._expected]
                    engine.images |= image_ids(engine.url, wanted)
                    engine.asked = True
            except EngineUnreachable as error:
                engine.away_until, lost = time.monotonic() + _AWAY_S, error
                continue
            if image in engine.images:
                having.append(engine)
        return having, lost
