"""The body of a request as it came: what is refused before any field of it is looked at."""

from collections.abc import Mapping
from typing import Any

from api.errors import InvalidRequestError, RequestTooLargeError, UnsupportedEncodingError
from api.validation import parse_json

SHOWN_ENCODING = 40
"""Characters of an encoding's name that an error message repeats."""


def check_encoding(headers: Mapping[str, str]) -> None:
    """UnsupportedEncodingError for a body that is compressed. `headers` by their names in lower case."""
    encoding = headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise UnsupportedEncodingError(
            f"The body comes as {encoding[:SHOWN_ENCODING]!r}; send it as plain JSON, without a 'content-encoding'.",
            unquoted="The body comes encoded; send it as plain JSON, without a 'content-encoding'.",
        )


def json_of(body: bytes, max_body_bytes: int) -> Any:
    """The JSON value. RequestTooLargeError for a body of more bytes, InvalidRequestError for one that is no JSON."""
    if len(body) > max_body_bytes:
        raise body_too_large(max_body_bytes)
    if not body.strip():
        raise InvalidRequestError("The body is empty; send a JSON object.")
    return parse_json(body)


def body_too_large(max_body_bytes: int) -> RequestTooLargeError:
    """The same words whether the body was counted, announced by its header, or given up on half-way."""
    return RequestTooLargeError(f"The body is larger than the {max_body_bytes} bytes that this server takes.")
