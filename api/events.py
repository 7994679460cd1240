"""An answer is a sequence of events: what became final of its choices, and how it ended."""

from dataclasses import dataclass

from api.response_types import Timings, Usage
from generation.sequence import Piece


@dataclass(frozen=True, slots=True)
class Part:
    """More of one choice."""

    index: int
    piece: Piece


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of an answer that is complete."""

    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of an answer that is not: an ApiError, or what nobody foresaw."""

    error: Exception


Event = Part | Finished | Failed
