"""Fetch images before a run, instead of in the middle of it, and say how long the rest will take and how large it is.

Sizes are known only once an image is there, so the estimate is the mean of those fetched so far. Images share layers:
the disk that an image really adds is at most its size.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass

import docker
from docker.errors import ImageNotFound

from aem_swe.errors import SandboxError
from aem_swe.sandboxes._connect import connected, engine_urls, name_of
from aem_swe.sandboxes._engine_errors import translated
from aem_swe.sandboxes.base import DockerSettings


@dataclass(frozen=True, slots=True)
class Progress:
    """One image on one engine is done, and what is left."""

    image: str
    engine: str
    error: str
    done: int
    total: int
    pulled: int
    """Of those done, fetched now; the others were there."""
    mean_bytes: float
    seconds_left: float

    def line(self) -> str:
        state = f"FAILED: {self.error}" if self.error else "there"
        left = self.total - self.done
        estimate = (
            f"; {left} left: about {self.seconds_left:.0f} s and at most {left * self.mean_bytes / 1e9:.1f} GB"
            if left and self.pulled
            else ""
        )
        return f"[{self.done}/{self.total}] {self.image} on {self.engine}: {state}{estimate}"


def prefetch(settings: DockerSettings, images: Sequence[str], *, workers: int) -> Iterator[Progress]:
    """Yield after each image. A failure is one line among the others. Raises EngineUnreachable at the start."""
    wanted = sorted(set(images))
    with ExitStack() as resources:
        clients = [
            (name_of(url), resources.enter_context(connected(url, timeout=3600))) for url in engine_urls(settings)
        ]
        jobs = [(name, client, image) for image in wanted for name, client in clients]
        started = time.monotonic()
        pulled, size = 0, 0
        pool = ThreadPoolExecutor(workers)
        resources.callback(pool.shutdown, wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
        futures = {pool.submit(_fetch, client, name, image): (name, image) for name, client, image in jobs}
        for done, future in enumerate(as_completed(futures), 1):
            name, image = futures[future]
            fetched, error = future.result()
            pulled += fetched > 0
            size += fetched
            left = (time.monotonic() - started) / max(1, pulled) * (len(jobs) - done)
            yield Progress(image, name, error, done, len(jobs), pulled, size / max(1, pulled), left)


def _fetch(client: docker.DockerClient, engine: str, image: str) -> tuple[int, str]:
    """(bytes of an image that was fetched now, else 0; what went wrong, else empty)."""
    try:
        with translated(engine, image):
            try:
                client.api.inspect_image(image)  # type: ignore[no-untyped-call]  # the SDK's low-level client
                return 0, ""
            except ImageNotFound:
                for line in client.api.pull(*_reference(image), stream=True, decode=True):
                    if "error" in line:
                        return 0, " ".join(str(line["error"]).split())
                return int(client.images.get(image).attrs["Size"]), ""
    except SandboxError as error:
        return 0, str(error)


def _reference(image: str) -> tuple[str, str | None]:
    """(repository, tag) as the pull call wants them; a digest stays with its repository."""
    if "@" in image:
        return image, None
    repository, colon, tag = image.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (image, "latest")
