"""The answers of Anthropic's Messages API as types, beside those in `response_types.py`."""

from typing import Any, Literal, NotRequired, TypedDict

from api.response_types import Timings

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class ContentBlock(TypedDict):
    """A text, a thought before one, or a call of a tool; which fields it has depends on its type."""

    type: Literal["text", "thinking", "tool_use"]
    text: NotRequired[str]
    thinking: NotRequired[str]
    signature: NotRequired[str]
    id: NotRequired[str]
    name: NotRequired[str]
    input: NotRequired[dict[str, Any]]


class MessageUsage(TypedDict):
    """The prompt's tokens are the sum of the first three."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageObject(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    max_tokens_cut_to: NotRequired[int]
    cut_by_deadline: NotRequired[bool]
    timings: NotRequired[Timings]


class MessageFault(TypedDict):
    type: str
    message: str


class MessageError(TypedDict):
    """Every answer that is not a success, and the last event of a stream that failed."""

    type: Literal["error"]
    error: MessageFault


class MessageEvent(TypedDict):
    """One event of a streamed message; which fields it has depends on its type, as in Anthropic's reference."""

    type: str
    message: NotRequired[MessageObject]
    index: NotRequired[int]
    content_block: NotRequired[ContentBlock]
    delta: NotRequired[dict[str, Any]]
    usage: NotRequired[MessageUsage]
    timings: NotRequired[Timings]
