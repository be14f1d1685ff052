"""A web server of a folder's files, with range requests and latency: for benchmarks and tests."""

from __future__ import annotations

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


class RangeServer(ThreadingHTTPServer):
    """Serves ``folder`` here, each answer ``latency`` seconds late; a context manager."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, folder: Path, latency: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.latency = folder, latency
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.requests = self.sent = 0  # answers, and bytes of their bodies
        self.counting = threading.Lock()

    def __enter__(self) -> RangeServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *failed: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went away."""


class Handler(BaseHTTPRequestHandler):
    """Answers one client's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: RangeServer

    def do_HEAD(self) -> None:
        """Answer HEAD."""
        self.answer(body=False)

    def do_GET(self) -> None:
        """Answer GET."""
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        """Answer with the whole of a file or with a range of it."""
        time.sleep(self.server.latency)
        path = self.server.folder / unquote(self.path.split("?")[0]).lstrip("/")
        if not path.is_file():
            self.fail(404)
            return
        size, mtime = path.stat().st_size, path.stat().st_mtime
        wanted = _RANGE.match(self.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2] or size) + 1 if wanted else size, size)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Last-Modified", self.date_time_string(int(mtime)))
        self.send_header("ETag", f'"{size:x}-{int(mtime * 1e6):x}"')
        with self.server.counting:  # before the client can know that it has its answer
            self.server.requests += 1
            self.server.sent += body * (end - begin)
        self.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(begin)
                self.send_body(file.read(end - begin))

    def send_body(self, data: bytes) -> None:
        """Send a body."""
        self.wfile.write(data)

    def fail(self, code: int) -> None:
        """Answer with an error and no body."""
        with self.server.counting:
            self.server.requests += 1
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write no log."""
