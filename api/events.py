"""An answer is a sequence of events: what became final of its choices, and how it ended.

A part says what its text is: content, reasoning, or a tool call. Every API's answers are made from that.
"""

from msgspec import Struct

from api.response_types import Timings, Usage
from generation.sequence import Piece


class Content(Struct, frozen=True):
    """More of what the answer says."""

    text: str


class Reasoning(Struct, frozen=True):
    """More of what was thought before the answer."""

    text: str


class CallBegun(Struct, frozen=True):
    """A tool is called. Its arguments follow, before the next call begins."""

    number: int
    """0 for a choice's first call."""
    id: str
    name: str


class CallArguments(Struct, frozen=True):
    """More of the JSON object that is a call's arguments."""

    number: int
    text: str


Said = Content | Reasoning | CallBegun | CallArguments


class Part(Struct, frozen=True):
    """More of one choice."""

    index: int
    piece: Piece
    said: tuple[Said, ...]
    """What the text is, in its order. Text that may turn out to be something else comes with a later part."""
    calls: int
    """Tool calls that the choice has begun so far."""
    cached_tokens: int
    """Tokens of its prompt that were found read, so far."""


class Finished(Struct, frozen=True):
    """The last event of an answer that is complete."""

    usage: Usage
    timings: Timings


class Failed(Struct, frozen=True):
    """The last event of an answer that is not: an ApiError, or what nobody foresaw."""

    error: Exception


Event = Part | Finished | Failed
