"""What is asked for, and texts of it that masks are timed along."""

from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "maxLength": 12},
        "sentiment": {"enum": ["positive", "negative", "neutral"]},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "product_returned": {"type": "boolean"},
        "topics": {
            "type": "array",
            "items": {"enum": ["delivery", "price", "quality", "support"]},
            "minItems": 2,
            "maxItems": 2,
        },
        "reply_needed_by": {"type": "string", "format": "date"},
    },
    "required": ["customer", "sentiment", "stars", "product_returned", "topics", "reply_needed_by"],
    "additionalProperties": False,
}
"""A review's facts: the length of its answers is about the same whatever a network says."""
DOCUMENT = (
    '{"customer": "Ann Miller", "sentiment": "negative", "stars": 2, "product_returned": true, '
    '"topics": ["delivery", "support"], "reply_needed_by": "2026-11-30"}'
)
LETTER: dict[str, Any] = {
    "type": "object",
    "properties": {"subject": {"type": "string", "maxLength": 40}, "body": {"type": "string", "maxLength": 400}},
    "required": ["subject", "body"],
    "additionalProperties": False,
}
"""Mostly text of bounded length, whose masks cost the most."""
WRITTEN_LETTER = (
    '{"subject": "Your order of the 12th of November", "body": "Dear Ann, we are sorry to hear that your parcel came '
    "late and that the lid was broken. A new one is on its way, and you can keep the old one. Please tell us whether "
    'it has come by Monday; until then you pay nothing. Kind regards, the team."}'
)
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "answer_review", "description": "Files an answer to a review.", "parameters": SCHEMA},
}
PROSE = (
    "I have read the review, and I would answer it today: the customer writes that the parcel came late, but also "
    "that the price was fair (3 < 5 stars). Shall I file it?\nIf so, tell me until when an answer is needed, and "
    'whether the "product" was returned.'
)
"""What is said where a call is possible and none comes."""
TEMPLATE = "{# tools, <tool_call> #}{% for message in messages %}{{ message.content }}\n{% endfor %}"
"""A chat template whose calls are Hermes'. It leaves the tools out: prompts are as long with them as without."""
