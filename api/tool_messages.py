"""Tools, calls and results for chat templates that do not take them as they are."""

import json
from typing import Any

from api.call_styles import CallStyle, call_style, knows_tools
from api.tools import Offer
from engines.sha256 import sha256

Messages = list[dict[str, Any]]


def with_tools(messages: Messages, offer: Offer | None, source: str) -> tuple[Messages, list[dict[str, Any]]]:
    """Messages and tools as the template of this source takes them."""
    tools = [] if offer is None else offer.as_objects()
    style = call_style(source)
    if not knows_tools(source):
        return described(messages, tools, style), []
    return (with_short_ids(messages) if style.short_ids else messages), tools


def described(messages: Messages, tools: list[dict[str, Any]], style: CallStyle) -> Messages:
    """For a template that knows nothing of tools: they are told of in a system message, results are the user's."""
    told: Messages = []
    for message in messages:
        if message["role"] == "tool":
            text = f"Result of {message.get('name', 'the function')}: {message['content']}"
            if told and told[-1].get("is_result"):
                told[-1]["content"] += f"\n{text}"
            else:
                told.append({"role": "user", "content": text, "is_result": True})
        elif calls := message.get("tool_calls"):
            written = style.written(
                [(call["function"]["name"], _json(call["function"]["arguments"])) for call in calls]
            )
            text = "\n".join(filter(None, (message["content"], written)))
            told.append({name: value for name, value in message.items() if name != "tool_calls"} | {"content": text})
        else:
            told.append(message)
    told = [{name: value for name, value in message.items() if name != "is_result"} for message in told]
    if not tools:
        return told
    system = _description(tools, style)
    if told[0]["role"] == "system":
        return [{**told[0], "content": f"{told[0]['content']}\n\n{system}"}, *told[1:]]
    return [{"role": "system", "content": system}, *told]


def _description(tools: list[dict[str, Any]], style: CallStyle) -> str:
    functions = "\n".join(_json(tool["function"]) for tool in tools)
    example = style.written([("NAME", '{"ARGUMENT": VALUE}')])
    return (
        f"You can call these functions. Each line describes one, with a JSON schema of its arguments:\n{functions}\n"
        f"To call a function, write nothing but a line like this:\n{example}\n"
        f"You are then given its result. When no function helps, answer in words."
    )


def with_short_ids(messages: Messages) -> Messages:
    """The same messages, with ids of calls that are nine letters and digits."""
    changed = []
    for message in messages:
        if calls := message.get("tool_calls"):
            message = {**message, "tool_calls": [{**call, "id": _short(call["id"])} for call in calls]}
        if call_id := message.get("tool_call_id"):
            message = {**message, "tool_call_id": _short(call_id)}
        changed.append(message)
    return changed


def _short(call_id: str) -> str:
    return sha256(call_id.encode()).hexdigest()[:9]


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
