"""A chat's messages as chat templates know them."""

import json
from collections.abc import Sequence
from typing import Any

from api.errors import InvalidRequestError
from api.schema import CalledFunction, Message, TextPart, ToolCall

REQUIRED = {"tool": "tool_call_id", "function": "name"}
"""What messages of a role need beside their content."""


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Plain text, `developer` and `function` by their usual names, the arguments of calls as objects.

    InvalidRequestError for a message that lacks what its role needs, or has what is another's.
    """
    plain: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    """Of the functions that were called, by the id of the call."""
    latest: dict[str | None, str] = {}
    """The id of a function's latest call, by its name."""
    for index, message in enumerate(messages):
        _check(message, f"messages[{index}]")
        calls = _calls(message, index)
        for call in calls:
            name = call["function"]["name"]
            names[call["id"]], latest[name] = name, call["id"]
        role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
        call_id = message.tool_call_id
        if message.role == "function":
            call_id = latest.get(message.name, message.name)
        optional = {
            "name": message.name or names.get(call_id or ""),
            "reasoning_content": message.reasoning_content,
            "tool_calls": calls or None,
            "tool_call_id": call_id,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        plain.append({"role": role, "content": plain_text(message.content or ""), **given})
    return plain


def _check(message: Message, path: str) -> None:
    def fault(text: str, name: str) -> InvalidRequestError:
        return InvalidRequestError(f"'{path}.{name}' {text}.", param=f"{path}.{name}")

    if message.role != "assistant":
        if message.content is None:
            raise fault("is required", "content")
        for name in ("tool_calls", "function_call"):
            if getattr(message, name):
                raise fault("belongs to messages of the assistant", name)
    needed = REQUIRED.get(message.role)
    if needed is not None and getattr(message, needed) is None:
        raise fault("is required", needed)


def plain_text(content: str | list[TextPart]) -> str:
    """The text of a content that may come in parts."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _calls(message: Message, index: int) -> list[dict[str, Any]]:
    calls = list(message.tool_calls)
    if message.function_call is not None:
        calls.append(ToolCall(message.function_call, id=f"call_{index}"))
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": _arguments(call.function)},
        }
        for call in calls
    ]


def _arguments(function: CalledFunction) -> Any:
    """As an object; the text itself where it is none, such as a call that was cut."""
    if not isinstance(function.arguments, str):
        return function.arguments
    try:
        return json.loads(function.arguments or "{}")
    except (ValueError, RecursionError):
        return function.arguments
