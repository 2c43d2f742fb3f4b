"""Remove what container sandboxes have left on the engines: containers that nobody owns, and on request what is cached.

Cached are the prepared images (made again when a task is opened next) and the volumes with our interpreter. Neither the
images that tasks name nor anything without our label is ever touched.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from docker.errors import APIError

from aem_swe.sandboxes._connect import connected, engine_urls, name_of
from aem_swe.sandboxes._engine_errors import translated
from aem_swe.sandboxes.base import DockerSettings
from aem_swe.sandboxes.reaper import LABEL, is_stale


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed from one engine."""

    engine: str
    containers: int
    kept: int
    """Containers of processes that still run; while there are any, nothing cached is removed."""
    images: int
    volumes: int


def collect(settings: DockerSettings, *, cached: bool) -> list[Collected]:
    """Clean every engine. Raises EngineUnreachable for the first that does not answer."""
    return [_collect(url, cached=cached) for url in engine_urls(settings)]


def _collect(url: str, *, cached: bool) -> Collected:
    name = name_of(url)
    with connected(url, timeout=120) as client, translated(name):
        found = client.api.containers(all=True, filters={"label": f"{LABEL}=container"})
        stale = [container for container in found if is_stale(container.get("Labels") or {}, now=time.time())]
        for container in stale:
            _removed(partial(client.api.remove_container, container["Id"], force=True, v=True))
        images = volumes = 0
        if cached and len(found) == len(stale):  # else they are in use, or about to be
            for image in client.api.images(filters={"label": f"{LABEL}=prepared"}):
                images += _removed(partial(client.api.remove_image, image["Id"], force=True))
            for volume in client.volumes.list(filters={"label": f"{LABEL}=volume"}):
                volumes += _removed(volume.remove)
        return Collected(name, len(stale), len(found) - len(stale), images, volumes)


def _removed(remove: Callable[[], object]) -> bool:
    """Whether it was removed: what a running container uses stays, and another process may have been quicker."""
    try:
        remove()
    except APIError as error:
        if error.status_code in (404, 409):
            return False
        raise
    return True
