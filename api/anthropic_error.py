"""Errors as Anthropic's API words them.

Imported with the first of them.
"""

from collections.abc import Mapping

from api.anthropic_object import MessageError
from api.errors import ApiError

TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}
"""By status; every other one is an `invalid_request_error`."""


def message_error(error: ApiError) -> MessageError:
    """The body of the answer to a request that met `error`, and the last event of a stream that did."""
    kind = TYPES.get(error.status, "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}
