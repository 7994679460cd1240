"""A Runtime API that treats answers badly: breaks connections at any byte, refuses, falls silent."""

import select
import socket
import struct
from dataclasses import dataclass
from typing import Literal

from tools.runtime_api import Answer, RuntimeApi, reply

Ending = Literal["answers", "hangs up", "resets", "is silent"]


@dataclass(frozen=True)
class Conduct:
    """What the Runtime API does with a posted answer."""

    reads: int | None = None
    """How many bytes it reads of the request, its headers included; None for all."""
    then: Ending = "answers"
    status: str = "202 Accepted"


class FaultyRuntimeApi(RuntimeApi):
    """A Runtime API whose `conduct` a test sets before an invocation."""

    def __init__(self) -> None:
        super().__init__()
        self.conduct = Conduct()
        self._read: dict[str, int] = {}
        """Bytes read of each answer, by its id."""

    def receive(self, connection: socket.socket, answer: Answer | None) -> bytes:
        if answer is None or self.conduct.reads is None:
            return super().receive(connection, answer)
        seen = self._read.get(answer.id, 0)
        if seen >= self.conduct.reads:
            self.accept(connection, answer)
            return b""
        received = connection.recv(min(65536, self.conduct.reads - seen))
        self._read[answer.id] = seen + len(received)
        return received

    def accept(self, connection: socket.socket, answer: Answer) -> None:
        conduct = self.conduct
        if conduct.then == "answers":
            reply(connection, conduct.status)
        elif conduct.then == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif conduct.then == "is silent":
            watcher = select.poll()
            watcher.register(connection, select.POLLRDHUP)
            while not self.closed and not watcher.poll(20):
                pass  # a function that hangs up with much unsent cannot be seen to
