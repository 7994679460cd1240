"""The OpenAPI document: the requests of `schema.py` and the responses of `response_types.py`, for FastAPI's /docs.

The endpoints read their bodies themselves, so that a fault gets the same words as in Lambda; what they read is added to
the document here.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from inference.response_types import ChatCompletionChunk, ErrorEnvelope
from inference.routes import REQUEST_KINDS

SCHEMAS = "#/components/schemas/"
DESCRIPTIONS = {
    400: "The request cannot be served as it is",
    401: "No key, or a key that is not valid",
    404: "No such model",
    405: "The route takes another method",
    413: "The body is over the limit",
    429: "Too many requests are waiting",
    500: "An error that was not foreseen; the log has it under the request's id",
    503: "Out of memory, or shutting down",
}
WITH_RETRY_AFTER = (429, 503)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's documentation says of its errors."""
    documented: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        documented[status] = {"model": ErrorEnvelope, "description": DESCRIPTIONS[status]}
        if status in WITH_RETRY_AFTER:
            seconds = {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}, "required": True}
            documented[status]["headers"] = {"Retry-After": seconds}
    return documented


def streamed(chunk: type) -> dict[int | str, dict[str, Any]]:
    """What a route's documentation says of a success: beside its whole answer, the events of a stream."""
    sent = {"anyOf": [{"$ref": SCHEMAS + chunk.__name__}, {"$ref": SCHEMAS + ErrorEnvelope.__name__}]}
    data = [{"const": "[DONE]"}, {"contentMediaType": "application/json", "contentSchema": sent}]
    # Before OpenAPI 3.2 the schema of an event stream is that of one event.
    event = {"type": "object", "properties": {"data": {"type": "string", "anyOf": data}}, "required": ["data"]}
    description = f"The answer; with `stream` server-sent events, {chunk.__name__} objects and then `[DONE]`."
    return {200: {"description": description, "content": {"text/event-stream": {"schema": event}}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = made["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        _add(schemas, TypeAdapter(ChatCompletionChunk).json_schema(ref_template=SCHEMAS + "{model}"))
        for schema in schemas.values():
            schema.setdefault("additionalProperties", False)
        for operations in made["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # FastAPI's own; here a fault is a 400
                if "security" in operation:
                    operation["security"].append({})  # keys are optional
        for path, kind in REQUEST_KINDS.items():
            asked: dict[str, Any] = {}
            _add(asked, kind.model_json_schema(ref_template=SCHEMAS + "{model}"))
            schemas |= {name: _with_null(schema) for name, schema in asked.items()}
            content = {"application/json": {"schema": {"$ref": SCHEMAS + kind.__name__}}}
            made["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
        app.openapi_schema = made
    return app.openapi_schema


def _add(schemas: dict[str, Any], schema: dict[str, Any]) -> None:
    """A schema by its title, and those it refers to by their names."""
    schemas.update(schema.pop("$defs", {}))
    schemas[schema["title"]] = schema


def _with_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A request's schema as it is meant: `null` in place of anything optional is the same as leaving it out."""
    for name, part in schema.get("properties", {}).items():
        choices = part.get("anyOf", [part])
        if name not in schema.get("required", ()) and {"type": "null"} not in choices:
            named = {key: part[key] for key in ("title", "description", "default") if key in part}
            kept = [{key: value for key, value in choice.items() if key not in named} for choice in choices]
            schema["properties"][name] = {"anyOf": [*kept, {"type": "null"}], **named}
    return schema
