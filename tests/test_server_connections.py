"""Clients that open connections and do not use them as they are meant: each costs little, and not for long."""

import asyncio
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server import connections
from tests.running_server import PATIENCE, wait_until
from tests.test_server import Bench

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.fixture
def bench(llama_directory: Path) -> Iterator[Bench]:
    with Bench(llama_directory, max_body_bytes=1000) as bench:
        yield bench


def connected(bench: Bench) -> socket.socket:
    host, port = bench.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def until_closed(connection: socket.socket) -> bytes:
    """What the server still sends before it closes."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def keep_sending(connection: socket.socket, piece: bytes, pause: float) -> None:
    for _ in range(10_000):
        connection.sendall(piece)
        time.sleep(pause)


def healthy(bench: Bench) -> bool:
    with connected(bench) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        return until_closed(connection).startswith(b"HTTP/1.1 200 ")


def test_no_part_of_an_answer_waits_in_the_kernel_for_the_one_before_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[asyncio.Transport] = []
    begin = connections.BoundedConnection.connection_made

    def noted(self: connections.BoundedConnection, transport: asyncio.Transport) -> None:
        begin(self, transport)
        made.append(transport)

    monkeypatch.setattr(connections.BoundedConnection, "connection_made", noted)
    with connected(bench):
        wait_until(lambda: bool(made), "the connection is made")
        option = made[0].get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert option != 0


def test_a_connection_without_a_request_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    with connected(bench) as silent, connected(bench) as unfinished:
        unfinished.sendall(HEAD)
        assert until_closed(silent) == until_closed(unfinished) == b""
    assert healthy(bench)


def test_headers_that_never_end_are_given_up_however_they_come(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with connected(bench) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.sendall(HEAD)
        with pytest.raises(ConnectionError):
            keep_sending(connection, b"x: y\r\n", pause=0.01)


def test_where_all_places_are_taken_who_was_waited_for_longest_goes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 4)
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(bench)) for _ in range(10)]
        assert healthy(bench)
        assert [until_closed(connection) for connection in silent[:7]] == [b""] * 7
        silent[-1].sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert silent[-1].recv(12) == b"HTTP/1.1 200"


def test_who_is_being_answered_keeps_its_place(llama_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CONNECTIONS", 2)
    with Bench(llama_directory, stepped=True) as bench, bench.raw({"prompt": "the fox", "max_tokens": 3}) as answered:
        wait_until(lambda: bench.steps.waiting == 1, "the request runs")
        with ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(connected(bench))
            assert healthy(bench)
        bench.steps.open()
        assert answered.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("bound", ["LINGER_BYTES", "LINGER_SECONDS"])
def test_a_body_that_never_ends_is_not_read_for_ever_after_its_answer(
    bench: Bench, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, bound, {"LINGER_BYTES": 100_000, "LINGER_SECONDS": 0.3}[bound])
    piece, pause = (b"10000\r\n" + b" " * 0x10000 + b"\r\n", 0) if bound == "LINGER_BYTES" else (b"1\r\n \r\n", 0.01)
    with connected(bench) as connection:
        connection.sendall(CHUNKED + b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"
        with pytest.raises(ConnectionError):
            keep_sending(connection, piece, pause)
    assert healthy(bench)


def test_who_does_not_read_its_answer_loses_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READING_SECONDS", 0.05)
    with bench.raw({"prompt": "the fox", "max_tokens": 600, "stream": True, "logprobs": 5, "n": 4}) as connection:
        wait_until(lambda: bench.metric("causal_lm_disconnects_total") == 1, "the connection is given up")
        assert b"[DONE]" not in until_closed(connection)


@pytest.mark.parametrize(
    ("descriptors", "connections_and_backlog"),
    [(128, (47, 17)), (1024, (512, 128)), (65536, (512, 128)), (10, (1, 1))],
)
def test_connections_and_those_that_wait_stay_below_the_descriptors(
    descriptors: int, connections_and_backlog: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert connections.connection_limits() == connections_and_backlog
