"""The OpenAI Agents SDK: agents over the Responses API, which it uses first, and over chat completions."""

from functools import partial
from typing import Any

from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from tests.clients.checks import Check, run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, KEY, MODEL, QUESTION, Review, get_weather, same

KINDS = {"Responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}


def agent_of(url: str, kind: str, **more: Any) -> "Agent[Any]":
    model: Model = KINDS[kind](model=MODEL, openai_client=AsyncOpenAI(base_url=url, api_key=KEY))
    return Agent(name="Assistant", instructions="You are a helpful assistant.", model=model, **more)


async def answer(url: str, kind: str) -> None:
    result = await Runner.run(agent_of(url, kind), QUESTION)
    same(result.final_output, ANSWER)
    assert result.context_wrapper.usage.output_tokens > 1


async def stream(url: str, kind: str) -> None:
    result = Runner.run_streamed(agent_of(url, kind), QUESTION)
    events = [event async for event in result.stream_events()]
    raw = [event.data for event in events if event.type == "raw_response_event"]
    same("".join(event.delta for event in raw if event.type == "response.output_text.delta"), ANSWER)
    same(result.final_output, ANSWER)


async def schema(url: str, kind: str) -> None:
    result = await Runner.run(agent_of(url, kind, output_type=Review), QUESTION)
    assert isinstance(result.final_output, Review)


async def tools(url: str, kind: str) -> None:
    result = await Runner.run(agent_of(url, kind, tools=[function_tool(get_weather)]), QUESTION)
    same(result.final_output, ANSWER_AFTER_TOOL)
    same(len(result.raw_responses), 2)


async def tools_stream(url: str, kind: str) -> None:
    result = Runner.run_streamed(agent_of(url, kind, tools=[function_tool(get_weather)]), QUESTION)
    items = [event.item.type async for event in result.stream_events() if event.type == "run_item_stream_event"]
    same(items, ["tool_call_item", "tool_call_output_item", "message_output_item"])
    same(result.final_output, ANSWER_AFTER_TOOL)


def checks(kind: str) -> dict[str, Check]:
    return {
        "answer": partial(answer, kind=kind),
        "answer, streamed": partial(stream, kind=kind),
        "schema": partial(schema, kind=kind),
        "tools": partial(tools, kind=kind),
        "tools, streamed": partial(tools_stream, kind=kind),
    }


if __name__ == "__main__":
    set_tracing_disabled(True)
    run("openai-agents", {kind: checks(kind) for kind in KINDS})
