"""The answers of OpenAI's Responses API as types, beside those in `response_types.py`."""

from typing import Any, Literal, NotRequired, TypedDict

from api.response_types import Timings, TokenLogprob

Status = Literal["in_progress", "completed", "incomplete"]


class OutputPart(TypedDict):
    """A text, with its tokens where they were asked for, or what was thought before one."""

    type: Literal["output_text", "reasoning_text"]
    text: str
    annotations: NotRequired[list[Any]]
    logprobs: NotRequired[list[TokenLogprob]]


class OutputItem(TypedDict):
    """A message, a call of a function, or what was thought before them."""

    id: str
    type: Literal["message", "function_call", "reasoning"]
    status: Status
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[list[OutputPart]]
    summary: NotRequired[list[Any]]
    call_id: NotRequired[str]
    name: NotRequired[str]
    arguments: NotRequired[str]


class InputTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    reasoning_tokens: int


class ResponseUsage(TypedDict):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens"]


class ResponseObject(TypedDict):
    """What was asked for is repeated in it, as OpenAI does; nothing of it is stored."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    incomplete_details: IncompleteDetails | None
    error: None
    model: str
    output: list[OutputItem]
    usage: ResponseUsage | None
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, Any]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, Any]
    service_tier: Literal["default"]
    store: Literal[False]
    temperature: float
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    max_tokens_cut_to: NotRequired[int]
    cut_by_deadline: NotRequired[bool]
    timings: NotRequired[Timings]


class ResponseEvent(TypedDict):
    """One event of a streamed response; which fields it has depends on its type, as in OpenAI's reference."""

    type: str
    sequence_number: NotRequired[int]
    """Always there in what is sent."""
    response: NotRequired[ResponseObject]
    output_index: NotRequired[int]
    content_index: NotRequired[int]
    item: NotRequired[OutputItem]
    item_id: NotRequired[str]
    part: NotRequired[OutputPart]
    delta: NotRequired[str]
    text: NotRequired[str]
    logprobs: NotRequired[list[TokenLogprob]]
    name: NotRequired[str]
    arguments: NotRequired[str]
