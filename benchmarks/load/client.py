"""Open-loop requests over plain sockets: sent when due, each on a connection of its own."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

TIMEOUT_S = 300


async def _request(port: int, due: float, body: bytes, done: Callable[[], None]) -> dict[str, Any]:
    """One request. Its latency counts from the moment it was due, so a late client does not hide a slow server."""
    await asyncio.sleep(max(0.0, due - time.monotonic()))
    late = time.monotonic() - due
    status = 0
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            status = int((await reader.readline()).split()[1])
            await reader.read()
            writer.close()
    except (OSError, TimeoutError, IndexError, ValueError):
        status = 0
    done()
    return {"latency_s": time.monotonic() - due, "sent_late_s": late, "status": status}


def send(port: int, arrivals: Sequence[float], event: dict[str, Any], done: Callable[[], None]) -> list[dict[str, Any]]:
    """Send a request at each of `arrivals` (seconds from now) and return what became of each; status 0 is no answer."""
    body = json.dumps(event).encode()

    async def everything() -> list[dict[str, Any]]:
        begun = time.monotonic() + 0.1
        return list(await asyncio.gather(*(_request(port, begun + at, body, done) for at in arrivals)))

    return asyncio.run(everything())
