"""A generated answer on its way to a client: sent whole, or as server-sent events while it is made.

A client that goes away, waiting or reading, ends its sequences within one forward pass.
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
from api.events import Event
from api.preparation import PreparedRequest
from api.routes import (
    STREAM_HEADERS,
    HttpResponse,
    end_of_stream,
    error_event,
    json_response,
    parse_request,
    server_sent_event,
    text_response,
)
from generation.deadline import Deadline
from server.serving import Serving

logger = logging.getLogger("uvicorn.error")


class GeneratedAnswer(Response):
    """The answer to a body sent to a generating route. Raises ApiError while nothing was sent."""

    def __init__(self, serving: Serving, path: str, body: bytes, request_id: str, caller: bytes | None) -> None:
        """`caller` is who sent it, by the key, None without keys."""
        super().__init__()
        self._serving = serving
        self._path = path
        self._request = body
        self._request_id = request_id
        self._caller = caller
        self._deadline = Deadline(time.monotonic() + serving.settings.request_timeout)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.create_task(self._answer(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
            gone.cancel()
            await asyncio.wait({answer, gone})
        if answer.cancelled():
            self._serving.metrics.disconnects.inc()
        else:
            answer.result()

    async def _answer(self, send: Send) -> None:
        with self._serving.admission.enter(self._deadline) as ticket:
            # Off the event loop: a long prompt takes a while to encode.
            prepared = await asyncio.get_running_loop().run_in_executor(self._serving.preparing, self._prepare)
            reply = self._serving.service.begin(prepared, self._deadline)
            events = self._serving.engine_thread.run(
                reply, self._deadline, ticket.hand_over(), streamed=prepared.request.stream
            )
        async with aclosing(events):
            try:
                sent = await (self._send_stream if prepared.request.stream else self._send_whole)(
                    prepared, events, send
                )
            except TimeoutError:
                raise self._serving.admission.refusal() from None
        if self._serving.settings.log_prompts:
            logger.info("prompt %r and completion %r", self._request, sent)

    def _prepare(self) -> PreparedRequest:
        max_body_bytes = self._serving.settings.max_body_bytes
        return self._serving.service.prepare(parse_request(self._path, self._request, max_body_bytes), self._caller)

    async def _send_whole(self, prepared: PreparedRequest, events: AsyncGenerator[Event], send: Send) -> bytes:
        """The body that was sent."""
        whole = self._serving.service.whole(prepared)
        answer = None
        async for event in events:
            answer = whole.add(event)
        assert answer is not None
        response = json_response(answer)
        await send_whole(send, response)
        return response.body

    async def _send_stream(self, prepared: PreparedRequest, events: AsyncGenerator[Event], send: Send) -> bytes:
        """The body that was sent. Nothing is sent before the first part exists: an error until then is raised."""
        streamed = self._serving.service.streamed(prepared)
        sent = bytearray()
        number = 0

        async def send_part(part: bytes) -> None:
            if not sent:
                await send(_start(200, STREAM_HEADERS))
            sent.extend(part if self._serving.settings.log_prompts or not sent else b"")
            await send({"type": "http.response.body", "body": part, "more_body": True})

        try:
            async for event in events:
                for part in streamed.parts(event):
                    await send_part(server_sent_event(part))
                    number += 1
            await send_part(end_of_stream(prepared))
        except Exception as error:
            if not sent:
                raise
            await send_part(error_event(self._worded(error), prepared, number))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return bytes(sent)

    def _worded(self, error: Exception) -> ApiError:
        """What a stream that has begun says of an error."""
        if isinstance(error, ApiError):
            return error
        logger.error("unexpected error in request %s", self._request_id, exc_info=error)
        return InternalError.logged_under(self._request_id)


async def answer_text(serving: Serving, path: str, body: bytes) -> HttpResponse:
    """The response to a body sent to one of the routes that generate nothing. Raises ApiError.

    It takes its place among the requests that wait, and is made off the event loop: a long text takes a while.
    """
    with serving.admission.enter(Deadline(time.monotonic() + serving.settings.request_timeout)):
        asked = partial(text_response, path, body, serving.service.model, serving.settings.max_body_bytes)
        return await asyncio.get_running_loop().run_in_executor(serving.preparing, asked)


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
