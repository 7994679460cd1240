"""Answers for pages of other origins, in browsers, where the front door leaves that to the function.

Function URLs do it by themselves, as they are set up, HTTP APIs but for the status of `preflight`; REST APIs and load
balancers pass on what is answered here. The protocol is CORS, of the Fetch standard.
"""

from collections.abc import Mapping

from api.routes import HttpRequest, HttpResponse

METHODS = ("GET", "POST")
EXPOSED = ("x-request-id", "request-id", "server-timing", "retry-after")
"""Headers of answers that such pages may read, beside the usual ones."""
PREFLIGHT_SECONDS = 600
"""How long a browser may keep the answer to what it asks before a request."""


def headers_for(request: HttpRequest, origins: tuple[str, ...]) -> Mapping[str, str]:
    """What any answer to `request` gets, where `origins` may call and read."""
    origin = request.headers.get("origin")
    if origin not in origins:
        return {"vary": "origin"}
    return {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": ", ".join(EXPOSED),
        "vary": "origin",
    }


def preflight(request: HttpRequest) -> HttpResponse:
    """The answer to OPTIONS, with which a browser asks whether a page may send a request.

    Without the headers of `headers_for` a browser takes it for a no.
    """
    allowed = {
        "access-control-allow-methods": ", ".join(METHODS),
        "access-control-allow-headers": request.headers.get("access-control-request-headers", "*"),
        "access-control-max-age": str(PREFLIGHT_SECONDS),
    }
    return HttpResponse(204, b"", allowed)
