"""What one connection may take: uvicorn's HTTP/1.1 protocol with bounds that uvicorn has no settings for.

uvicorn itself closes a connection that stays idle after an answer (`timeout_keep_alive`) and refuses headers of more
than 64 KiB. It has no time for headers to arrive, reads what follows an answer for ever, waits for ever for a client
that does not read, and with `limit_concurrency` answers 503 to everybody where idle connections take all places.
"""

import asyncio
import resource
import socket
import time
from collections.abc import Iterable
from typing import Any

from h11 import DONE, SEND_BODY
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Time for a request's headers to arrive, from the connection or from their first byte on."""
READING_SECONDS = 60.0
"""Time in which a client must read something of an answer that waits for it."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 32_000_000
"""How long and how much of a body is read, and dropped, after its answer, so that the client gets to read that."""
MOST_CONNECTIONS = 512
"""Open connections per worker process, where its descriptors allow."""
RESERVED_DESCRIPTORS = 64
"""What a worker keeps open beside its connections: libraries, pipes, files, connections of its own."""
MOST_BACKLOG = 128


def connection_limits() -> tuple[int, int]:
    """How many connections a process may hold, and how many more may wait in the kernel to be accepted.

    asyncio accepts all that wait before it looks at one of them, and logs without pause when descriptors run out:
    both numbers together stay below the process's limit (`ulimit -n`).
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS, MOST_BACKLOG
    left = max(2, descriptors - RESERVED_DESCRIPTORS)
    backlog = min(MOST_BACKLOG, left // 4 + 1)
    return min(MOST_CONNECTIONS, left - backlog), backlog


CONNECTIONS, BACKLOG = connection_limits()


class BoundedConnection(H11Protocol):
    """One connection of a process that holds at most CONNECTIONS."""

    _since: float
    """`time.monotonic()` when it was made, or when its latest answer was complete."""
    _timer: asyncio.TimerHandle | None = None
    """Closes it when a request's headers, or the rest of an answered one's body, take too long."""
    _stalled: asyncio.TimerHandle | None = None
    """Closes it when the client does not read."""
    _leftover = 0
    """Bytes read after the latest answer that still belonged to its request."""

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn: no request, or not all of one, has arrived since the last answer."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers. Where there is no place, the client that has been waited for longest goes."""
        super().connection_made(transport)
        # asyncio does this too, but not behind the socket that uvicorn binds for several workers. Without it a body
        # waits for the client's acknowledgement of its headers: 40 ms on a connection that is used again.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._since = time.monotonic()
        self._close_in(HEADER_SECONDS)
        alive = [one for one in self._of_this_kind() if not one.transport.is_closing()]
        if len(alive) > CONNECTIONS:
            min((one for one in alive if one.waits), key=lambda one: one._since).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what arrived, unless it is the rest of a body that was answered and there is too much of it."""
        if self._lingers():
            self._leftover += len(data)
            if self._leftover > LINGER_BYTES:
                self.transport.abort()
                return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._keep()
        elif self._timer is None and not self.transport.is_closing():
            self._close_in(HEADER_SECONDS)

    def on_response_complete(self) -> None:
        """The answer is out; uvicorn waits for the next request, or for the rest of this one's body."""
        self._since = time.monotonic()
        self._leftover = 0
        if self._lingers():
            self._close_in(LINGER_SECONDS)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone, by whichever side."""
        self._keep()
        self._read_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read: the kernel's buffer and the transport's are full."""
        super().pause_writing()
        self._stalled = self.loop.call_later(READING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._read_on()
        super().resume_writing()

    def _of_this_kind(self) -> Iterable["BoundedConnection"]:
        return (one for one in self.connections if isinstance(one, BoundedConnection))

    def _lingers(self) -> bool:
        """Whether the answer to a request is out while its body still arrives."""
        return self.conn.our_state is DONE and self.conn.their_state is SEND_BODY

    def _close_in(self, seconds: float) -> None:
        self._keep()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _keep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _read_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


BOUNDS: dict[str, Any] = {
    "http": BoundedConnection,
    "backlog": BACKLOG,
    "ws": "none",  # there are none here, and uvicorn warns of every client that asks
}
"""Arguments for `uvicorn.Config`."""
