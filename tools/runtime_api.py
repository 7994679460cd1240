"""Lambda's Runtime API on a loopback socket: what a function's runtime client asks for events and sends answers to.

Unlike the emulator it hands on an answer while it arrives, which is what streaming is about. Written from AWS's
documents of the Runtime API and of response streaming for custom runtimes. One invocation at a time.
"""

import base64
import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

NEXT = "/2018-06-01/runtime/invocation/next"
FUNCTION_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:local"


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of an answer, or the whole of one that came in one piece."""

    at: float
    """The `time.monotonic()` instant at which it was there."""
    data: bytes


@dataclass(slots=True)
class Answer:
    """What the function has sent so far for one invocation. Grows while it arrives."""

    event: bytes
    seconds: float
    """How long the function may take."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers for the function to get with the event."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    path: str = ""
    sent_headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    chunks: list[Chunk] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)
    """Names in lower case."""
    complete: bool = False
    """The last byte has come."""
    over: bool = False
    """Nothing more will come."""
    connection: socket.socket | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def streamed(self) -> bool:
        """Whether the function chose to stream."""
        return self.sent_headers.get("lambda-runtime-function-response-mode") == "streaming"

    @property
    def body(self) -> bytes:
        """All chunks, joined."""
        return b"".join(chunk.data for chunk in self.chunks)

    @property
    def error(self) -> dict[str, Any] | None:
        """The function's error: the body of one posted as such, or the one in the trailers of a stream."""
        if self.path.endswith("/error"):
            return dict(json.loads(self.body))
        body = self.trailers.get("lambda-runtime-function-error-body")
        return None if body is None else dict(json.loads(base64.b64decode(body)))

    def parts(self) -> Iterator[bytes]:
        """The chunks' data, each as soon as it is there, until nothing more comes."""
        for index in range(2**63):
            with self.changed:
                self.changed.wait_for(lambda: len(self.chunks) > index or self.over)  # noqa: B023
                if index == len(self.chunks):
                    return
                data = self.chunks[index].data
            yield data

    def wait(self, seconds: float = 60) -> "Answer":
        """Itself, once it is over. Raises TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.over, seconds):
                raise TimeoutError(f"no answer after {seconds} s; so far: {self.body!r}")
        return self

    def wait_for_chunks(self, count: int, seconds: float = 60) -> None:
        """Return when `count` chunks are there. Raises TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.chunks) >= count, seconds):
                raise TimeoutError(f"{len(self.chunks)} of {count} chunks after {seconds} s")

    def abandon(self) -> None:
        """Hang up, as if nobody wanted the rest."""
        with self.changed:
            if self.connection is not None and not self.over:
                self.connection.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Nothing more comes."""
        with self.changed:
            self.over = True
            self.changed.notify_all()


class RuntimeApi:
    """The Runtime API for one function process. A context manager; `address` is what AWS_LAMBDA_RUNTIME_API names."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.init_error: dict[str, Any] | None = None
        """What the function reported instead of asking for its first event."""
        self._state = threading.Condition()
        self._waiting: Answer | None = None
        """An invocation that the function has not asked for yet."""
        self._running: Answer | None = None
        self.closed = False
        """Nobody serves or asks any more."""
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "RuntimeApi":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def start(self, event: Any, seconds: float = 300, headers: Mapping[str, str] | None = None) -> Answer:
        """Invoke with `event`, which may take `seconds`; its answer as it arrives.

        The one before must be over.
        """
        answer = Answer(json.dumps(event).encode(), seconds, headers or {})
        with self._state:
            if self.closed:
                answer.end()
            self._waiting = answer
            self._state.notify_all()
        return answer

    def give_up(self) -> None:
        """The function process is gone: what waits for an answer of its waits no longer."""
        with self._state:
            self.closed = True
            self._state.notify_all()
            for answer in (self._waiting, self._running):
                if answer is not None:
                    answer.end()

    def invoke(self, event: Any, seconds: float = 300, headers: Mapping[str, str] | None = None) -> Answer:
        """Invoke with `event` and wait for the whole answer."""
        return self.start(event, seconds, headers).wait()

    def receive(self, connection: socket.socket, answer: Answer | None) -> bytes:
        """More bytes of a request; of `answer`'s, if that is running. b"" when there are no more."""
        return connection.recv(65536)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # What comes after an event is its answer, even if not one byte of it can be read.
            answer, self._running = self._running, None
            threading.Thread(target=self._serve, args=(connection, answer), daemon=True).start()

    def _serve(self, connection: socket.socket, answer: Answer | None) -> None:
        """One request; each has a connection of its own."""
        try:
            with connection, contextlib.suppress(OSError):
                self._handle(connection, answer)
        finally:
            if answer is not None:
                answer.end()

    def _handle(self, connection: socket.socket, answer: Answer | None) -> None:
        request = _Request(lambda: self.receive(connection, answer))
        path, headers = request.head()
        if path == NEXT:
            if answer is not None:
                answer.end()  # the function gave it up
            self._deliver(connection)
            return
        if answer is None:
            self.init_error = json.loads(b"".join(request.body(headers)))
            reply(connection, "202 Accepted")
            with self._state:
                self._state.notify_all()
            return
        # Only now: another worker that asks for its first event must not be hung up on.
        answer.connection, answer.path, answer.sent_headers = connection, path, headers
        for data in request.body(headers):
            with answer.changed:
                answer.chunks.append(Chunk(time.monotonic(), data))
                answer.changed.notify_all()
        answer.trailers = request.trailers
        answer.complete = True
        self.accept(connection, answer)

    def accept(self, connection: socket.socket, answer: Answer) -> None:
        """Answer a request whose last byte has come."""
        reply(connection, "202 Accepted")

    def _deliver(self, connection: socket.socket) -> None:
        """The next event, once there is one."""
        with self._state:
            self._state.wait_for(lambda: self._waiting is not None or self.closed)
            answer, self._waiting = self._waiting, None
            if answer is None:
                return
            self._running = answer
        headers = {
            "Lambda-Runtime-Aws-Request-Id": answer.id,
            "Lambda-Runtime-Deadline-Ms": str(int(1000 * (time.time() + answer.seconds))),
            "Lambda-Runtime-Invoked-Function-Arn": FUNCTION_ARN,
            "Content-Type": "application/json",
            **answer.headers,
        }
        reply(connection, "200 OK", answer.event, headers)


class _Request:
    """A request read from `receive`, which gives b"" at the end. Raises ConnectionError when it ends too early."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._unread = b""
        self.trailers: dict[str, str] = {}

    def head(self) -> tuple[str, dict[str, str]]:
        """The path, and the headers with names in lower case."""
        _, path, _ = self._line().split(b" ")
        return path.decode(), self._headers()

    def body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        """The body as it arrives: chunk by chunk, or whole when its length was announced."""
        if headers.get("transfer-encoding") != "chunked":
            yield self._exactly(int(headers.get("content-length", "0")))
            return
        while size := int(self._line(), 16):
            yield self._exactly(size)
            self._line()
        self.trailers = self._headers()

    def _headers(self) -> dict[str, str]:
        headers = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return headers

    def _line(self) -> bytes:
        while b"\r\n" not in self._unread:
            self._more()
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._more()
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def _more(self) -> None:
        received = self._receive()
        if not received:
            raise ConnectionError("the function hung up")
        self._unread += received


def reply(connection: socket.socket, status: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
    lines = {**(headers or {}), "Content-Length": str(len(body)), "Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    connection.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)
