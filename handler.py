"""Lambda entry point: one event in, one response out. Knows event shapes, nothing of models.

The module's globals are the point of the project: importing this file is the cold start, which loads the model once;
every later invocation in the same execution environment finds it here.
"""

from startup import process_clock  # noqa: F401  first, because it reads how old the process is

# isort: split
from startup import deferred, lean_msgspec  # noqa: F401  before anything that they keep from being loaded

# isort: split
from settings import Settings
from startup.read_ahead import read_ahead

SETTINGS = Settings.from_env()
read_ahead(SETTINGS.model_dir)

# isort: split
import json
import os
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any

from msgspec.structs import replace

from api.errors import ApiError, ForbiddenError, InternalError, InvalidRequestError
from api.preparation import PreparedRequest
from api.routes import (
    STREAM_HEADERS,
    EventStream,
    HttpResponse,
    error_event,
    error_response,
    event_stream,
    handle_streaming,
    id_headers,
)
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import parse_json, validate
from aws import snapstart
from aws.events import (
    BatchEvent,
    DirectEvent,
    HttpEvent,
    MapEvent,
    ScheduledEvent,
    parse_event,
    shape_response,
    shape_stream,
)
from aws.observability import logger, make_tracer, record_error, record_generation, record_load, record_restore
from aws.secrets import make_keys
from aws.streaming import StreamedAnswer
from generation.deadline import Deadline
from generation.pace import ANSWER_SECONDS
from model_loader import get_model

MAX_RESPONSE_BYTES = 6_000_000
"""A little under the 6 MiB that Lambda takes back in one piece."""
MAX_BALANCED_BYTES = 1_000_000
"""A little under the 1 MiB that a load balancer takes from a function."""
MAX_STREAM_BYTES = 200_000_000
"""What Lambda streams."""
SIGNING_DOORS = frozenset({"rest-api", "http-api", "function-url"})
"""Those that can look at a signature."""

KEYS = make_keys(SETTINGS)
MODEL = get_model(SETTINGS)
SERVICE = Service(
    MODEL,
    max_tokens=SETTINGS.max_tokens,
    max_choices=SETTINGS.max_choices,
    concurrency=SETTINGS.concurrency,
    prefix_cache=SETTINGS.prefix_cache,
    prefix_cache_shared=SETTINGS.prefix_cache_shared,
    draft_tokens=SETTINGS.prompt_lookup_num_tokens,
    report=record_generation,
)
SUBSEGMENT = make_tracer(SETTINGS.tracing)
record_load(MODEL)

_invoked = False


@logger.inject_lambda_context(clear_state=True)
def lambda_handler(event: Any, context: Any) -> Mapping[str, Any] | list[dict[str, Any]] | StreamedAnswer:
    """Answer one event. An HTTP caller gets a response whatever happens; a direct caller's errors are raised."""
    global _invoked
    first, _invoked = not _invoked, True
    request = None
    try:
        request = parse_event(event)
        if isinstance(request, ScheduledEvent):
            return {"status": "warm", "cold_start": first}
        with SUBSEGMENT("generate"):
            if isinstance(request, BatchEvent):
                return _batch(request, context)
            if isinstance(request, MapEvent):
                return _map(request, context)
            return _direct(request, context) if isinstance(request, DirectEvent) else _http(request, context, first)
    except Exception as error:
        failure = _failure(error, context)
    if isinstance(request, HttpEvent):
        return _shaped(error_response(failure, request.request.path), request, context)
    raise failure.with_traceback(None)


def _direct(event: DirectEvent, context: Any) -> Mapping[str, Any] | StreamedAnswer:
    """The body of a completion or a chat completion for the body of its request, or the events of a stream."""
    request = _parse(event.body)
    prepared = SERVICE.prepare(request)
    if request.stream:
        stream = event_stream(SERVICE, prepared, _deadline(context))
        return StreamedAnswer(STREAM_HEADERS["content-type"], _guarded(stream, event.body, context))
    answer = SERVICE.respond(prepared, _deadline(context))
    _check_size(answer, MAX_RESPONSE_BYTES)
    _log_prompt(event.body, answer)
    return answer


def _batch(event: BatchEvent, context: Any) -> Mapping[str, Any]:
    """The messages that SQS is to deliver again; the answers go to the results queue."""
    from aws import batch  # not before it is needed: it imports boto3

    def prepared(body: str) -> PreparedRequest:
        request = _parse(parse_json(body.encode(errors="surrogatepass"), "The message"))
        if request.stream:
            raise InvalidRequestError("'stream' is not for a batch; its answers go to a queue whole.", param="stream")
        return SERVICE.prepare(request)

    def answer(bodies: list[str]) -> list[dict[str, Any] | Exception]:
        deadline = _deadline(context)
        deadline.limit(deadline.at - batch.SENDING_SECONDS)
        return _told(SERVICE.respond_all([partial(prepared, body) for body in bodies], deadline), context)

    return batch.process(event.event, context, answer, SETTINGS.results_queue_url)


def _map(event: MapEvent, context: Any) -> list[dict[str, Any]]:
    """A result in OpenAI's batch format for each line; those that are no requests fail alone."""
    from api import batch_lines  # not before they are needed: no other caller waits for them
    from aws import map_batch

    deadline = _deadline(context)

    def prepared(line: Any) -> PreparedRequest:
        request = batch_lines.read_line(line)
        if time.monotonic() > deadline.at - ANSWER_SECONDS:
            raise batch_lines.BatchLineError(batch_lines.EXPIRED, "The time of the batch ended before this request.")
        return SERVICE.prepare(request)

    outcomes = SERVICE.respond_all([partial(prepared, line) for line in event.items], deadline)
    return map_batch.results(
        event.items, _told(outcomes, context, unless=batch_lines.BatchLineError), context.aws_request_id
    )


def _told(
    outcomes: list[dict[str, Any] | Exception], context: Any, unless: type[Exception] | tuple[()] = ()
) -> list[dict[str, Any] | Exception]:
    """The outcomes with what a caller is told of each error, which is logged and counted, `unless` it is no failure."""
    return [
        _failure(outcome, context) if isinstance(outcome, Exception) and not isinstance(outcome, unless) else outcome
        for outcome in outcomes
    ]


def _touch() -> None:
    """What first requests import and set up: a completion, a chat and a shape, answered by a service of their own, so
    that nothing is counted or kept.
    """
    service = Service(MODEL)
    shape = {"type": "json_schema", "json_schema": {"name": "touched", "schema": {"type": "object"}}}
    bodies: tuple[dict[str, Any], ...] = (
        {"prompt": "a"},
        {"messages": [{"role": "user", "content": "a"}]},
        {"prompt": "a", "response_format": shape},
    )
    for body in bodies:
        with suppress(ApiError):  # of a model without a chat template, say
            service.respond(service.prepare(_parse({**body, "max_tokens": 2})))


def _restored() -> None:
    """After SnapStart's restore this is a fresh environment: its next invocation is a cold one, its clients are new."""
    global _invoked
    _invoked = False
    SERVICE.mark_cold()
    if KEYS is not None:
        KEYS.refresh()  # those of the snapshot are as old as the version
    if batch := sys.modules.get("aws.batch"):
        batch.client.cache_clear()
    record_restore()


def _http(event: HttpEvent, context: Any, first: bool) -> Mapping[str, Any] | StreamedAnswer:
    """The HTTP response in the shape its front door reads."""
    streams = event.source in SETTINGS.streaming_doors
    if SETTINGS.cors_origins and event.request.method == "OPTIONS":
        from aws.cross_origin import preflight

        return _shaped(preflight(event.request), event, context)
    if SETTINGS.signed_only and not event.signed and event.source in SIGNING_DOORS:
        raise ForbiddenError("This function takes requests that are signed (AWS Signature Version 4) only.")
    if event.fault is not None:
        raise event.fault
    deadline = _deadline(context)
    if event.source in ("rest-api", "http-api") and not streams:
        # The gateway's clock also ran while this environment started for its request.
        waited = MODEL.load_ms["total_ms"] / 1000 if first and _started_on_demand() else 0.0
        deadline.limit(time.monotonic() + SETTINGS.gateway_timeout - waited)
    asked = event.request.body.decode(errors="replace")  # the log may not have the headers: they hold the caller's key
    response = handle_streaming(
        event.request,
        SERVICE,
        max_body_bytes=SETTINGS.max_body_bytes,
        deadline=deadline,
        keys=KEYS,
        page=SETTINGS.page,
        signed_by=event.signed_by.encode("utf-8", "surrogatepass") if event.signed_by else None,
    )
    if isinstance(response, EventStream):
        if streams:
            headers = {**STREAM_HEADERS, **_own_headers(event, context)}
            return shape_stream(200, headers, _guarded(response, asked, context))
        response = response.whole()
    whole = shape_response(response, event.source)
    balanced = event.source in ("alb", "alb-multi")
    _check_size(whole, MAX_STREAM_BYTES if streams else MAX_BALANCED_BYTES if balanced else MAX_RESPONSE_BYTES)
    _log_prompt(asked, whole)
    return _shaped(response, event, context)


def _shaped(response: HttpResponse, event: HttpEvent, context: Any) -> Mapping[str, Any] | StreamedAnswer:
    """A whole response as its front door reads it: one that is set up to stream expects a stream always."""
    response = replace(response, headers={**response.headers, **_own_headers(event, context)})
    if event.source in SETTINGS.streaming_doors:
        return shape_stream(response.status, response.headers, _one(response.body))
    return shape_response(response, event.source)


def _own_headers(event: HttpEvent, context: Any) -> Mapping[str, str]:
    """What any answer gets: the id that the log has it under, and what pages of other origins need."""
    return {**id_headers(event.request.path, context.aws_request_id), **_for_other_origins(event)}


def _for_other_origins(event: HttpEvent) -> Mapping[str, str]:
    """Headers of an answer for pages of other origins; none where no origin is named or the front door adds its own."""
    if not SETTINGS.cors_origins or event.source in ("http-api", "function-url"):
        return {}
    from aws import cross_origin  # not before it is needed: no other caller waits for it

    return cross_origin.headers_for(event.request, SETTINGS.cors_origins)


def _one(body: bytes) -> Generator[bytes]:
    yield body


def _guarded(stream: EventStream, asked: Any, context: Any) -> Generator[bytes]:
    """The events of `stream` with what a whole answer gets, too: size limit, log, and its error, the last event."""
    size, number, sent = 0, 0, []
    try:
        with closing(stream.events), SUBSEGMENT("stream"):
            for event in stream.events:
                size += len(event)
                if size > MAX_STREAM_BYTES:
                    raise _too_large(MAX_STREAM_BYTES)
                if SETTINGS.log_prompts:
                    sent.append(event)
                yield event
                number += 1
    except Exception as error:
        failure = _failure(error, context)
        yield error_event(failure, stream.prepared, number)
        raise failure.with_traceback(None) from None
    _log_prompt(asked, b"".join(sent).decode())


def _failure(error: Exception, context: Any) -> ApiError:
    """What the caller is told of `error`, once it is logged and counted."""
    if isinstance(error, ApiError):
        failure = error
    else:
        logger.exception("unexpected error", exc_info=error)
        failure = InternalError.logged_under(context.aws_request_id)
    record_error(failure)
    return failure


def _parse(body: Any) -> ChatRequest | CompletionRequest:
    if isinstance(body, dict) and "messages" in body:
        return validate(ChatRequest, body)
    return validate(CompletionRequest, body)


def _check_size(answer: Mapping[str, Any], limit: int) -> None:
    if len(json.dumps(answer)) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"The answer is over the {limit // 1_000_000} MB that can be sent here; "
        "ask for fewer tokens, choices or logprobs."
    )


def _log_prompt(asked: Any, answer: Any) -> None:
    if SETTINGS.log_prompts:
        logger.info("prompt and completion", request=asked, response=answer)


def _deadline(context: Any) -> Deadline:
    """The instant at which Lambda ends this invocation."""
    return Deadline(time.monotonic() + float(context.get_remaining_time_in_millis()) / 1000)


def _started_on_demand() -> bool:
    return os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand") == "on-demand"


snapstart.register(_touch, _restored)
