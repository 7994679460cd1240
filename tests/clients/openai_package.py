"""OpenAI's own package: synchronous, asynchronous, and the Responses API."""

import json
from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.clients.checks import run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, KEY, MODEL, QUESTION, Review, get_weather, same

USER: Any = {"role": "user", "content": QUESTION}
CITY = {"type": "string", "enum": ["Paris", "Rome"]}
PARAMETERS = {"type": "object", "properties": {"city": CITY}, "required": ["city"], "additionalProperties": False}
FUNCTION = {"name": "get_weather", "description": "Get the weather.", "parameters": PARAMETERS, "strict": True}
CHAT: dict[str, Any] = {"model": MODEL, "messages": [USER]}
TOOLS: list[Any] = [{"type": "function", "function": FUNCTION}]
RESPONSE: dict[str, Any] = {"model": MODEL, "input": QUESTION}
RESPONSE_TOOLS: list[Any] = [{"type": "function", **FUNCTION}]


def client_of(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key=KEY)


def answer(url: str) -> None:
    completion = client_of(url).chat.completions.create(**CHAT)
    same(completion.choices[0].message.content, ANSWER)
    assert completion.usage.completion_tokens > 1


def stream(url: str) -> None:
    parts = list(client_of(url).chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    same("".join(part.choices[0].delta.content or "" for part in parts if part.choices), ANSWER)
    assert parts[-1].usage.completion_tokens > 1


def schema(url: str) -> None:
    completion = client_of(url).chat.completions.parse(**CHAT, response_format=Review)
    assert isinstance(completion.choices[0].message.parsed, Review)


def schema_stream(url: str) -> None:
    with client_of(url).chat.completions.stream(**CHAT, response_format=Review) as events:
        assert "content.delta" in {event.type for event in events}
        assert isinstance(events.get_final_completion().choices[0].message.parsed, Review)


def tools(url: str) -> None:
    client = client_of(url)
    _answer_calls(client, client.chat.completions.create(**CHAT, tools=TOOLS).choices[0].message)


def tools_stream(url: str) -> None:
    client = client_of(url)
    with client.chat.completions.stream(**CHAT, tools=TOOLS) as events:
        assert "tool_calls.function.arguments.delta" in {event.type for event in events}
        _answer_calls(client, events.get_final_completion().choices[0].message)


def _answer_calls(client: OpenAI, message: Any) -> None:
    (call,) = message.tool_calls
    weather = get_weather(**json.loads(call.function.arguments))
    turns = [USER, message, {"role": "tool", "tool_call_id": call.id, "content": weather}]
    after = client.chat.completions.create(model=MODEL, messages=turns, tools=TOOLS)
    same(after.choices[0].message.content, ANSWER_AFTER_TOOL)


async def async_answer(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=KEY) as client:
        completion = await client.chat.completions.create(**CHAT)
    same(completion.choices[0].message.content, ANSWER)


async def async_stream(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=KEY) as client:
        parts = [part async for part in await client.chat.completions.create(**CHAT, stream=True)]
    same("".join(part.choices[0].delta.content or "" for part in parts), ANSWER)


async def async_schema(url: str) -> None:
    async with AsyncOpenAI(base_url=url, api_key=KEY) as client:
        completion = await client.chat.completions.parse(**CHAT, response_format=Review)
    assert isinstance(completion.choices[0].message.parsed, Review)


async def async_tools_stream(url: str) -> None:
    async with (
        AsyncOpenAI(base_url=url, api_key=KEY) as client,
        client.chat.completions.stream(**CHAT, tools=TOOLS) as events,
    ):
        completion = await events.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls or []
    get_weather(**json.loads(call.function.arguments))


def response_answer(url: str) -> None:
    response = client_of(url).responses.create(**RESPONSE)
    same(response.output_text, ANSWER)
    assert response.usage.output_tokens > 1


def response_stream(url: str) -> None:
    events = list(client_of(url).responses.create(**RESPONSE, stream=True))
    same("".join(event.delta for event in events if event.type == "response.output_text.delta"), ANSWER)
    assert events[-1].response.usage.output_tokens > 1


def response_schema(url: str) -> None:
    response = client_of(url).responses.parse(**RESPONSE, text_format=Review)
    assert isinstance(response.output_parsed, Review)


def response_schema_stream(url: str) -> None:
    with client_of(url).responses.stream(**RESPONSE, text_format=Review) as events:
        assert isinstance(events.get_final_response().output_parsed, Review)


def response_tools(url: str) -> None:
    client = client_of(url)
    _answer_response(client, client.responses.create(**RESPONSE, tools=RESPONSE_TOOLS))


def response_tools_stream(url: str) -> None:
    client = client_of(url)
    with client.responses.stream(**RESPONSE, tools=RESPONSE_TOOLS) as events:
        _answer_response(client, events.get_final_response())


def _answer_response(client: OpenAI, response: Any) -> None:
    (call,) = response.output
    weather = get_weather(**json.loads(call.arguments))
    turns = [USER, *response.output, {"type": "function_call_output", "call_id": call.call_id, "output": weather}]
    after = client.responses.create(model=MODEL, input=turns, tools=RESPONSE_TOOLS)
    same(after.output_text, ANSWER_AFTER_TOOL)


if __name__ == "__main__":
    run(
        "openai",
        {
            "chat": {
                "answer": answer,
                "answer, streamed": stream,
                "schema": schema,
                "schema, streamed": schema_stream,
                "tools": tools,
                "tools, streamed": tools_stream,
            },
            "chat, asynchronous": {
                "answer": async_answer,
                "answer, streamed": async_stream,
                "schema": async_schema,
                "tools, streamed": async_tools_stream,
            },
            "Responses": {
                "answer": response_answer,
                "answer, streamed": response_stream,
                "schema": response_schema,
                "schema, streamed": response_schema_stream,
                "tools": response_tools,
                "tools, streamed": response_tools_stream,
            },
        },
    )
