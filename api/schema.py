"""The OpenAI-compatible requests: one definition for both entry points.

Validated strictly and refusing what it does not know, so that no parameter is silently ignored; `null` means not given.
What changes nothing for one small model is accepted, and listed in docs/server.md. Every fault becomes one sentence.
What depends on the model is checked in `preparation.py`.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Meta, Struct, ValidationError, convert, inspect

from api.errors import InvalidRequestError
from generation.drafting import MOST_DRAFTED

MAX_STOPS = 16
"""Most stop strings of a request. OpenAI takes four; evaluation harnesses send more."""
MAX_TOOLS = 128
"""Most tools of a request, as OpenAI takes."""
SHOWN_INPUT = 40
"""Characters of an offending value that an error message repeats."""


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    """An object of a request."""

    inner: ClassVar[Mapping[str, "type[Strict]"]] = {}
    """The fields that hold an object, or a list of them, of another kind than OBJECTS and LISTS say."""
    shapes: ClassVar[Mapping[str, str]] = {}
    """What a request has other words for than SHAPES."""


_Label = Annotated[str, Meta(max_length=256)]
"""A caller's own name for something."""


_DRAFTS = "Most tokens that are guessed at a time and tried in one pass; 0 guesses none. The text is the same."
_KEEPS_APART = "Only requests with the same one use what one of them has read."


class StreamOptions(Strict, frozen=True):
    include_usage: bool = False
    include_obfuscation: bool = False
    """Without effect, as everything that is marked so below."""


class JsonSchemaFormat(Strict, frozen=True):
    name: _Label
    schema: dict[str, Any]
    description: str | None = None
    strict: bool = False
    """Without effect: a schema is always followed."""


class ResponseFormat(Strict, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(Strict, frozen=True):
    """What vLLM has beyond OpenAI's response formats; one of them."""

    json: dict[str, Any] | None = None
    json_object: bool = False
    regex: Annotated[str, Meta(description="Rust's syntax, for the whole text.")] | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    grammar: Annotated[str, Meta(description="A Lark grammar, whose first rule is `start`.")] | None = None


class TextPart(Strict, frozen=True):
    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] = {}
    """Without effect."""


class Prediction(Strict, frozen=True):
    """What the caller expects the answer to be."""

    type: Literal["content"]
    content: str | list[TextPart]


class _Sampling(Strict, frozen=True, kw_only=True):
    """What both kinds of request can say about how to generate."""

    model: Annotated[str, Meta(description="The served model's id; its only one when left out.")] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1, description="0 keeps the likeliest token only.")] | None = None
    top_k: Annotated[int, Meta(ge=-1, description="0 and -1 keep every token.")] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] = {}
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=MAX_STOPS)] = []
    n: Annotated[int, Meta(ge=1, le=16)] = 1
    min_tokens: Annotated[int, Meta(ge=0)] = 0
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    prompt_cache_key: Annotated[_Label, Meta(description=_KEEPS_APART)] | None = None
    cache_salt: Annotated[_Label, Meta(description=_KEEPS_APART)] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    prediction: Prediction | None = None
    prompt_lookup_num_tokens: Annotated[int, Meta(ge=0, le=MOST_DRAFTED, description=_DRAFTS)] | None = None
    # Without effect:
    best_of: Literal[1] = 1
    metadata: dict[str, Any] = {}
    safety_identifier: _Label | None = None
    service_tier: _Label | None = None
    store: bool = False
    user: str | None = None


_OF_ONE_KIND = {"anyOf": [{"items": {"type": kind}} for kind in ("string", "integer", "array")]}
"""For the server's documentation; `__post_init__` sees to it."""


class CompletionRequest(_Sampling, frozen=True, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(extra_json_schema=_OF_ONE_KIND)]
    max_tokens: Annotated[int, Meta(ge=0, description="16 when left out.")] | None = None
    echo: bool = False
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None

    def __post_init__(self) -> None:
        # msgspec takes only one kind of list in a union, so that the three are one above.
        if isinstance(self.prompt, list) and len(set(map(type, self.prompt))) > 1:
            raise _must_be(SHAPES["prompt"], "prompt")


class CalledFunction(Strict, frozen=True):
    name: str
    arguments: Annotated[str | dict[str, Any], Meta(description="A JSON object, as a string or as itself.")] = ""
    parsed_arguments: Any = None
    """Without effect: the `openai` package's `parse` adds it."""


class ToolCall(Strict, frozen=True):
    """A call in an earlier answer."""

    inner: ClassVar = {"function": CalledFunction}
    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"
    index: int = 0
    """Without effect: calls that were put together from a stream have it."""


class Message(Strict, frozen=True):
    """`messages.py` sees to what each role needs."""

    inner: ClassVar = {"function_call": CalledFunction}
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    # Of answers that clients send back, without effect:
    annotations: list[Any] = []
    audio: dict[str, Any] = {}
    parsed: Any = None
    provider_specific_fields: dict[str, Any] = {}
    refusal: str | None = None


_ToolName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_.-]{1,128}$")]


class Function(Strict, frozen=True):
    name: _ToolName
    description: str | None = None
    parameters: Annotated[dict[str, Any], Meta(description="A JSON schema; none when left out.")] | None = None
    strict: Annotated[bool, Meta(description="Refuse a schema of which anything cannot be followed.")] = False


class Tool(Strict, frozen=True):
    inner: ClassVar = {"function": Function}
    type: Literal["function"]
    function: Function
    cache_control: dict[str, Any] = {}
    """Without effect."""


class NamedFunction(Strict, frozen=True):
    name: str


class NamedTool(Strict, frozen=True):
    inner: ClassVar = {"function": NamedFunction}
    type: Literal["function"]
    function: NamedFunction


class ChatRequest(_Sampling, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    inner: ClassVar = {"function_call": NamedFunction}
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, description="What the context leaves, by default.")] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] = 0
    reasoning_effort: _Label | None = None
    chat_template_kwargs: dict[str, str | bool | int | float] = {}
    add_generation_prompt: Annotated[bool, Meta(description="As `continue_final_message` is not.")] | None = None
    continue_final_message: bool = False
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] = []
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    functions: Annotated[list[Function], Meta(max_length=MAX_TOOLS, description="The older name of `tools`.")] = []
    function_call: Literal["none", "auto"] | NamedFunction = "auto"
    # Without effect:
    modalities: list[Literal["text"]] = []
    verbosity: _Label | None = None


Request = TypeVar("Request", bound=Strict)

OBJECTS: dict[str, type[Strict]] = {
    "stream_options": StreamOptions,
    "response_format": ResponseFormat,
    "json_schema": JsonSchemaFormat,
    "structured_outputs": StructuredOutputs,
    "prediction": Prediction,
    "tool_choice": NamedTool,
}
"""The fields that hold an object, and of which kind."""
LISTS: dict[str, type[Strict]] = {
    "messages": Message,
    "content": TextPart,
    "functions": Function,
    "tool_calls": ToolCall,
    "tools": Tool,
}
"""The fields that hold a list of objects."""
SHAPES = {
    "prompt": "a string, a list of strings, a list of token ids or a list of lists of token ids",
    "stop": f"a string or a list of up to {MAX_STOPS} strings",
    "content": "a string or a list of text parts",
    "logit_bias": "an object of up to 1024 token ids, each with a number between -100 and 100",
    "chat_template_kwargs": "an object of strings, numbers, true and false",
    "modalities": "a list of nothing but 'text'",
    "annotations": "a list",
    "arguments": "a JSON object, as a string or as itself",
    "tool_choice": "'none', 'auto', 'required' or an object that names a function",
    "choice": "a list of at least one string",
    "tokens": "a list of token ids",
}
"""What to say of fields, whatever is wrong within them, that are more than one value."""
_Field = tuple[type[Strict], str, str]
"""A field's owner, name and path."""
PRIVATE = (
    *("prompt", "messages", "cache_salt", "content", "tokens", "prediction", "tools", "functions"),
    *("input", "instructions", "system"),
)
"""Fields whose values no message repeats: the runtime client logs the message of a direct invocation's error."""


def parse_json(body: bytes, name: str = "The body") -> Any:
    """A JSON value. InvalidRequestError for anything that is not strictly JSON in UTF-8; `name` begins its sentence."""

    def no_such_number(constant: str) -> NoReturn:
        raise InvalidRequestError(f"{name} is not valid JSON: {constant} is not a JSON number.")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=no_such_number)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{name} is not valid UTF-8 (byte {error.start}); send JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"{name} is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise InvalidRequestError(f"{name} is nested too deeply.") from None
    except ValueError:
        raise InvalidRequestError(f"{name} holds a number too long to read.") from None


def validate(kind: type[Request], body: Any) -> Request:
    """The request, or an InvalidRequestError with one sentence about its first fault."""
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    _check_text(body)
    unknown: list[_Field] = []
    given = _given(kind, body, "", unknown)
    try:
        request = convert(given, kind)
    except ValidationError as error:
        raise _refusal(kind, given, str(error)) from None
    if unknown:
        raise _not_a_parameter(*unknown[0])
    return request


def _check_text(body: dict[str, Any]) -> None:
    """InvalidRequestError where a name or a string, however deep, is no text: then no answer or log could repeat it."""
    try:
        try:
            msgspec.json.encode(body)
        except OverflowError:  # an integer of more than 64 bits
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("The body holds half of a surrogate pair; send valid Unicode.") from None
    except RecursionError:
        raise InvalidRequestError("The body is nested too deeply.") from None


def _given(kind: type[Strict], value: Any, prefix: str, unknown: list[_Field]) -> Any:
    """`value` without the nulls of its objects and without what `kind` has no field for, which goes to `unknown`.

    It goes as deep as `kind` does, however deep the body is.
    """
    if not isinstance(value, dict):
        return value
    given = {}
    for name, part in value.items():
        if part is None:
            continue
        path = prefix + name[:SHOWN_INPUT]
        if name not in kind.__struct_fields__:
            unknown.append((kind, name[:SHOWN_INPUT], path))
            continue
        held = kind.inner.get(name) or OBJECTS.get(name) or LISTS.get(name)
        if held is not None and isinstance(part, list):
            part = [_given(held, item, f"{path}[{index}].", unknown) for index, item in enumerate(part)]
        elif held is not None:
            part = _given(held, part, f"{path}.", unknown)
        given[name] = part
    return given


def _not_a_parameter(kind: type[Strict], name: str, path: str) -> InvalidRequestError:
    import difflib  # not before it is needed: no start should wait for it

    close = difflib.get_close_matches(name, kind.__struct_fields__, n=1)
    advice = f"did you mean '{close[0]}'?" if close else "leave it out."
    return InvalidRequestError(
        f"'{path}' is not a parameter this server supports; {advice}",
        param=path,
        code="unknown_parameter",
        unquoted=f"A field of the request is not a parameter this server supports; {advice}",
    )


def _refusal(kind: type[Strict], given: dict[str, Any], fault: str) -> InvalidRequestError:
    """The error for what msgspec found, like "Expected `str`, got `int` - at `$.messages[0].content`"."""
    at = re.search(r" - at `\$\.([^`]*)`$", fault)
    path = at[1] if at else ""
    if missing := re.match(r"Object missing required field `(\w+)`", fault):
        path = f"{path}.{missing[1]}" if path else missing[1]
        return InvalidRequestError(f"'{path}' is required.", param=path)
    steps = re.findall(r"\w+", path)
    for field, shape in {**SHAPES, **kind.shapes}.items():
        if field in steps:
            return _must_be(shape, path[: path.index(field) + len(field)])
    value: Any = given
    wanted: inspect.Type = inspect.type_info(kind)
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
        wanted = _part(wanted, step, value)
    shown = ""
    if isinstance(value, (str, int, float)) and (not path.startswith(PRIVATE) or path.endswith((".role", ".type"))):
        shown = ", not " + (repr(value[:SHOWN_INPUT]) if isinstance(value, str) else json.dumps(value)[:SHOWN_INPUT])
    return _must_be(_words(wanted), path, shown)


def _must_be(wanted: str, path: str, shown: str = "") -> InvalidRequestError:
    """`shown` is what to say of the value that was sent."""
    fault = f"'{path}' must be {wanted}"
    return InvalidRequestError(f"{fault}{shown}.", param=path, unquoted=f"{fault}.")


def _part(whole: "inspect.Type", step: str, value: Any) -> "inspect.Type":
    """The type of an object's field or of a list's items; of several the one that `value` is meant to have."""
    if isinstance(whole, inspect.ListType):
        return whole.item_type
    assert isinstance(whole, inspect.StructType)
    part = next(field.type for field in whole.fields if field.name == step)
    while isinstance(part, (inspect.Metadata, inspect.UnionType)):
        part = part.type if isinstance(part, inspect.Metadata) else _meant(part.types, value)
    return part


def _meant(types: "tuple[inspect.Type, ...]", value: Any) -> "inspect.Type":
    """The first of several types, but for lists and objects the one that has such."""
    bare = [kind.type if isinstance(kind, inspect.Metadata) else kind for kind in types]
    if isinstance(value, list):
        return next((kind for kind in bare if isinstance(kind, inspect.ListType)), bare[0])
    if isinstance(value, dict):
        return next((kind for kind in bare if isinstance(kind, inspect.StructType)), bare[0])
    return bare[0]


def _words(wanted: "inspect.Type") -> str:
    """What a value of a type is called."""
    match wanted:
        case inspect.IntType() | inspect.FloatType():
            number = "an integer" if isinstance(wanted, inspect.IntType) else "a number"
            if wanted.le is None:
                return f"{number} of at least {wanted.ge}"
            low, high = (f"between {wanted.ge}", "and") if wanted.gt is None else (f"above {wanted.gt}", "and at most")
            return f"{number} {low} {high} {wanted.le}"
        case inspect.StrType(max_length=int(most)):
            return f"a string of at most {most} characters"
        case inspect.StrType(pattern=str()):
            return "a name of up to 128 letters, digits, '_', '.' and '-'"
        case inspect.LiteralType(values):
            *others, last = map(repr, values)
            return f"{', '.join(others)} or {last}" if others else last
        case inspect.ListType(min_length=1):
            return "a list of at least one object"
        case inspect.ListType(max_length=int(most)):
            return f"a list of at most {most} objects"
        case inspect.ListType():
            return "a list of objects"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return "a string"
    return "an object"
