"""A server that answers like the Hugging Face hub does for one data set, on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHA = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(repository: str, files: dict[str, bytes], *, licence: str | None) -> Iterator[str]:
    """Serve a data set's files; yield the address for HF_ENDPOINT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            name = path.removeprefix(f"/datasets/{repository}/resolve/{SHA}/")
            if path.startswith(f"/api/datasets/{repository}"):
                about = {"id": repository, "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
                content = json.dumps(about | ({"cardData": {"license": licence}} if licence else {})).encode()
            elif name in files:
                content = files[name]
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", SHA)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
