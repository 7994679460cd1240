"""OpenAI's Batch format: what one line of a batch asks for, and the line that answers it.

A line is `{"custom_id", "method", "url", "body"}`, its result `{"id", "custom_id", "response", "error"}`. The result of
a line that is no request has no `response`; that of a refused request has one, with the status and body of HTTP.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from api.answers import Answer, is_cut, tokens_of
from api.errors import ApiError, InternalError
from api.routes import REQUEST_KINDS, RESPONSES_ROUTE, read_request
from api.schema import ChatRequest, CompletionRequest

if TYPE_CHECKING:
    from api.translated import TranslatedRequest

URLS = (*REQUEST_KINDS, RESPONSES_ROUTE)
FIELDS = ("custom_id", "method", "url", "body")
EXPIRED = "batch_expired"
"""OpenAI's code for a request that its batch had no time for."""


class BatchLineError(Exception):
    """This line has no answer. `code` is the machine-readable reason, the message one sentence for the caller."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def custom_id_of(line: Any) -> str | None:
    """The line's `custom_id`, None where it has none that an answer could repeat."""
    found = line.get("custom_id") if isinstance(line, dict) else None
    return found if isinstance(found, str) and found and _is_text(found) else None


def check_line(line: Any) -> None:
    """BatchLineError for a line that is no request. What its body asks for is `read_line`'s to check."""
    if not isinstance(line, dict):
        raise BatchLineError("invalid_request", "The line must be a JSON object.")
    if custom_id_of(line) is None:
        raise BatchLineError("invalid_custom_id", "The line needs a 'custom_id', a string that is not empty.")
    for name in line:
        if name not in FIELDS:
            raise BatchLineError(
                "unknown_parameter", f"The line has {name[:40]!r}; its fields are {', '.join(FIELDS)}."
            )
    if line.get("method") != "POST":
        raise BatchLineError("invalid_method", "The line's 'method' must be 'POST'.")
    url = line.get("url")
    if not isinstance(url, str) or url not in URLS:
        raise BatchLineError("invalid_url", f"The line's 'url' must be {' or '.join(map(repr, URLS))}.")
    body = line.get("body")
    if not isinstance(body, dict):
        raise BatchLineError("invalid_body", "The line's 'body' must be a JSON object.")
    if body.get("stream"):
        raise BatchLineError("invalid_body", "'stream' is not for a batch; its answers come whole.")


def read_line(line: Any) -> "CompletionRequest | ChatRequest | TranslatedRequest":
    """The request of a line. BatchLineError for a line that is none, InvalidRequestError for a body that is refused."""
    check_line(line)
    return read_request(line["url"], line["body"])


def result_line(name: str, custom_id: str | None, outcome: Answer | Exception, request_id: str) -> dict[str, Any]:
    """The line that answers one: `outcome` is the answer, or the error it met. `name` is the result's own id.

    An answer that the deadline cut is there as far as it got, beside an `error`; one that it did not let begin is not.
    """
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    if isinstance(outcome, BatchLineError):
        error = {"code": outcome.code, "message": str(outcome)}
    elif isinstance(outcome, Exception):
        failure = outcome if isinstance(outcome, ApiError) else InternalError.logged_under(request_id)
        response = _response(failure.status, request_id, failure.envelope())
    else:
        if is_cut(outcome):
            error = {"code": EXPIRED, "message": "The time of the batch ended before this answer was complete."}
        if error is None or tokens_of(outcome)[1]:
            response = _response(200, request_id, outcome)
    return {"id": f"batch_req_{name}", "custom_id": custom_id, "response": response, "error": error}


def is_failure(result: Mapping[str, Any]) -> bool:
    """Whether a result is anything but a complete answer."""
    return result["error"] is not None or result["response"]["status_code"] != 200


def _response(status: int, request_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": request_id, "body": body}


def _is_text(text: str) -> bool:
    """False for half of a surrogate pair, which no file could hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
