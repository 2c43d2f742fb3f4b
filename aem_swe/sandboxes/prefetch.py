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
from aem_swe.sandboxes._engine_errors import translated
from aem_swe.sandboxes._tunnel import open_tunnel
from aem_swe.sandboxes.base import DockerSettings
from aem_swe.sandboxes.docker import engine_urls


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
        clients: list[tuple[str, docker.DockerClient]] = []
        for url in engine_urls(settings):
            with translated(url or "(default)"):
                address = resources.enter_context(open_tunnel(url)) if url.startswith("ssh://") else url
                client = docker.DockerClient(base_url=address, timeout=600) if address else docker.from_env(timeout=600)
                resources.callback(client.close)
                client.ping()
            clients.append((url or "(default)", client))
        jobs = [(name, client, image) for image in wanted for name, client in clients]
        started = time.monotonic()
        pulled, size = 0, 0
        with ThreadPoolExecutor(workers) as pool:
            futures = {pool.submit(_fetch, client, name, image): (name, image) for name, client, image in jobs}
            for done, future in enumerate(as_completed(futures), 1):
                name, image = futures[future]
                fetched, error = future.result()
                pulled += fetched > 0
                size += fetched
                pace = (time.monotonic() - started) / max(1, pulled)
                yield Progress(
                    image, name, error, done, len(jobs), pulled, size / max(1, pulled), pace * (len(jobs) - done)
                )


def _fetch(client: docker.DockerClient, engine: str, image: str) -> tuple[int, str]:
    """(bytes of an image that was fetched now, else 0; what went wrong, else empty)."""
    try:
        with translated(engine, image):
            try:
                client.api.inspect_image(image)  # type: ignore[no-untyped-call]  # the SDK's low-level client
                return 0, ""
            except ImageNotFound:
                repository, _, tag = image.rpartition(":") if ":" in image.rsplit("/", 1)[-1] else (image, "", "latest")
                fetched = client.images.pull(repository, tag=tag)
                return int(fetched.attrs["Size"]), ""
    except SandboxError as error:
        return 0, str(error)
