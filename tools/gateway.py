"""HTTP in front of the function on this machine, as API Gateway stands before it in AWS.

Turns each request into an event (payload 1.0 as REST APIs send it, 2.0 as HTTP APIs and Function URLs do) and the
function's return value into a response, strictly: a value that API Gateway would refuse is answered 502 here too. An
answer that the function streams is passed on while it arrives, as a Function URL does. Any HTTP client can so use the
handler: `python -m tools.gateway`.
"""

import argparse
import base64
import contextlib
import itertools
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from tools.emulator import Emulator
from tools.local_function import LocalFunction
from tools.runtime_api import Answer

Version = Literal["1.0", "2.0", "function-url"]
Invoke = Callable[[dict[str, Any]], Any]

MAX_EVENT_BYTES = 6 * 2**20
"""What Lambda takes in one synchronous invocation."""
MALFORMED = (502, {"content-type": "application/json"}, b'{"message":"Internal server error"}')


class Gateway:
    """A gateway on a free port of this machine. A context manager; `url` is where it listens."""

    def __init__(self, invoke: Invoke, version: Version, port: int = 0) -> None:
        """`invoke` takes an event and gives the function's return value, or an Answer that arrives; one at a time."""
        one_at_a_time = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if len(body) > MAX_EVENT_BYTES:
                    self._send(413, {"content-type": "application/json"}, b'{"message":"Request Too Long"}')
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                event = MAKERS[version](self.command, self.path, headers, body)
                with one_at_a_time:
                    result = invoke(event)
                    if isinstance(result, Answer):
                        self._forward(result)
                        return
                self._send(*read_result(result))

            def _forward(self, answer: Answer) -> None:
                """Pass a stream on. A failed one ends without its last chunk, which tells the client."""
                parts = answer.parts()
                try:
                    status, headers, first = read_head(parts)
                    if not answer.streamed or first is None:
                        answer.wait()
                        self._send(*MALFORMED)
                        return
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    for part in itertools.chain([first], parts):
                        if part:
                            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                    if answer.wait().complete and answer.error is None:
                        self.wfile.write(b"0\r\n\r\n")
                    else:
                        self.close_connection = True
                except OSError:
                    answer.abandon()
                    self.close_connection = True
                answer.wait()

            def _send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the function has a log of its own."""

        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Gateway":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def read_head(parts: Iterator[bytes]) -> tuple[int, dict[str, str], bytes | None]:
    """Status, headers and first bytes of a streamed response; None for the bytes where it has no proper head."""
    head = b""
    for part in parts:
        head += part
        fields, nuls, first = head.partition(bytes(8))
        if nuls:
            shaped = json.loads(fields)
            return shaped["statusCode"], shaped["headers"], first
    return 502, {}, None


def rest_event(method: str, target: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Payload 1.0, as a REST API's proxy integration sends it."""
    parts = urlsplit(target)
    query = parse_qsl(parts.query, keep_blank_values=True)
    path = unquote(parts.path)
    context = {
        "accountId": "123456789012",
        "apiId": "local",
        "httpMethod": method,
        "path": f"/local{path}",
        "protocol": "HTTP/1.1",
        "requestId": str(uuid.uuid4()),
        "requestTimeEpoch": int(1000 * time.time()),
        "resourcePath": "/{proxy+}",
        "stage": "local",
        "identity": {"sourceIp": "127.0.0.1", "userAgent": headers.get("user-agent")},
    }
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": dict(headers),
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": {name: [v for n, v in query if n == name] for name, _ in query} or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": context,
        **_event_body(body),
    }


def http_event(method: str, target: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Payload 2.0, as an HTTP API sends it."""
    parts = urlsplit(target)
    path = parts.path
    event = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": parts.query,
        "headers": dict(headers),
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": "local.execute-api.eu-west-1.amazonaws.com",
            "domainPrefix": "local",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": headers.get("user-agent"),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "timeEpoch": int(1000 * time.time()),
        },
        **_event_body(body),
    }
    return event if body else {name: value for name, value in event.items() if name != "body"}


def function_url_event(method: str, target: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Payload 2.0, as a Function URL sends it."""
    event = http_event(method, target, headers, body)
    event["requestContext"]["domainName"] = "local.lambda-url.eu-west-1.on.aws"
    return event


MAKERS: Mapping[Version, Callable[[str, str, Mapping[str, str], bytes], dict[str, Any]]] = {
    "1.0": rest_event,
    "2.0": http_event,
    "function-url": function_url_event,
}


def read_result(result: Any) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a function's return value; 502 for what API Gateway would not take."""
    try:
        status, body = result["statusCode"], result.get("body", "")
        single, multiple = result.get("headers") or {}, result.get("multiValueHeaders") or {}
    except (TypeError, KeyError, AttributeError):
        return MALFORMED
    if not isinstance(status, int) or not isinstance(body, str):
        return MALFORMED
    headers = {name.lower(): str(value) for name, value in single.items()}
    headers |= {name.lower(): ", ".join(map(str, values)) for name, values in multiple.items()}
    return status, headers, base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()


def _event_body(body: bytes) -> dict[str, Any]:
    """Text as it is, anything else in base64."""
    try:
        return {"body": body.decode() or None, "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Put HTTP in front of the handler.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument(
        "--payload",
        choices=list(MAKERS),
        default="function-url",
        help="function-url: streams; 1.0, a REST API, and 2.0, an HTTP API: whole answers, under AWS's emulator",
    )
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        invoke: Invoke
        if arguments.payload == "function-url":
            invoke = stack.enter_context(LocalFunction({"STREAMING_DOORS": "function-url"}, echo=True)).start
        else:
            emulator = stack.enter_context(Emulator({}))

            def invoke(event: dict[str, Any]) -> Any:
                reply = emulator.invoke(event)
                for line in reply.output:
                    sys.stderr.write(line + "\n")
                return reply.payload

        gateway = stack.enter_context(Gateway(invoke, arguments.payload, arguments.port))
        print(json.dumps({"base_url": f"{gateway.url}/v1"}), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
