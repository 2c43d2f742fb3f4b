"""A client of a container engine, for an address of any kind."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any  # what the SDK takes as TLS settings

import docker
from docker.utils import kwargs_from_env

from aem_swe.errors import ConfigError
from aem_swe.sandboxes._engine_errors import translated
from aem_swe.sandboxes._tunnel import open_tunnel
from aem_swe.sandboxes.base import DockerSettings


def engine_urls(settings: DockerSettings) -> tuple[str, ...]:
    """The addresses of the engines: the setting's, else DOCKER_HOST's (a list with commas), else the SDK's default."""
    listed = settings.engines or tuple(os.environ.get("DOCKER_HOST", "").split(","))
    return tuple(url.strip() for url in listed if url.strip()) or ("",)


def name_of(url: str) -> str:
    """How messages call an engine."""
    return url or "(default)"


@contextlib.contextmanager
def connected(url: str, *, timeout: float, pool_size: int = 10) -> Iterator[docker.DockerClient]:
    """Yield a client whose engine has answered. url: unix://, tcp:// (with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, as
    the docker command), ssh://user@host, or empty for the SDK's default.

    Raises EngineUnreachable, and ConfigError for what is no address.
    """
    with contextlib.ExitStack() as resources:
        with translated(name_of(url)):
            address = resources.enter_context(open_tunnel(url)) if url.startswith("ssh://") else url
            options: dict[str, Any] = {}
            if address.startswith("tcp://") and os.environ.get("DOCKER_TLS_VERIFY"):
                options["tls"] = kwargs_from_env().get("tls", False)
            try:
                client = docker.DockerClient(
                    base_url=address or None, timeout=int(timeout), max_pool_size=pool_size, **options
                )
            except ValueError as error:
                raise ConfigError(
                    f"engine address {url!r} is not usable ({error}); write unix:///path, tcp://host:port or ssh://user@host"
                ) from error
            resources.callback(client.close)
            client.ping()
        yield client
