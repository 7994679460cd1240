"""The OpenAPI document: the requests of `schema.py` and the responses of `response_types.py`, for FastAPI's /docs.

The endpoints read and write their bodies themselves, so that these are the same as in Lambda. Their schemas come from
msgspec, which also validates the requests, and are added to FastAPI's document here.
"""

from collections.abc import Mapping
from itertools import chain
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from msgspec.json import schema_components

from api import texts
from api.anthropic_object import MessageError, MessageEvent, MessageObject
from api.anthropic_request import MessagesRequest
from api.response_object import ResponseEvent, ResponseObject
from api.response_request import ResponseRequest
from api.response_types import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    Detokenized,
    ErrorEnvelope,
    Health,
    ModelList,
    ModelObject,
    Readiness,
    RenderedPrompt,
    Tokenized,
)
from api.routes import MESSAGES_ROUTE, REQUEST_KINDS, RESPONSES_ROUTE

RESPONSES = (
    *(ChatCompletion, ChatCompletionChunk, Completion, ErrorEnvelope, Health, ModelList, ModelObject, Readiness),
    *(Detokenized, MessageError, MessageEvent, MessageObject, RenderedPrompt, ResponseEvent, ResponseObject, Tokenized),
)
REQUESTS: Mapping[str, tuple[type, ...]] = {
    **{path: (kind,) for path, kind in REQUEST_KINDS.items()},
    RESPONSES_ROUTE: (ResponseRequest,),
    MESSAGES_ROUTE: (MessagesRequest,),
    **texts.REQUESTS,
}
"""What a body sent to a path may be."""
SCHEMAS = "#/components/schemas/"
DESCRIPTIONS = {
    400: "The request cannot be served as it is",
    401: "No key, or a key that is not valid",
    403: "Without keys: not under this name, or not from a page of this origin",
    404: "No such model",
    405: "The route takes another method",
    413: "The body is over the limit",
    415: "The body is compressed",
    429: "Too many requests are waiting",
    500: "An error that was not foreseen; the log has it under the request's id",
    503: "Out of memory, or shutting down",
}
WITH_RETRY_AFTER = (429, 503)


def answered(kind: type) -> dict[int | str, dict[str, Any]]:
    """What a route's documentation says of a success."""
    return {200: {"description": "The answer", "content": _content(kind)}}


def error_responses(*statuses: int, kind: type = ErrorEnvelope) -> dict[int | str, dict[str, Any]]:
    """What a route's documentation says of its errors, which are of this `kind`."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        documented[status] = {"description": DESCRIPTIONS[status], "content": _content(kind)}
        if status in WITH_RETRY_AFTER:
            seconds = {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}, "required": True}
            documented[status]["headers"] = {"Retry-After": seconds}
    return documented


def streamed(whole: type, chunk: type, error: type = ErrorEnvelope) -> dict[int | str, dict[str, Any]]:
    """What a route's documentation says of a success: its whole answer, or the events of a stream."""
    sent = {"anyOf": [_reference(chunk), _reference(error)]}
    data = [{"const": "[DONE]"}, {"contentMediaType": "application/json", "contentSchema": sent}]
    # Before OpenAPI 3.2 the schema of an event stream is that of one event.
    event = {"type": "object", "properties": {"data": {"type": "string", "anyOf": data}}, "required": ["data"]}
    description = f"The answer; with `stream` server-sent events, {chunk.__name__} objects and then `[DONE]`."
    content = {**_content(whole), "text/event-stream": {"schema": event}}
    return {200: {"description": description, "content": content}}


def document(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operations in made["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # FastAPI's own; here a fault is a 400
                if "security" in operation:
                    operation["security"].append({})  # keys are optional
        for path, kinds in REQUESTS.items():
            made["paths"][path]["post"]["requestBody"] = {"required": True, "content": _content(*kinds)}
        made["components"]["schemas"] = {
            **{name: {**schema, "additionalProperties": False} for name, schema in _schemas(*RESPONSES).items()},
            **{name: _with_null(schema) for name, schema in _schemas(*chain(*REQUESTS.values())).items()},
        }
        app.openapi_schema = made
    return app.openapi_schema


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": SCHEMAS + kind.__name__}


def _content(*kinds: type) -> dict[str, Any]:
    """Of a body that is one of these."""
    either = [_reference(kind) for kind in kinds]
    return {"application/json": {"schema": either[0] if len(either) == 1 else {"anyOf": either}}}


def _schemas(*kinds: type) -> dict[str, dict[str, Any]]:
    """The schemas of types, and of those that they refer to, by name."""
    _, schemas = schema_components(kinds, ref_template=SCHEMAS + "{name}")
    return schemas


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A request's schema as it is meant: `null` in place of anything optional is the same as leaving it out."""
    for name, part in schema.get("properties", {}).items():
        choices = part.get("anyOf", [part])
        if name not in schema.get("required", ()) and {"type": "null"} not in choices:
            named = {key: part[key] for key in ("description", "default") if key in part}
            kept = [{key: value for key, value in choice.items() if key not in named} for choice in choices]
            schema["properties"][name] = {"anyOf": [*kept, {"type": "null"}], **named}
    return schema
