"""LiteLLM's `completion` and `responses`, with the provider prefix of OpenAI-compatible servers."""

import json
from typing import Any

import litellm

from tests.clients.checks import run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, KEY, MODEL, QUESTION, Review, get_weather, same

USER: Any = {"role": "user", "content": QUESTION}
CITY = {"type": "string", "enum": ["Paris", "Rome"]}
PARAMETERS = {"type": "object", "properties": {"city": CITY}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]


def asked(url: str, **more: Any) -> dict[str, Any]:
    return {"model": f"openai/{MODEL}", "api_base": url, "api_key": KEY, "messages": [USER], **more}


def answer(url: str) -> None:
    completion = litellm.completion(**asked(url))
    same(completion.choices[0].message.content, ANSWER)
    assert completion.usage.completion_tokens > 1


def stream(url: str) -> None:
    parts = list(litellm.completion(**asked(url, stream=True, stream_options={"include_usage": True})))
    whole = litellm.stream_chunk_builder(parts)
    same(whole.choices[0].message.content, ANSWER)
    assert whole.usage.completion_tokens > 1


async def async_answer(url: str) -> None:
    completion = await litellm.acompletion(**asked(url))
    same(completion.choices[0].message.content, ANSWER)


def schema(url: str) -> None:
    completion = litellm.completion(**asked(url, response_format=Review))
    Review.model_validate_json(completion.choices[0].message.content)


def schema_stream(url: str) -> None:
    parts = litellm.completion(**asked(url, response_format=Review, stream=True))
    Review.model_validate_json("".join(part.choices[0].delta.content or "" for part in parts))


def tools(url: str) -> None:
    _answer_calls(url, litellm.completion(**asked(url, tools=TOOLS)))


def tools_stream(url: str) -> None:
    parts = list(litellm.completion(**asked(url, tools=TOOLS, stream=True)))
    _answer_calls(url, litellm.stream_chunk_builder(parts))


def _answer_calls(url: str, completion: Any) -> None:
    message = completion.choices[0].message
    (call,) = message.tool_calls
    weather = get_weather(**json.loads(call.function.arguments))
    turns = [USER, message, {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": weather}]
    after = litellm.completion(**asked(url, messages=turns, tools=TOOLS))
    same(after.choices[0].message.content, ANSWER_AFTER_TOOL)


def response_answer(url: str) -> None:
    response = litellm.responses(model=f"openai/{MODEL}", api_base=url, api_key=KEY, input=QUESTION)
    same(response.output[0].content[0].text, ANSWER)


def response_stream(url: str) -> None:
    events = litellm.responses(model=f"openai/{MODEL}", api_base=url, api_key=KEY, input=QUESTION, stream=True)
    same("".join(event.delta for event in events if event.type == "response.output_text.delta"), ANSWER)


if __name__ == "__main__":
    run(
        "litellm",
        {
            "chat": {
                "answer": answer,
                "answer, streamed": stream,
                "schema": schema,
                "schema, streamed": schema_stream,
                "tools": tools,
                "tools, streamed": tools_stream,
            },
            "chat, asynchronous": {"answer": async_answer},
            "Responses": {"answer": response_answer, "answer, streamed": response_stream},
        },
    )
