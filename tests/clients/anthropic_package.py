"""Anthropic's own package, before its Messages API."""

from typing import Any

from anthropic import Anthropic, AsyncAnthropic

from tests.clients.checks import run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, KEY, MODEL, QUESTION, Review, get_weather, same

USER: Any = {"role": "user", "content": QUESTION}
ASKED: dict[str, Any] = {"model": MODEL, "max_tokens": 1000, "messages": [USER]}
CITY = {"type": "string", "enum": ["Paris", "Rome"]}
SCHEMA = {"type": "object", "properties": {"city": CITY}, "required": ["city"]}
TOOLS: list[Any] = [{"name": "get_weather", "description": "Get the weather of a city.", "input_schema": SCHEMA}]


def client_of(url: str) -> Anthropic:
    return Anthropic(base_url=url.removesuffix("/v1"), api_key=KEY)


def answer(url: str) -> None:
    message = client_of(url).messages.create(**ASKED, system="Be brief.")
    same([block.text for block in message.content], [ANSWER])
    same(message.stop_reason, "end_turn")
    assert message.usage.output_tokens > 1


def stream(url: str) -> None:
    with client_of(url).messages.stream(**ASKED) as events:
        same("".join(events.text_stream), ANSWER)
        assert events.get_final_message().usage.output_tokens > 1


async def async_stream(url: str) -> None:
    async with (
        AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key=KEY) as client,
        client.messages.stream(**ASKED) as events,
    ):
        same(await events.get_final_text(), ANSWER)


def schema(url: str) -> None:
    assert isinstance(client_of(url).messages.parse(**ASKED, output_format=Review).parsed_output, Review)


def schema_stream(url: str) -> None:
    with client_of(url).messages.stream(**ASKED, output_format=Review) as events:
        assert isinstance(events.get_final_message().parsed_output, Review)


def tools(url: str) -> None:
    client = client_of(url)
    _answer_calls(client, client.messages.create(**ASKED, tools=TOOLS))


def tools_stream(url: str) -> None:
    client = client_of(url)
    with client.messages.stream(**ASKED, tools=TOOLS) as events:
        assert "input_json" in {event.type for event in events}
        _answer_calls(client, events.get_final_message())


def _answer_calls(client: Anthropic, message: Any) -> None:
    same(message.stop_reason, "tool_use")
    (call,) = message.content
    result = {"type": "tool_result", "tool_use_id": call.id, "content": get_weather(**call.input)}
    turns: list[Any] = [USER, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    after = client.messages.create(model=MODEL, max_tokens=1000, messages=turns, tools=TOOLS)
    same([block.text for block in after.content], [ANSWER_AFTER_TOOL])


if __name__ == "__main__":
    run(
        "anthropic",
        {
            "Messages": {
                "answer": answer,
                "answer, streamed": stream,
                "schema": schema,
                "schema, streamed": schema_stream,
                "tools": tools,
                "tools, streamed": tools_stream,
            },
            "Messages, asynchronous": {"answer, streamed": async_stream},
        },
    )
