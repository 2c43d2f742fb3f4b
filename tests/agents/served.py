"""The tests' side of model_server.py."""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any  # JSON bodies hold anything


@dataclass
class ModelServer:
    """A running tests/agents/model_server.py. `url(fault)` is a base URL of its own counters and its own log."""

    port: int
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, fault: str = "ok") -> str:
        return f"http://127.0.0.1:{self.port}/{fault}/{next(self._numbers)}/v1"

    def requests(self, url: str) -> list[dict[str, Any]]:
        """The bodies of the requests that reached `url`."""
        with urllib.request.urlopen(f"{url}/requests") as answer:
            return list(json.load(answer))
