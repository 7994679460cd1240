"""Answers for pages of other origins, in browsers: those that CORS_ORIGINS names may call the API and read it.

Starlette's middleware does it. It is made with the first request, because the settings come with the lifespan.
"""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

EXPOSED = ("x-request-id", "request-id", "server-timing", "retry-after")
"""Headers of answers that such pages may read, beside the usual ones."""


class CrossOrigin:
    """ASGI middleware, the outermost: errors are for such pages to read, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answering: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = getattr(scope["app"].state, "serving", None)
        if self._answering is None and serving is not None:
            self._answering = self._for(serving.settings.cors_origins)
        await (self._answering or self._app)(scope, receive, send)

    def _for(self, origins: tuple[str, ...]) -> ASGIApp:
        if not origins:
            return self._app
        return CORSMiddleware(
            self._app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=EXPOSED,
        )
