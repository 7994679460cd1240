"""uvicorn's access log without what callers wrote: routes instead of paths, no query, no invented method."""

import logging

from api.routes import METHODS, MODEL_PREFIX, canonical_path

OTHER_ROUTES = ("/", "/metrics", "/docs", "/openapi.json")
"""What METHODS does not have, all of it to be read."""
KNOWN_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")


def route_of(path: str) -> str:
    """The path as a label: one of few, whatever clients send."""
    if path.startswith(MODEL_PREFIX):
        return f"{MODEL_PREFIX}{{id}}"
    return path if path in METHODS or path in OTHER_ROUTES else "other"


class RoutesOnly(logging.Filter):
    """Rewrites the arguments of uvicorn's access records: client, method, path and query, version, status."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true: every record is written, with less in it."""
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            route = route_of(canonical_path(str(path).partition("?")[0]))
            record.args = (client, method if method in KNOWN_METHODS else "other", route, version, status)
        return True


def hide_what_callers_wrote() -> None:
    """From now on, in this process. The same again changes nothing."""
    logger = logging.getLogger("uvicorn.access")
    if not any(isinstance(present, RoutesOnly) for present in logger.filters):
        logger.addFilter(RoutesOnly())
