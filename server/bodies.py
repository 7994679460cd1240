"""A request's body, read from a socket: no more of it than is allowed, and no longer than that takes.

What comes after a refusal is the server's to discard; it is never kept.
"""

import asyncio

from starlette.requests import Request

from api.body import body_too_large, check_encoding
from api.errors import InvalidRequestError


class SlowBodyError(InvalidRequestError):
    """The body did not arrive in time. Its connection cannot be used again: the rest may come at any moment."""

    @property
    def headers(self) -> dict[str, str]:
        return {"connection": "close"}


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """The whole body. RequestTooLargeError before the first byte where the header announces more than `max_bytes`,
    UnsupportedEncodingError where it announces a compressed one.
    """
    check_encoding(request.headers)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise body_too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise body_too_large(max_bytes)
    except TimeoutError:
        raise SlowBodyError(f"The body did not arrive within {seconds:g} seconds; send it again.") from None
    return bytes(body)
