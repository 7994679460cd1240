"""LangChain's `ChatOpenAI`: `invoke`, `stream`, `bind_tools`, `with_structured_output`."""

from functools import partial
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from tests.clients.checks import Check, run
from tests.clients.subject import ANSWER, ANSWER_AFTER_TOOL, KEY, MODEL, QUESTION, Review, get_weather, same

WEATHER = tool(get_weather)


def model_of(url: str, responses: bool) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=url, api_key=KEY, use_responses_api=responses)


def answer(url: str, responses: bool) -> None:
    message = model_of(url, responses).invoke(QUESTION)
    same(message.text, ANSWER)
    assert message.usage_metadata["output_tokens"] > 1


def stream(url: str, responses: bool) -> None:
    whole: Any = None
    model = model_of(url, responses)
    for part in model.stream(QUESTION, **({} if responses else {"stream_usage": True})):
        whole = part if whole is None else whole + part
    same(whole.text, ANSWER)
    assert whole.usage_metadata["output_tokens"] > 1


def schema(url: str, responses: bool) -> None:
    for method in ("json_schema", "function_calling"):
        review = model_of(url, responses).with_structured_output(Review, method=method).invoke(QUESTION)
        assert isinstance(review, Review), f"{method}: {review!r}"


def schema_stream(url: str, responses: bool) -> None:
    *_, review = model_of(url, responses).with_structured_output(Review).stream(QUESTION)
    assert isinstance(review, Review), repr(review)


def tools(url: str, responses: bool) -> None:
    model = model_of(url, responses).bind_tools([WEATHER])
    _answer_calls(model, model.invoke(QUESTION))


def tools_stream(url: str, responses: bool) -> None:
    model = model_of(url, responses).bind_tools([WEATHER])
    whole: Any = None
    for part in model.stream(QUESTION):
        whole = part if whole is None else whole + part
    _answer_calls(model, whole)


def _answer_calls(model: Any, message: Any) -> None:
    (call,) = message.tool_calls
    after = model.invoke([HumanMessage(QUESTION), message, WEATHER.invoke(call)])
    same(after.text, ANSWER_AFTER_TOOL)


def checks(responses: bool) -> dict[str, Check]:
    return {
        "answer": partial(answer, responses=responses),
        "answer, streamed": partial(stream, responses=responses),
        "schema": partial(schema, responses=responses),
        "schema, streamed": partial(schema_stream, responses=responses),
        "tools": partial(tools, responses=responses),
        "tools, streamed": partial(tools_stream, responses=responses),
    }


if __name__ == "__main__":
    run("langchain-openai", {"chat": checks(responses=False), "Responses": checks(responses=True)})
