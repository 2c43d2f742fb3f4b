"""What the container engine's SDK raises, in our terms, each with its remedy."""

import contextlib
from collections.abc import Iterator

import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from aem_swe.errors import EngineUnreachable, ImageMissing, SandboxError, SandboxGone


@contextlib.contextmanager
def translated(engine: str, image: str = "") -> Iterator[None]:
    """engine, image: what is being talked to and about, for the message."""
    try:
        yield
    except ImageNotFound as error:
        raise _image_missing(image, engine) from error
    except NotFound as error:
        raise SandboxGone(f"a container or volume was removed from engine {engine} by someone else") from error
    except APIError as error:
        reason = " ".join(str(error.explanation or error).split())
        if "no such image" in reason.lower():
            raise _image_missing(image, engine) from error
        if "no space left" in reason.lower():
            reason += "; free disk space there, for example with aem-swe sandbox gc --images"
        raise SandboxError(f"engine {engine} refused: {reason}") from error
    except (DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise EngineUnreachable(
            f"engine {engine} cannot be reached ({_innermost(error)}); start it (systemctl start docker, or dockerd), "
            "give this user access to its socket, or set DOCKER_HOST"
        ) from error


def _image_missing(image: str, engine: str) -> ImageMissing:
    return ImageMissing(
        f"image {image!r} is not on engine {engine}; pull it there (docker pull {image}), or build the project's own "
        "with aem-swe sandbox build"
    )


def _innermost(error: BaseException) -> BaseException:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error
