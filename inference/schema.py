"""The OpenAI-compatible requests: one definition for both entry points.

Validated strictly and refusing what it does not know, so that no parameter is ever silently ignored; `null` means not
given. Every fault becomes one sentence. Knows nothing of models: what depends on one is checked in `service.py`.
"""

import difflib
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from inference.errors import InvalidRequestError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SHOWN_INPUT = 40
"""Characters of an offending value that an error message repeats."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _null_means_not_given(cls, value: Any) -> Any:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class StreamOptions(_Strict):
    include_usage: bool = False


class _Sampling(_Strict):
    """What both kinds of request can say about how to generate."""

    model: str | None = Field(None, description="The served model's id; its only one when left out.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = Field(None, description="0 keeps every token.")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)] = {}
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] = []
    n: Annotated[int, Field(ge=1, le=16)] = 1
    min_tokens: Annotated[int, Field(ge=0)] = 0
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None


class CompletionRequest(_Sampling):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(None, description="16 when left out.")
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None


class ResponseFormat(_Strict):
    type: Literal["text"]


class ChatRequest(_Sampling):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="What the context leaves, by default.")
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    response_format: ResponseFormat | None = None


Request = TypeVar("Request", bound=_Sampling)

SHAPES = {
    "prompt": "a string, a list of strings, a list of token ids or a list of lists of token ids",
    "stop": "a string or a list of up to four strings",
    "content": "a string or a list of text parts",
}
"""What to say where a value fits none of several shapes."""
PRIVATE = ("prompt", "messages")
"""Fields whose values no message repeats: the runtime client logs the message of a direct invocation's error."""


def parse_json(body: bytes) -> Any:
    """A JSON value. InvalidRequestError for anything that is not strictly JSON in UTF-8."""
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_no_such_number)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"The body is not valid UTF-8 (byte {error.start}); send JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"The body is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise InvalidRequestError("The body is nested too deeply.") from None
    except ValueError:
        raise InvalidRequestError("The body holds a number too long to read.") from None


def _no_such_number(name: str) -> NoReturn:
    raise InvalidRequestError(f"The body is not valid JSON: {name} is not a JSON number.")


def validate(kind: type[Request], body: Any) -> Request:
    """The request, or an InvalidRequestError with one sentence about its first fault."""
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
    path = _path(fault["loc"])
    raise InvalidRequestError(_sentence(kind, fault, path), param=path or None)


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content` for a pydantic location, which also names the shapes that were tried."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step != "str" and not step.startswith("list["):
            path += f".{step}" if path else step
    return path


def _sentence(kind: type[BaseModel], fault: "ErrorDetails", path: str) -> str:
    if fault["type"] == "missing":
        return f"'{path}' is required."
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path, kind.model_fields, n=1)
        advice = f"did you mean '{close[0]}'?" if close else "leave it out."
        return f"'{path}' is not a parameter this server supports; {advice}"
    if fault["type"] == "model_type":
        return f"'{path}' must be an object."
    for field, shape in SHAPES.items():
        if field in fault["loc"][:-1]:
            return f"'{path}' must be {shape}."
    value = fault["input"]
    private = path.startswith(PRIVATE) and not path.endswith(".role")
    shown = f", not {str(value)[:SHOWN_INPUT]!r}" if isinstance(value, (str, int, float)) and not private else ""
    return f"'{path}': {fault['msg'][0].lower()}{fault['msg'][1:]}{shown}."
