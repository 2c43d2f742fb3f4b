"""A tab of a real browser, driven over its debugging pipe."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any  # JSON values

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FIXED = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]


class Tab:
    """One tab of a browser that speaks its debugging protocol over a pipe (messages end in a zero byte)."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        pair = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs_in, theirs_out)]
        shell = f'exec "$@" 3<&{pair[0]} 4>&{pair[1]}'
        command = [BROWSER, *FIXED, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command], pass_fds=pair, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for one in (theirs_in, theirs_out, *pair):
            os.close(one)
        self.events: list[dict[str, Any]] = []
        self._buffer, self._count, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + 60.0
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(until - time.monotonic(), 0.0))
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._in, 1 << 20)
        text, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(text))

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        time.sleep(0.3)  # for what would come after

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def seen(self, method: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") == method]

    def trouble(self) -> list[dict[str, Any]]:
        """What a console would show."""
        return [
            *self.seen("Log.entryAdded"),
            *self.seen("Runtime.consoleAPICalled"),
            *self.seen("Runtime.exceptionThrown"),
        ]

    def asked(self, page: Path) -> set[str]:
        """Addresses that were requested, beside the page itself and what is in it."""
        urls = {event["request"]["url"] for event in self.seen("Network.requestWillBeSent")}
        return {url for url in urls if not url.startswith("data:")} - {page.as_uri(), "about:blank"}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self._in)
        os.close(self._out)
