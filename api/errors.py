"""The few errors a caller can meet, each with its HTTP status and OpenAI error type.

The class name is what a direct invocation sees as the function error's type; `envelope` is what HTTP clients get.
Messages are for the caller: one sentence, what to do, nothing of the inside.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ApiError(Exception):
    """An error meant for the caller. `param` names the request field at fault, `code` the machine-readable reason.

    `message` may repeat what the caller wrote; `unquoted` is then the same sentence without that. `str()` of the error
    is the unquoted one: whatever logs the exception, as Lambda's runtime client does, logs nothing of a caller's.
    """

    status: ClassVar[int]
    type: ClassVar[str]

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, unquoted: str | None = None
    ) -> None:
        super().__init__(message if unquoted is None else unquoted)
        self.message = message
        self.param = param
        self.code = code

    @property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers this error adds to its response."""
        return {}

    def envelope(self) -> dict[str, Any]:
        """The OpenAI error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequestError(ApiError):
    """The request cannot be served as it is; the same request will fail again."""

    status = 400
    type = "invalid_request_error"


def must_be(wanted: str, path: str, shown: str = "") -> InvalidRequestError:
    """The error of a field at `path` that is not `wanted`; `shown` is what to say of the value that was sent."""
    fault = f"'{path}' must be {wanted}"
    return InvalidRequestError(f"{fault}{shown}.", param=path, unquoted=f"{fault}.")


class AuthenticationError(ApiError):
    """No key, or a key that is not valid."""

    status = 401
    type = "invalid_request_error"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"www-authenticate": "Bearer"}


class ForbiddenError(ApiError):
    """The server answers, but not this caller."""

    status = 403
    type = "invalid_request_error"


class NotFoundError(ApiError):
    """No such route, or no such model."""

    status = 404
    type = "invalid_request_error"


class MethodNotAllowedError(ApiError):
    """The route exists, for other methods. `allow` lists them."""

    status = 405
    type = "invalid_request_error"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message, code="method_not_allowed", unquoted=f"The route takes {allow}.")
        self.allow = allow

    @property
    def headers(self) -> Mapping[str, str]:
        return {"allow": self.allow}


class RequestTooLargeError(ApiError):
    """The body is over the limit."""

    status = 413
    type = "invalid_request_error"


class UnsupportedEncodingError(ApiError):
    """The body is compressed."""

    status = 415
    type = "invalid_request_error"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"accept-encoding": "identity"}


class RateLimitError(ApiError):
    """Too many requests are waiting. `retry_after` is how many seconds it may take until one more has a chance."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.retry_after)}


class InternalError(ApiError):
    """Something this project did not foresee; the log has it under the request id."""

    status = 500
    type = "server_error"

    @classmethod
    def logged_under(cls, request_id: str) -> "InternalError":
        """The error that points to the log."""
        return cls(f"Something went wrong here; the log has it under request {request_id}.")


class ServiceUnavailableError(ApiError):
    """The request could be served at another time: memory ran out, or the process is going away."""

    status = 503
    type = "server_error"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": "1"}
