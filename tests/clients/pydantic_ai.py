"""pydantic-ai: agents over chat completions and over the Responses API, output by tool and by schema."""

from functools import partial
from typing import Any

from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.checks import Check, run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, KEY, MODEL, QUESTION, Review, get_weather, same

KINDS: dict[str, Any] = {"chat": OpenAIChatModel, "Responses": OpenAIResponsesModel}


def agent_of(url: str, kind: str, **more: Any) -> "Agent[None, Any]":
    return Agent(KINDS[kind](MODEL, provider=OpenAIProvider(base_url=url, api_key=KEY)), **more)


async def answer(url: str, kind: str) -> None:
    result = await agent_of(url, kind).run(QUESTION)
    same(result.output, ANSWER)
    assert result.usage.output_tokens > 1


async def stream(url: str, kind: str) -> None:
    async with agent_of(url, kind).run_stream(QUESTION) as result:
        parts = [part async for part in result.stream_text(delta=True)]
    same("".join(parts), ANSWER)


async def schema(url: str, kind: str) -> None:
    for output in (Review, NativeOutput(Review)):
        result = await agent_of(url, kind, output_type=output).run(QUESTION)
        assert isinstance(result.output, Review)


async def schema_stream(url: str, kind: str) -> None:
    async with agent_of(url, kind, output_type=Review).run_stream(QUESTION) as result:
        *_, review = [part async for part in result.stream_output()]
    assert isinstance(review, Review)


async def tools(url: str, kind: str) -> None:
    result = await agent_of(url, kind, tools=[get_weather]).run(QUESTION)
    same(result.output, ANSWER_AFTER_TOOL)


async def tools_stream(url: str, kind: str) -> None:
    async with agent_of(url, kind, tools=[get_weather]).run_stream(QUESTION) as result:
        same(await result.get_output(), ANSWER_AFTER_TOOL)


def checks(kind: str) -> dict[str, Check]:
    return {
        "answer": partial(answer, kind=kind),
        "answer, streamed": partial(stream, kind=kind),
        "schema": partial(schema, kind=kind),
        "schema, streamed": partial(schema_stream, kind=kind),
        "tools": partial(tools, kind=kind),
        "tools, streamed": partial(tools_stream, kind=kind),
    }


if __name__ == "__main__":
    run("pydantic-ai-slim", {kind: checks(kind) for kind in KINDS})
