"""The OpenAI-compatible requests: one definition for both entry points.

What changes nothing for one small model is accepted, and listed in docs/server.md. `validation.py` makes these of JSON;
what depends on the model is checked in `preparation.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta, Struct

from api.errors import must_be
from generation.drafting import MOST_DRAFTED

MAX_STOPS = 16
"""Most stop strings of a request. OpenAI takes four; evaluation harnesses send more."""
MAX_TOOLS = 128
"""Most tools of a request, as OpenAI takes."""
PROMPT = "a string, a list of strings, a list of token ids or a list of lists of token ids"
"""What a completion's prompt may be."""


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
    prompt_cache_retention: _Label | None = None
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
            raise must_be(PROMPT, "prompt")


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
