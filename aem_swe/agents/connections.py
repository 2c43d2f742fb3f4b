"""HTTP connections to a model's server: a whole request has a time limit, and nobody is sent elsewhere.

httpx's own limits are for one read, so a server that sends a byte now and then would be waited for without end. A
redirect would carry the whole conversation to another address.
"""

import importlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any  # the library has had three names, and no types under two of them
from urllib.parse import urlsplit

import openai

from aem_swe.errors import ConfigError

_http: Any = importlib.import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__.partition(".")[0])
"""httpx, or what the installed openai uses in its place."""


def client(timeout_s: float) -> Any:
    """For openai.OpenAI(http_client=...)."""
    return openai.DefaultHttpxClient(timeout=timeout_s, follow_redirects=False, transport=_Transport(timeout_s))


def async_client(timeout_s: float) -> Any:
    """For openai.AsyncOpenAI(http_client=...)."""
    return openai.DefaultAsyncHttpxClient(
        timeout=timeout_s, follow_redirects=False, transport=_AsyncTransport(timeout_s)
    )


class _Transport(_http.HTTPTransport):  # type: ignore[misc]
    def __init__(self, limit_s: float) -> None:
        super().__init__(limits=openai.DEFAULT_CONNECTION_LIMITS)
        self._limit_s = limit_s

    def handle_request(self, request: Any) -> Any:
        deadline = time.monotonic() + self._limit_s
        response = super().handle_request(request)
        response.stream = _Stream(response.stream, deadline, request)
        return response


class _AsyncTransport(_http.AsyncHTTPTransport):  # type: ignore[misc]
    def __init__(self, limit_s: float) -> None:
        super().__init__(limits=openai.DEFAULT_CONNECTION_LIMITS)
        self._limit_s = limit_s

    async def handle_async_request(self, request: Any) -> Any:
        deadline = time.monotonic() + self._limit_s
        response = await super().handle_async_request(request)
        response.stream = _AsyncStream(response.stream, deadline, request)
        return response


class _Stream(_http.SyncByteStream):  # type: ignore[misc]
    def __init__(self, inner: Any, deadline: float, request: Any) -> None:
        self._inner, self._deadline, self._request = inner, deadline, request

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            _require_time(self._deadline, self._request)
            yield piece

    def close(self) -> None:
        self._inner.close()


class _AsyncStream(_http.AsyncByteStream):  # type: ignore[misc]
    def __init__(self, inner: Any, deadline: float, request: Any) -> None:
        self._inner, self._deadline, self._request = inner, deadline, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            _require_time(self._deadline, self._request)
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def _require_time(deadline: float, request: Any) -> None:
    if time.monotonic() > deadline:
        raise _http.ReadTimeout("the answer was still coming at the time limit of the request", request=request)


def shown(base_url: str) -> str:
    """Return the URL as messages show it, without a password or a query. Raises ConfigError if it is none."""
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        shown = base_url.rpartition("@")[2]
        raise ConfigError(f"the endpoint URL {shown!r} is malformed; write it like http://localhost:8000/v1")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"
