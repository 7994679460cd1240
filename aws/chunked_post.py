"""An HTTP POST whose body is sent in chunks while it is made, with trailers: what `http.client` cannot do.

Over a plain socket, because the peer is Lambda's Runtime API on this machine. Imports nothing before it is used.
"""

import time


class ChunkedPost:
    """One POST to the Runtime API whose body is sent in chunks. A context manager that closes the connection.

    Every method raises OSError when the connection breaks, when the Runtime API answers before the end (it does when it
    no longer wants the rest) or when it refuses the answer, and TimeoutError when the deadline passes.
    """

    def __init__(self, address: str, path: str, headers: dict[str, str], deadline: float) -> None:
        """Connect. The headers go out with what is sent first. `deadline` is in seconds since the epoch."""
        import socket  # no part of a cold start

        self._deadline = deadline
        host, _, port = address.rpartition(":")
        self._socket: socket.socket = socket.create_connection((host, int(port)), timeout=self._seconds_left())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unsent = f"POST {path} HTTP/1.1\r\n{_lines(headers)}\r\n".encode("latin-1")

    def __enter__(self) -> "ChunkedPost":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()

    def send(self, part: bytes) -> None:
        """Send `part` as a chunk. An empty part only finds out whether the connection still stands."""
        self._raise_when_answered()
        if part:
            self._write(b"%x\r\n%b\r\n" % (len(part), part))

    def finish(self, trailers: dict[str, str]) -> None:
        """Send the end and wait until the Runtime API has accepted the answer."""
        self._write(f"0\r\n{_lines(trailers)}\r\n".encode("latin-1"))
        status = self._status()
        if not status.startswith("2"):
            raise ConnectionError(f"the Runtime API answered {status}")

    def _write(self, data: bytes) -> None:
        data, self._unsent = self._unsent + data, b""
        self._socket.settimeout(self._seconds_left())
        self._socket.sendall(data)

    def _raise_when_answered(self) -> None:
        from socket import MSG_PEEK

        self._socket.settimeout(0)
        try:
            self._socket.recv(1, MSG_PEEK)
        except BlockingIOError:
            return
        raise ConnectionError(f"the Runtime API answered {self._status()} before the end")

    def _status(self) -> str:
        """The answer's status code and reason."""
        answer = b""
        while b"\r\n" not in answer:
            self._socket.settimeout(self._seconds_left())
            received = self._socket.recv(4096)
            if not received:
                raise ConnectionError("the Runtime API hung up")
            answer += received
        return answer.partition(b"\r\n")[0].partition(b" ")[2].decode("latin-1")

    def _seconds_left(self) -> float:
        seconds = self._deadline - time.time()
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        return seconds


def _lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
