"""A generated answer on its way to a client: waits for a slot, computes, sends whole or as server-sent events.

A client that goes away, waiting or reading, ends its generation and gives its slot back.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.errors import ApiError, InternalError
from api.preparation import Job
from api.routes import STREAM_HEADERS, HttpResponse, json_response, parse_request, server_sent_event
from generation.token_loop import Deadline
from server.serving import Serving
from server.slots import Place

logger = logging.getLogger("uvicorn.error")


class GeneratedAnswer(Response):
    """The answer to a body sent to a generating route. Raises ApiError while nothing was sent."""

    def __init__(self, serving: Serving, path: str, body: bytes, request_id: str) -> None:
        super().__init__()
        self._serving = serving
        self._path = path
        self._request = body
        self._request_id = request_id
        self._deadline = Deadline(time.monotonic() + serving.settings.request_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.create_task(self._answer(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.wait({answer, gone})  # the generation has ended and its slot is free
        if answer.cancelled():
            self._serving.metrics.disconnects.inc()
        else:
            answer.result()

    async def _answer(self, send: Send) -> None:
        service = self._serving.service
        with self._serving.slots.enter(self._deadline) as place:
            # Off the event loop: a long prompt takes a while to encode.
            job = await asyncio.get_running_loop().run_in_executor(self._serving.preparing, self._prepare)
            if job.request.stream:
                await self._send_stream(place, job, send)
                return
            response = json_response(await place.run(partial(service.respond, job, self._deadline)))
        self._log(response.body)
        await send_whole(send, response)

    def _prepare(self) -> Job:
        max_body_bytes = self._serving.settings.max_body_bytes
        return self._serving.service.prepare(parse_request(self._path, self._request, max_body_bytes))

    async def _send_stream(self, place: Place, job: Job, send: Send) -> None:
        """Nothing is sent before the first event exists: an error until then is an answer of its own."""
        started = False
        sent = bytearray()
        try:
            async with aclosing(self._events(place, job)) as events:
                async for event in events:
                    if not started:
                        started = True
                        await send(_start(200, STREAM_HEADERS))
                    if self._serving.settings.log_prompts:
                        sent += event
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except Exception as error:
            if not started:
                raise
            await send({"type": "http.response.body", "body": self._error_event(error), "more_body": True})
        self._log(bytes(sent))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self, place: Place, job: Job) -> AsyncGenerator[bytes]:
        parts = self._serving.service.stream(job, self._deadline)
        async with aclosing(place.iterate(parts)) as visible:
            async for part in visible:
                yield server_sent_event(part)
        yield server_sent_event(None)

    def _error_event(self, error: Exception) -> bytes:
        """The last event of a stream that failed; no [DONE] follows, because the answer is not complete."""
        if not isinstance(error, ApiError):
            logger.error("unexpected error in request %s", self._request_id, exc_info=error)
            error = InternalError.logged_under(self._request_id)
        return server_sent_event(error.envelope())

    def _log(self, answer: bytes) -> None:
        if self._serving.settings.log_prompts:
            logger.info("prompt %r and completion %r", self._request, answer)


async def send_whole(send: Send, response: HttpResponse) -> None:
    """A response that is complete."""
    await send(_start(response.status, {**response.headers, "content-length": str(len(response.body))}))
    await send({"type": "http.response.body", "body": response.body})


def _start(status: int, headers: Mapping[str, str]) -> Message:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": raw}


async def _disconnected(receive: Receive) -> None:
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
