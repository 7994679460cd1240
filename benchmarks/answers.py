"""What a function's answer says: the body of an HTTP answer whichever door it left by, and why there is no text."""

import json
from typing import Any

from tools.runtime_api import Answer


def body(answer: Answer) -> str:
    """The HTTP body: what follows a stream's head and its NULs, or what a proxy response holds; else all of it."""
    text = answer.body.decode(errors="replace")
    if answer.streamed:
        return text.rpartition("\0")[2]
    whole = _read(text)
    return str(whole["body"]) if "body" in whole else text


def reason(answer: Answer) -> str:
    """The message of the function's error or of an HTTP error; where there is none, how the body ends."""
    said = body(answer)
    message = (answer.error or {}).get("errorMessage")
    error = _read(said).get("error")
    if message is None and isinstance(error, dict):
        message = error.get("message")
    return str(message or said[-300:] or "it sent nothing")


def _read(text: str) -> dict[str, Any]:
    """A JSON object; an empty one where the text is none."""
    try:
        content = json.loads(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
