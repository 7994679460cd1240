"""Method, path and bytes in; status, headers and bytes out. The HTTP API itself, without a transport.

Both entry points answer through this module, so that their bodies are the same bytes.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from api.baked import baked_prompts
from api.body import check_encoding, json_of
from api.errors import ApiError, MethodNotAllowedError, NotFoundError
from api.keys import ApiKeys
from api.model import Model
from api.preparation import PreparedRequest, check_model
from api.response_types import Health, ModelList, ModelObject, Readiness
from api.responses import server_timing
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from generation.deadline import Deadline

if TYPE_CHECKING:
    from api.translated import TranslatedRequest

REQUEST_KINDS: Mapping[str, type[CompletionRequest] | type[ChatRequest]] = {
    "/v1/completions": CompletionRequest,
    "/v1/chat/completions": ChatRequest,
}
RESPONSES_ROUTE = "/v1/responses"
MESSAGES_ROUTE = "/v1/messages"
GENERATING = (*REQUEST_KINDS, RESPONSES_ROUTE, MESSAGES_ROUTE)
TEXT_ROUTES = ("/tokenize", "/detokenize", "/apply-template")
METHODS: Mapping[str, str] = {
    **dict.fromkeys((*GENERATING, *TEXT_ROUTES), "POST"),
    "/v1/models": "GET",
    "/health": "GET",
    "/ready": "GET",
}
MODEL_PREFIX = "/v1/models/"
EMBEDDINGS = "/v1/embeddings"
PAGE = "/"
OPEN_PATHS = ("/health",)
"""What answers without a key."""
STREAM_HEADERS: Mapping[str, str] = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would otherwise hold events back
}


class HttpRequest(Struct, frozen=True):
    """One HTTP request, whatever brought it."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class HttpResponse(Struct, frozen=True):
    """One whole HTTP response."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class EventStream(Struct, frozen=True):
    """A response of server-sent events (status 200, STREAM_HEADERS) that are made while they are read."""

    events: Generator[bytes]
    """Closing it ends the generation."""
    prepared: PreparedRequest
    """What was asked for, which an error is worded by."""

    def whole(self) -> HttpResponse:
        """All of it at once."""
        return HttpResponse(200, b"".join(self.events), STREAM_HEADERS)


def handle(
    request: HttpRequest,
    service: Service,
    *,
    max_body_bytes: int,
    deadline: Deadline | None,
    keys: ApiKeys | None = None,
) -> HttpResponse:
    """Answer one request whole. Raises ApiError, for `error_response`."""
    response = handle_streaming(request, service, max_body_bytes=max_body_bytes, deadline=deadline, keys=keys)
    return response.whole() if isinstance(response, EventStream) else response


def handle_streaming(
    request: HttpRequest,
    service: Service,
    *,
    max_body_bytes: int,
    deadline: Deadline | None,
    keys: ApiKeys | None = None,
    page: bool = False,
    signed_by: bytes | None = None,
) -> HttpResponse | EventStream:
    """As `handle`, but a stream that was asked for comes as one.

    `page` is whether there is one for browsers; `signed_by` tells callers apart where there are no keys.
    """
    if page and (request.method, request.path) == ("GET", PAGE):
        return page_response()
    check_route(request.method, request.path)
    caller = check_key(request.path, authorization(request.headers), keys)
    if METHODS.get(request.path) == "POST":
        check_encoding(request.headers)
    if request.path in GENERATING:
        return _generate(request, service, max_body_bytes, deadline, caller or signed_by)
    if request.path in TEXT_ROUTES:
        return text_response(request.path, request.body, service.model, max_body_bytes)
    return json_response(_read(request.path, service.model))


def canonical_path(path: str) -> str:
    """A path as the routes have it, for one that ends in a slash or comes without `/v1`."""
    path = path.rstrip("/") or "/"
    versioned = f"/v1{path}"
    known = versioned in METHODS or versioned == EMBEDDINGS or versioned.startswith(MODEL_PREFIX)
    return versioned if known else path


def page_response() -> HttpResponse:
    """The page for browsers."""
    from api.page import page  # not before it is needed: no start should wait for it

    body, headers = page()
    return HttpResponse(200, body, headers)


def check_route(method: str, path: str) -> None:
    """NotFoundError for an unknown path, MethodNotAllowedError for a known one with another method."""
    if path == EMBEDDINGS:
        raise NotFoundError(
            "There are no embeddings here: the hidden states of a model that continues text make poor ones; "
            "use a model that was trained for them."
        )
    allowed = METHODS.get(path) or ("GET" if path.startswith(MODEL_PREFIX) else None)
    if allowed is None:
        routes = ", ".join(f"{method} {route}" for route, method in METHODS.items())
        raise NotFoundError(
            f"There is no {path[:100]!r} here; the routes are {routes}.",
            unquoted=f"There is no such path here; the routes are {routes}.",
        )
    if method != allowed:
        raise MethodNotAllowedError(f"{path} takes {allowed}, not {method[:20]}.", allow=allowed)


def authorization(headers: Mapping[str, str]) -> str | None:
    """How a request says who sent it; a key that comes as `x-api-key`, as Anthropic has it, is a bearer's too."""
    key = headers.get("x-api-key")
    return headers.get("authorization") or (None if key is None else f"Bearer {key}")


def check_key(path: str, authorization: str | None, keys: ApiKeys | None) -> bytes | None:
    """Who calls, by the key, None where none is needed: on OPEN_PATHS, or because no keys are set up.

    AuthenticationError without a valid key.
    """
    return None if keys is None or path in OPEN_PATHS else keys.check(authorization)


def parse_request(path: str, body: bytes, max_body_bytes: int) -> "CompletionRequest | ChatRequest | TranslatedRequest":
    """The validated request in a body sent to one of the GENERATING paths."""
    return read_request(path, json_of(body, max_body_bytes))


def read_request(path: str, asked: Any) -> "CompletionRequest | ChatRequest | TranslatedRequest":
    """The validated request of a JSON value sent to one of the GENERATING paths."""
    if path == RESPONSES_ROUTE:
        from api.response_request import parse  # not before it is needed: no start should wait for it

        return parse(asked)
    if path == MESSAGES_ROUTE:
        from api.anthropic_request import MessagesRequest  # the same

        return validate(MessagesRequest, asked)
    return validate(REQUEST_KINDS[path], asked)


def text_response(path: str, body: bytes, model: Model, max_body_bytes: int) -> HttpResponse:
    """The response to a body sent to one of TEXT_ROUTES."""
    from api import texts  # not before it is needed: no start should wait for it

    return json_response(texts.answer(path, json_of(body, max_body_bytes), model))


def json_response(
    answer: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """A JSON response; a generated answer also gets its `Server-Timing` header."""
    timing = {"server-timing": server_timing(answer["timings"])} if "timings" in answer else {}
    return HttpResponse(status, encode(answer), {"content-type": "application/json", **timing, **(headers or {})})


def error_response(error: ApiError, path: str) -> HttpResponse:
    """An error as the clients expect it that ask for `path`: Anthropic's, or OpenAI's."""
    envelope: Mapping[str, Any] = error.envelope()
    if path == MESSAGES_ROUTE:
        from api.anthropic_error import message_error  # not before it is needed: no start should wait for it

        envelope = message_error(error)
    return json_response(envelope, error.status, error.headers)


def id_headers(path: str, request_id: str) -> Mapping[str, str]:
    """What any answer gets: the id that the log has it under, for Anthropic's clients by the name that they read."""
    return {"x-request-id": request_id, **({"request-id": request_id} if path == MESSAGES_ROUTE else {})}


def encode(answer: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8. Half a surrogate pair, of a path or method in a made-up event, becomes a `?`."""
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="replace")


def server_sent_event(data: Mapping[str, Any]) -> bytes:
    """One event of a stream, under its name where it has a type."""
    name = f"event: {data['type']}\n".encode() if "type" in data else b""
    return name + b"data: " + encode(data) + b"\n\n"


def end_of_stream(prepared: PreparedRequest) -> bytes:
    """What follows the last event of a stream: `[DONE]`, and nothing where events have types."""
    return b"" if prepared.translated is not None else b"data: [DONE]\n\n"


def error_event(error: ApiError, prepared: PreparedRequest, number: int) -> bytes:
    """The last event of a stream that failed; no [DONE] follows, because the answer is not complete.

    `number` is its place in the stream.
    """
    asked = prepared.translated
    return server_sent_event(error.envelope() if asked is None else asked.failed(error, number))


def event_stream(service: Service, prepared: PreparedRequest, deadline: Deadline | None) -> EventStream:
    """The answer as events, the last of them [DONE]. What can fail before the first one is there, raises here."""
    events = _events(service, prepared, deadline)
    return EventStream(_after(next(events), events), prepared)


def _events(service: Service, prepared: PreparedRequest, deadline: Deadline | None) -> Generator[bytes]:
    with closing(service.stream(prepared, deadline)) as parts:
        for part in parts:
            yield server_sent_event(part)
    yield end_of_stream(prepared)


def _after(first: bytes, rest: Generator[bytes]) -> Generator[bytes]:
    with closing(rest):
        yield first
        yield from rest


def _generate(
    request: HttpRequest, service: Service, max_body_bytes: int, deadline: Deadline | None, caller: bytes | None
) -> HttpResponse | EventStream:
    parsed = parse_request(request.path, request.body, max_body_bytes)
    prepared = service.prepare(parsed, caller)
    if parsed.stream:
        return event_stream(service, prepared, deadline)
    return json_response(service.respond(prepared, deadline))


def _read(path: str, model: Model) -> Health | Readiness | ModelList | ModelObject:
    """The answers that need no generation."""
    if path == "/health":
        return {"status": "ok"}
    if path == "/ready":
        return readiness(model)
    if path == "/v1/models":
        return {"object": "list", "data": [model_object(model)]}
    check_model(path.removeprefix(MODEL_PREFIX), model)
    return model_object(model)


def readiness(model: Model) -> Readiness:
    """What is loaded, and how long each phase of the load took."""
    return {
        "status": "ready",
        "model": model.name,
        "revision": model.revision,
        "engine": model.engine.name,
        "dtype": model.engine.dtype,
        "device": model.engine.device,
        "context_length": model.engine.context_length,
        "baked_prompts": baked_prompts(model.engine.prefixes, model.tokenizer),
        "load": dict(model.load_ms),
    }


def model_object(model: Model) -> ModelObject:
    """OpenAI's model object, with the context length as other servers add it."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "local",
        "max_model_len": model.engine.context_length,
    }
