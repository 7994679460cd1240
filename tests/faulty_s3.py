"""An HTTP proxy before a real S3-compatible server that breaks chosen answers the way networks do."""

import http.client
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Fault = Callable[["_Handler", int, list[tuple[str, str]], bytes], None]
"""Sends an answer (status, headers, body), or what is left of it."""


class FaultyProxy:
    """Forwards to `upstream`; `faults` are used up one by one, by the answers to ranged reads only."""

    def __init__(self, upstream: str) -> None:
        self.faults: Sequence[Fault] = ()
        self.ranged_reads: list[str] = []
        self.on_ranged_read: Callable[[], None] | None = None
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self, "upstream": urlsplit(upstream).netloc})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def next_fault(self, read: str) -> Fault:
        """Note a ranged read and say how it ends."""
        with self._lock:
            self.ranged_reads.append(read)
            action, self.on_ranged_read = self.on_ranged_read, None
            fault: Fault = self.faults[0] if self.faults else whole
            self.faults = self.faults[1:]
        if action:
            action()
        return fault


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy
    upstream: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fault: Fault = whole
        if "Range" in self.headers:
            fault = self.proxy.next_fault(f"{self.path.partition('?')[0]} {self.headers['Range']}")
        connection = http.client.HTTPConnection(self.upstream)
        connection.request(self.command, self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        body = answer.read()
        headers = [pair for pair in answer.getheaders() if pair[0].lower() not in ("connection", "transfer-encoding")]
        connection.close()
        fault(self, answer.status, headers, body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def whole(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """No fault."""
    handler.start(status, headers)
    if handler.command != "HEAD":
        handler.wfile.write(body)


def dropped(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """The connection breaks in the middle of the body."""
    handler.start(status, headers)
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def truncated(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """A shorter body than was asked for, with a length that says so: no layer below sees an error."""
    half = body[: len(body) // 2]
    handler.start(status, [(k, str(len(half)) if k.lower() == "content-length" else v) for k, v in headers])
    handler.wfile.write(half)


def internal_error(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """S3's own way of failing."""
    error = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
    handler.start(500, [("Content-Type", "application/xml"), ("Content-Length", str(len(error)))])
    handler.wfile.write(error)


def no_key(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """What S3 says to a role that may read the object but not decrypt it."""
    reason = b"User: role is not authorized to perform: kms:Decrypt on resource: key"
    error = b"<Error><Code>AccessDenied</Code><Message>" + reason + b"</Message></Error>"
    handler.start(403, [("Content-Type", "application/xml"), ("Content-Length", str(len(error)))])
    handler.wfile.write(error)


def stalled(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """Some bytes, then silence until the client hangs up."""
    handler.start(status, headers)
    handler.wfile.write(body[:1000])
    handler.wfile.flush()
    handler.connection.recv(1)
    handler.close_connection = True


def slow(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """All bytes, in small pieces with pauses."""
    handler.start(status, headers)
    step = len(body) // 20 + 1
    for at in range(0, len(body), step):
        handler.wfile.write(body[at : at + step])
        handler.wfile.flush()
        time.sleep(0.02)


def flipped(handler: _Handler, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    """One bit is wrong."""
    whole(handler, status, headers, bytes([body[0] ^ 1]) + body[1:])
