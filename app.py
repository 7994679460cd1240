"""FastAPI entry point: the service of the Lambda handler behind a server of its own. `uvicorn app:app`, `make serve`.

The model is loaded in the lifespan hook, once per worker process, before the socket listens. Bodies are read and
answered by `api/routes.py`, as in Lambda; what a server needs beyond that is in `server/`.
"""

# isort: split
from startup import process_clock  # noqa: F401  first, because it reads how old the process is

# isort: split
import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.exceptions import HTTPException

from api.anthropic_object import MessageError, MessageEvent, MessageObject
from api.errors import ApiError, MethodNotAllowedError
from api.response_object import ResponseEvent, ResponseObject
from api.response_types import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    Detokenized,
    Health,
    ModelList,
    ModelObject,
    Readiness,
    RenderedPrompt,
    Tokenized,
)
from api.routes import (
    HttpRequest,
    HttpResponse,
    authorization,
    check_key,
    check_route,
    error_response,
    handle,
    page_response,
)
from aws.secrets import make_keys
from model_loader import get_model
from server.access_log import OTHER_ROUTES, hide_what_callers_wrote
from server.answers import GeneratedAnswer, answer_text
from server.bodies import read_body
from server.browsers import check_caller
from server.cross_origin import CrossOrigin
from server.documentation import answered, document, error_responses, streamed
from server.front import Front
from server.serving import DrainingError, Serving
from settings import Settings
from startup.read_ahead import read_ahead

logger = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load, serve, let go. A LoadError ends the process."""
    settings = Settings.from_env()
    read_ahead(settings.model_dir)
    keys = make_keys(settings)
    # In a thread that ends: the compute threads which belong to it end with it.
    with ThreadPoolExecutor(1) as loader:
        model = await asyncio.get_running_loop().run_in_executor(loader, get_model, settings)
    app.state.model = model
    app.state.serving = serving = Serving(model, settings, keys)
    logger.info("Loaded %s in %.0f ms: %s", model.name, model.load_ms["total_ms"], dict(model.load_ms))
    with serving.drained_at_sigterm():
        yield
    serving.engine_thread.close()


class Anything(PathConvertor):
    """A path parameter that may hold whatever a client sends: Starlette's own `path` stops at a line break."""

    regex = "(?s:.+)"


register_url_convertor("anything", Anything())


async def get_serving(request: Request) -> Serving:
    """The process's model and what serves it. Tests override this dependency.

    Asynchronous, or each request would wait for a thread of a pool.
    """
    serving: Serving = request.app.state.serving
    return serving


Served = Annotated[Serving, Depends(get_serving)]
bearer = HTTPBearer(auto_error=False, description="Needed where the server has API keys.")


async def admit(request: Request, serving: Served, _: Annotated[Any, Security(bearer)]) -> None:
    """All but /health: not while draining; with a valid key where keys are set up, else from no foreign page."""
    if serving.draining:
        raise DrainingError
    if serving.keys is None:
        check_caller(request.headers, serving.settings.allowed_hosts, serving.settings.cors_origins)
    request.state.caller = check_key(request.scope["path"], authorization(request.headers), serving.keys)


async def body_of(request: Request, serving: Served) -> bytes:
    """The request's body as it came."""
    return await read_body(request, max_bytes=serving.settings.max_body_bytes, seconds=serving.settings.body_timeout)


Body = Annotated[bytes, Depends(body_of)]
GENERATION_STATUSES = (400, 401, 403, 404, 405, 413, 415, 429, 500, 503)
GENERATION_ERRORS = error_responses(*GENERATION_STATUSES)
MESSAGE_ERRORS = error_responses(*GENERATION_STATUSES, kind=MessageError)
READ_ERRORS = error_responses(400, 401, 403, 405, 500, 503)
guarded = APIRouter(dependencies=[Depends(admit)])


@guarded.post(
    "/v1/completions",
    responses={**streamed(Completion, Completion), **GENERATION_ERRORS},
)
async def create_completion(request: Request, serving: Served, body: Body) -> Response:
    """Continue one prompt or several."""
    return GeneratedAnswer(serving, "/v1/completions", body, request.state.request_id, request.state.caller)


@guarded.post(
    "/v1/chat/completions",
    responses={**streamed(ChatCompletion, ChatCompletionChunk), **GENERATION_ERRORS},
)
async def create_chat_completion(request: Request, serving: Served, body: Body) -> Response:
    """The assistant's next turn."""
    return GeneratedAnswer(serving, "/v1/chat/completions", body, request.state.request_id, request.state.caller)


@guarded.post(
    "/v1/responses",
    responses={**streamed(ResponseObject, ResponseEvent), **GENERATION_ERRORS},
)
async def create_response(request: Request, serving: Served, body: Body) -> Response:
    """OpenAI's Responses API, without storage."""
    return GeneratedAnswer(serving, "/v1/responses", body, request.state.request_id, request.state.caller)


@guarded.post(
    "/v1/messages",
    responses={**streamed(MessageObject, MessageEvent, MessageError), **MESSAGE_ERRORS},
)
async def create_message(request: Request, serving: Served, body: Body) -> Response:
    """Anthropic's Messages API."""
    return GeneratedAnswer(serving, "/v1/messages", body, request.state.request_id, request.state.caller)


@guarded.post("/tokenize", responses={**answered(Tokenized), **GENERATION_ERRORS})
async def tokenize(request: Request, serving: Served, body: Body) -> Response:
    """The token ids of a text, or of the prompt that a chat's messages make."""
    return _response(await answer_text(serving, request.scope["path"], body))


@guarded.post("/detokenize", responses={**answered(Detokenized), **GENERATION_ERRORS})
async def detokenize(request: Request, serving: Served, body: Body) -> Response:
    """The text of token ids."""
    return _response(await answer_text(serving, request.scope["path"], body))


@guarded.post("/apply-template", responses={**answered(RenderedPrompt), **GENERATION_ERRORS})
async def apply_template(request: Request, serving: Served, body: Body) -> Response:
    """The prompt that a chat's messages make."""
    return _response(await answer_text(serving, request.scope["path"], body))


@guarded.get("/v1/models", responses={**answered(ModelList), **READ_ERRORS})
async def list_models(request: Request, serving: Served) -> Response:
    """The one model that is served."""
    return _read(request, serving)


@guarded.get(
    "/v1/models/{model_id:anything}",
    responses={**answered(ModelObject), **READ_ERRORS, **error_responses(404)},
)
async def retrieve_model(request: Request, serving: Served, model_id: str) -> Response:
    """The served model, by its id."""
    return _read(request, serving)


@guarded.get("/ready", responses={**answered(Readiness), **READ_ERRORS})
async def ready(request: Request, serving: Served) -> Response:
    """Loaded and serving: what, and how long each phase of the load took."""
    return _read(request, serving)


@guarded.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **READ_ERRORS})
async def metrics(serving: Served) -> Response:
    """For Prometheus."""
    return Response(serving.metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})


async def health(request: Request, serving: Served) -> Response:
    """Alive."""
    return _read(request, serving)


async def page(request: Request, serving: Served) -> Response:
    """For browsers."""
    if not serving.settings.page:
        check_route("GET", request.scope["path"])
    return _response(page_response())


def _read(request: Request, serving: Serving) -> Response:
    path = request.scope["path"]
    asked = HttpRequest("GET", path, dict(request.headers), b"")
    settings = serving.settings
    return _response(
        handle(asked, serving.service, max_body_bytes=settings.max_body_bytes, deadline=None, keys=serving.keys)
    )


def _response(response: HttpResponse) -> Response:
    return Response(response.body, response.status, dict(response.headers))


async def refused(request: Request, error: Exception) -> Response:
    """An ApiError's response."""
    assert isinstance(error, ApiError)
    return _response(error_response(error, request.scope["path"]))


async def unrouted(request: Request, error: Exception) -> Response:
    """What the router found no endpoint for, in the API's words."""
    assert isinstance(error, HTTPException)
    path, method = request.scope["path"], request.method
    try:
        if error.status_code == 405 and path in OTHER_ROUTES:
            raise MethodNotAllowedError(f"{path} takes GET, not {method[:20]}.", allow="GET")
        check_route(method, path)
    except ApiError as known:
        return await refused(request, known)
    raise error


def create_app() -> FastAPI:
    """The application; its model comes with the lifespan."""
    app = FastAPI(
        title="Causal LM",
        version="1",
        description="A Hugging Face causal language model behind OpenAI's API.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    hide_what_callers_wrote()
    app.add_middleware(Front)
    app.add_middleware(CrossOrigin)
    app.add_exception_handler(ApiError, refused)
    app.add_exception_handler(HTTPException, unrouted)
    app.get("/health", responses=answered(Health))(health)
    app.head("/health", include_in_schema=False)(health)
    app.get("/", include_in_schema=False)(page)
    app.include_router(guarded)
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    return app


app = create_app()
