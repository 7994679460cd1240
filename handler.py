"""Lambda entry point: one event in, one response out. Knows event shapes, nothing of models.

The module's globals are the point of the project: importing this file is the cold start, which loads the model once;
every later invocation in the same execution environment finds it here.
"""

from startup import process_clock  # noqa: F401  first, because it reads how old the process is

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
from collections.abc import Mapping
from typing import Any

from api.errors import ApiError, InternalError, InvalidRequestError
from api.routes import error_response, handle
from api.schema import ChatRequest, CompletionRequest, validate
from api.service import Service
from aws import snapstart
from aws.events import BatchEvent, DirectEvent, HttpEvent, ScheduledEvent, parse_event, shape_response
from aws.observability import logger, make_tracer, record_error, record_generation, record_load, record_restore
from aws.secrets import make_keys
from model_loader import get_model

MAX_RESPONSE_BYTES = 6_000_000
"""A little under the 6 MiB that Lambda takes back; past them the runtime client exits and the next call loads again."""

KEYS = make_keys(SETTINGS)
MODEL = get_model(SETTINGS)
SERVICE = Service(MODEL, max_tokens=SETTINGS.max_tokens, max_choices=SETTINGS.max_choices, report=record_generation)
SUBSEGMENT = make_tracer(SETTINGS.tracing)
record_load(MODEL)

_invoked = False


@logger.inject_lambda_context(clear_state=True)
def lambda_handler(event: Any, context: Any) -> Mapping[str, Any]:
    """Answer one event. An HTTP caller gets a response whatever happens; a direct caller's errors are raised."""
    global _invoked
    first, _invoked = not _invoked, True
    request = None
    failure: ApiError
    try:
        request = parse_event(event)
        if isinstance(request, ScheduledEvent):
            return {"status": "warm", "cold_start": first}
        with SUBSEGMENT("generate"):
            if isinstance(request, BatchEvent):
                return _batch(request, context)
            result = _direct(request, context) if isinstance(request, DirectEvent) else _http(request, context, first)
        if len(json.dumps(result)) > MAX_RESPONSE_BYTES:
            raise InvalidRequestError("The answer is over Lambda's 6 MB; ask for fewer tokens, choices or logprobs.")
        if SETTINGS.log_prompts:
            # Of an HTTP event the body only: its headers hold the caller's key.
            sent = request.request.body.decode(errors="replace") if isinstance(request, HttpEvent) else event
            logger.info("prompt and completion", request=sent, response=result)
        return result
    except ApiError as error:
        failure = error
    except Exception:
        logger.exception("unexpected error")
        failure = InternalError.logged_under(context.aws_request_id)
    record_error(failure)
    if isinstance(request, HttpEvent):
        return shape_response(error_response(failure), request.source)
    raise failure.with_traceback(None)


def _direct(event: DirectEvent, context: Any) -> Mapping[str, Any]:
    """The body of a completion or a chat completion, for the body of its request."""
    request = validate(ChatRequest, event.body) if "messages" in event.body else validate(CompletionRequest, event.body)
    if request.stream:
        raise InvalidRequestError("'stream' needs an HTTP request; a direct invocation answers whole.", param="stream")
    return SERVICE.respond(SERVICE.prepare(request), _deadline(context))


def _batch(event: BatchEvent, context: Any) -> Mapping[str, Any]:
    """The messages that SQS is to deliver again; the answers go to the results queue."""
    from aws import batch  # not before it is needed: it imports boto3

    return batch.process(
        event.event, context, lambda body: _direct(DirectEvent(body), context), SETTINGS.results_queue_url
    )


def _restored() -> None:
    """After SnapStart's restore this is a fresh environment: its next invocation is a cold one, its clients are new."""
    global _invoked
    _invoked = False
    SERVICE.mark_cold()
    if batch := sys.modules.get("aws.batch"):
        batch.client.cache_clear()
    record_restore()


def _http(event: HttpEvent, context: Any, first: bool) -> Mapping[str, Any]:
    """The HTTP response in the shape its front door reads."""
    deadline = _deadline(context)
    if event.source in ("rest-api", "http-api"):
        # The gateway's clock also ran while this environment started for its request.
        waited = MODEL.load_ms["total_ms"] / 1000 if first and _started_on_demand() else 0.0
        deadline = min(deadline, time.monotonic() + SETTINGS.gateway_timeout - waited)
    response = handle(event.request, SERVICE, max_body_bytes=SETTINGS.max_body_bytes, deadline=deadline, keys=KEYS)
    return shape_response(response, event.source)


def _deadline(context: Any) -> float:
    """The `time.monotonic()` instant at which Lambda ends this invocation."""
    return time.monotonic() + float(context.get_remaining_time_in_millis()) / 1000


def _started_on_demand() -> bool:
    return os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand") == "on-demand"


snapstart.register(_restored)
