"""What every client is asked for and what it has to get, as the model of `checkpoint.py` answers it."""

from typing import Literal

from pydantic import BaseModel

MODEL = "served"
KEY = "none"
QUESTION = "What does the fox do?"
ANSWER = "the quick brown fox"
"""To any question."""
ANSWER_AFTER_TOOL = "dog runs into the river"
"""When the last message is the result of a tool."""
WEATHER = "sunny"


class Review(BaseModel):
    """A review of a story."""

    sentiment: Literal["positive", "negative"]
    stars: int


def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """Get the weather of a city.

    Args:
        city: The city's name.
    """
    assert city in ("Paris", "Rome"), city
    return WEATHER


def same(found: object, expected: object) -> None:
    """AssertionError where the two differ."""
    assert found == expected, f"{found!r} instead of {expected!r}"
