"""The events a function can get, and the shape each caller wants back. Knows AWS's JSON; nothing of models.

API Gateway REST (payload 1.0), HTTP API and Function URL (payload 2.0) and ALB carry an HTTP request; a direct
invocation carries the request's body itself; an SQS batch and a Distributed Map's batch carry several; EventBridge's
schedule keeps the environment warm.
"""

import base64
import binascii
import json
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any, Literal
from urllib.parse import unquote

from msgspec import Struct

from api.errors import InvalidRequestError
from api.routes import HttpRequest, HttpResponse, canonical_path
from aws.streaming import StreamedAnswer

Source = Literal["rest-api", "http-api", "function-url", "alb", "alb-multi"]


class HttpEvent(Struct, frozen=True):
    """An event that carries an HTTP request."""

    source: Source
    request: HttpRequest
    signed: bool
    """Whether the front door has found the request signed by somebody whom it lets in (`AWS_IAM`)."""
    signed_by: str | None
    """Id of the IAM user or role, whatever its session, that the front door knows the request to be from."""
    fault: InvalidRequestError | None = None
    """What is wrong with the body, which the request is then without."""


class DirectEvent(Struct, frozen=True):
    """An event that is the body of a completion or chat completion."""

    body: Mapping[str, Any]


class ScheduledEvent(Struct, frozen=True):
    """A ping that keeps the environment alive."""


class BatchEvent(Struct, frozen=True):
    """Messages from an SQS queue, each the body of a request."""

    event: dict[str, Any]


class MapEvent(Struct, frozen=True):
    """Lines of a file in OpenAI's Batch format, from a Step Functions Distributed Map."""

    items: list[Any]


Event = HttpEvent | DirectEvent | ScheduledEvent | BatchEvent | MapEvent


def parse_event(event: Any) -> Event:
    """Recognise an event by its shape. InvalidRequestError names what was expected when it is none of them."""
    if isinstance(event, dict):
        context = event.get("requestContext")
        if isinstance(context, dict):
            if event.get("version") == "2.0" and isinstance(context.get("http"), dict):
                return _http_v2(event, context)
            if "httpMethod" in event:
                return _http_v1(event, context)
        if event.get("source") in ("aws.events", "aws.scheduler"):
            return ScheduledEvent()
        records = event.get("Records")
        first = records[0] if isinstance(records, list) and records else None
        if isinstance(first, dict) and first.get("eventSource") == "aws:sqs":
            _require_messages(event["Records"])
            return BatchEvent(event)
        if isinstance(event.get("Items"), list):
            return MapEvent(event["Items"])
        if "prompt" in event or "messages" in event:
            return DirectEvent(event)
    raise InvalidRequestError(
        "This event is none that the function knows: send an object with 'prompt' or 'messages', or an HTTP request "
        "through API Gateway, a Function URL or a load balancer."
    )


def shape_response(response: HttpResponse, source: Source) -> dict[str, Any]:
    """The response in the form that this kind of caller reads."""
    shaped: dict[str, Any] = {
        "statusCode": response.status,
        "body": response.body.decode(),
        "isBase64Encoded": False,
    }
    if source == "alb-multi":
        shaped["multiValueHeaders"] = {name: [value] for name, value in response.headers.items()}
    else:
        shaped["headers"] = dict(response.headers)
    return shaped


def shape_stream(status: int, headers: Mapping[str, str], body: Generator[bytes]) -> StreamedAnswer:
    """A streamed response as Function URLs and REST APIs read it: the head in JSON, eight NULs, the body."""

    def parts() -> Generator[bytes]:
        with closing(body):
            yield json.dumps({"statusCode": status, "headers": dict(headers)}).encode()
            yield bytes(8)
            yield from body

    return StreamedAnswer("application/vnd.awslambda.http-integration-response", parts())


def _require_messages(records: list[Any]) -> None:
    """InvalidRequestError unless each record can be answered, or else be named as one to deliver again."""
    for number, record in enumerate(records):
        texts = [record.get(name) for name in ("messageId", "body")] if isinstance(record, dict) else [None]
        if not all(isinstance(text, str) for text in texts) or not str(texts[0]).isascii():
            raise InvalidRequestError(f"Record {number} of this SQS event has no 'messageId' and 'body'.")


def _http_v1(event: dict[str, Any], context: dict[str, Any]) -> HttpEvent:
    multiple = _object(event, "multiValueHeaders")
    single = _object(event, "headers")
    if not all(isinstance(values, list) for values in multiple.values()):
        raise InvalidRequestError("'multiValueHeaders' of this HTTP event must hold lists.")
    headers = {name: values[-1] for name, values in multiple.items() if values} | single
    source: Source = "rest-api"
    if "elb" in context:
        source = "alb" if event.get("headers") is not None else "alb-multi"
    user = _at(context, "identity", "user")
    signed = any(isinstance(_at(context, "identity", part), str) for part in ("user", "userArn", "caller"))
    return _http_event(event, source, _text(event, "httpMethod"), _text(event, "path") or "/", headers, signed, user)


def _http_v2(event: dict[str, Any], context: dict[str, Any]) -> HttpEvent:
    path = _text(event, "rawPath") or "/"
    stage = f"/{context.get('stage')}/"
    if path.startswith(stage):  # an HTTP API's named stage is part of rawPath
        path = path[len(stage) - 1 :]
    source: Source = "function-url" if ".lambda-url." in str(context.get("domainName")) else "http-api"
    signed = isinstance(_at(context, "authorizer", "iam"), dict)
    user = _at(context, "authorizer", "iam", "userId")
    return _http_event(event, source, _text(context["http"], "method"), path, _object(event, "headers"), signed, user)


def _http_event(
    event: dict[str, Any],
    source: Source,
    method: str,
    path: str,
    headers: Mapping[str, Any],
    signed: bool,
    user: Any,
) -> HttpEvent:
    raw, fault = _text(event, "body").encode("utf-8", "surrogatepass"), None
    if event.get("isBase64Encoded"):
        try:
            raw = base64.b64decode(raw, validate=True)
        except binascii.Error:
            raw, fault = b"", InvalidRequestError("'body' of this HTTP event is not the base64 that it is said to be.")
    names = {name.lower(): str(value) for name, value in headers.items()}
    signed_by = user.partition(":")[0] if isinstance(user, str) else None  # of a role, its session follows
    request = HttpRequest(method.upper(), canonical_path(unquote(path)), names, raw)
    return HttpEvent(source, request, signed, signed_by, fault)


def _at(value: Any, *names: str) -> Any:
    """What lies in nested objects under `names`, None where there is nothing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _object(event: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The object of that name, empty where there is none. Raises InvalidRequestError for anything else."""
    value = event.get(name)
    if not isinstance(value, dict | None):
        raise InvalidRequestError(f"'{name}' of this HTTP event must be an object.")
    return value or {}


def _text(event: Mapping[str, Any], name: str) -> str:
    """The string of that name, empty where there is none. Raises InvalidRequestError for anything else."""
    value = event.get(name)
    if not isinstance(value, str | None):
        raise InvalidRequestError(f"'{name}' of this HTTP event must be a string.")
    return value or ""
