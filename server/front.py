"""The outermost layer of the application: what holds for every request and for the start, whatever the route.

Gives each request an id, counts responses, turns the unforeseen into a logged 500, and says why a start failed.
"""

import logging
import sys
import uuid

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import InternalError
from api.routes import canonical_path, error_response, id_headers
from engines.errors import LoadError
from server.access_log import route_of
from server.answers import send_whole

logger = logging.getLogger("uvicorn.error")


class Front:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, _with_plain_words(send))
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = uuid.uuid4().hex
        path = canonical_path(scope["path"])
        scope = {**scope, "path": path, "state": {**scope.get("state", {}), "request_id": request_id}}
        ids = [(name.encode(), value.encode()) for name, value in id_headers(path, request_id).items()]
        started = False

        async def observed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *ids]
                serving = getattr(scope["app"].state, "serving", None)
                if serving is not None:
                    serving.metrics.record_response(route_of(path), message["status"])
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except ClientDisconnect:
            pass  # gone while it sent its body
        except Exception:
            logger.exception("unexpected error in request %s", request_id)
            if started:
                raise
            await send_whole(observed, error_response(InternalError.logged_under(request_id), path))


def _with_plain_words(send: Send) -> Send:
    """Report a LoadError at the start by its one sentence, without the traceback."""

    async def reported(message: Message) -> None:
        failure = sys.exception()
        if message["type"] == "lifespan.startup.failed" and isinstance(failure, LoadError):
            message = {**message, "message": str(failure)}
        await send(message)

    return reported
