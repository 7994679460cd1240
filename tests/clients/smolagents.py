"""smolagents' `OpenAIModel`, by itself and in an agent that calls tools."""

from typing import Any

from smolagents import OpenAIModel, ToolCallingAgent, tool
from smolagents.models import CODEAGENT_RESPONSE_FORMAT, ChatMessage, MessageRole, agglomerate_stream_deltas

from tests.clients.checks import run
from tests.clients.subject import ANSWER, KEY, MODEL, QUESTION, WEATHER, same

MESSAGES = [ChatMessage(role=MessageRole.USER, content=QUESTION)]


def check_weather(city: str) -> str:
    """Check the weather of a city.

    Args:
        city: The city's name.
    """
    return WEATHER


TOOL = tool(check_weather)


def model_of(url: str) -> OpenAIModel:
    return OpenAIModel(model_id=MODEL, api_base=url, api_key=KEY)


def answer(url: str) -> None:
    message = model_of(url).generate(MESSAGES)
    same(message.content, ANSWER)
    assert message.token_usage.output_tokens > 1


def stream(url: str) -> None:
    message = agglomerate_stream_deltas(list(model_of(url).generate_stream(MESSAGES)))
    same(message.content, ANSWER)
    assert message.token_usage.output_tokens > 1


def schema(url: str) -> None:
    message = model_of(url).generate(MESSAGES, response_format=CODEAGENT_RESPONSE_FORMAT)
    assert '"code": ' in message.content


def tools(url: str) -> None:
    _run(url, stream=False)


def tools_stream(url: str) -> None:
    _run(url, stream=True)


def _run(url: str, *, stream: bool) -> None:
    """An agent that always has to call a tool, two times; then it is asked for its answer without tools."""
    agent: Any = ToolCallingAgent(
        tools=[TOOL], model=model_of(url), max_steps=2, verbosity_level=0, stream_outputs=stream
    )
    same(agent.run(QUESTION), ANSWER)
    steps = [step for step in agent.memory.steps if getattr(step, "tool_calls", None)]
    same([(step.tool_calls[0].name, step.observations) for step in steps], [("check_weather", WEATHER)] * 2)


if __name__ == "__main__":
    run(
        "smolagents",
        {
            "chat": {
                "answer": answer,
                "answer, streamed": stream,
                "schema": schema,
                "tools": tools,
                "tools, streamed": tools_stream,
            }
        },
    )
