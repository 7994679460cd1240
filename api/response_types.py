"""The OpenAI-compatible responses as types: what both entry points send, and what their documentation describes.

Typed dictionaries, so that building one costs no more than a dict. `timings`, `cut_by_deadline` and
`max_tokens_cut_to` are this project's extensions; OpenAI's clients pass them through.
"""

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict


class ErrorDetail(TypedDict):
    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """Every answer that is not a success, and the last event of a stream that failed."""

    error: ErrorDetail


class Health(TypedDict):
    status: Literal["ok"]


class BakedPrompt(TypedDict):
    """A prompt that was read when the model was compiled: a request that begins with all of it need not wait for it."""

    tokens: int
    characters: int
    begins: str
    ends: str


class Readiness(TypedDict):
    """What is loaded; `load` holds milliseconds by phase, one after the other, and their total."""

    status: Literal["ready"]
    model: str
    revision: str
    engine: str
    dtype: str
    device: str
    context_length: int
    baked_prompts: list[BakedPrompt]
    load: Mapping[str, float]


class ModelObject(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[ModelObject]


class Tokenized(TypedDict):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(TypedDict):
    """The text by vLLM's name and by llama.cpp's."""

    prompt: str
    content: str


class RenderedPrompt(TypedDict):
    prompt: str


class PromptTokensDetails(TypedDict):
    cached_tokens: int


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: int
    accepted_prediction_tokens: int
    """Tokens of drafts that came, predicted by the caller or looked up in the prompt and the answer itself."""
    rejected_prediction_tokens: int
    """The others; unlike OpenAI's they are not in `completion_tokens`."""


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class Timings(TypedDict):
    """Milliseconds. The same names as in the log, the metrics and the Server-Timing header."""

    cold_start: bool
    queue_ms: float
    prefill_ms: float
    decode_ms: float
    total_ms: float
    time_to_first_token_ms: float | None
    tokens_per_second: float | None
    cached_tokens: int
    """Of the prompts: found read."""
    init: NotRequired[Mapping[str, float]]


class CompletionLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(TypedDict):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None
    cut_by_deadline: NotRequired[bool]


class Completion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    max_tokens_cut_to: NotRequired[int]
    choices: list[CompletionChoice]
    usage: NotRequired[Usage | None]
    timings: NotRequired[Timings]


class TopLogprob(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    content: list[TokenLogprob]
    refusal: None


class FunctionCall(TypedDict):
    name: str
    arguments: str
    """A JSON object; only its beginning where the answer was cut there."""


class MessageToolCall(TypedDict):
    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[MessageToolCall]]
    function_call: NotRequired[FunctionCall]


ChatFinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class ChatChoice(TypedDict):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason
    cut_by_deadline: NotRequired[bool]


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    max_tokens_cut_to: NotRequired[int]
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings


class FunctionCallDelta(TypedDict, total=False):
    name: str
    arguments: str


class ToolCallDelta(TypedDict):
    """The first one of a call has its id and name, the later ones more of its arguments."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: FunctionCallDelta


class Delta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str
    tool_calls: list[ToolCallDelta]
    function_call: FunctionCallDelta


class ChatChunkChoice(TypedDict):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None
    cut_by_deadline: NotRequired[bool]


class ChatCompletionChunk(TypedDict):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    max_tokens_cut_to: NotRequired[int]
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage | None]
    timings: NotRequired[Timings]
