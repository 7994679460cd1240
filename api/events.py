"""An answer is a sequence of events: what became final of its choices, and how it ended."""

from msgspec import Struct

from api.response_types import Timings, Usage
from generation.sequence import Piece


class Part(Struct, frozen=True):
    """More of one choice."""

    index: int
    piece: Piece


class Finished(Struct, frozen=True):
    """The last event of an answer that is complete."""

    usage: Usage
    timings: Timings


class Failed(Struct, frozen=True):
    """The last event of an answer that is not: an ApiError, or what nobody foresaw."""

    error: Exception


Event = Part | Finished | Failed
