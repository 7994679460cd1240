"""Tools as the `openai` package uses them over HTTP: chats and responses, whole and streamed, and the turns after."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.test_server import Bench

UNITS: dict[str, Any] = {
    "type": "object",
    "properties": {"unit": {"enum": ["C", "F"]}},
    "required": ["unit"],
    "additionalProperties": False,
}
FUNCTION: dict[str, Any] = {"name": "set_unit", "description": "Sets the unit.", "parameters": UNITS}
TOOLS: list[Any] = [{"type": "function", "function": FUNCTION}, {"type": "function", "function": {"name": "stop"}}]
NAMED: Any = {"type": "function", "function": {"name": "set_unit"}}
RESPONSE_TOOLS: list[Any] = [{"type": "function", "strict": True, **FUNCTION}]
USER: Any = {"role": "user", "content": "go"}
SAMPLED: dict[str, Any] = {"model": "deterministic", "temperature": 1.5, "max_tokens": 120}


@pytest.fixture(scope="module")
def client(llama_directory: Path) -> Iterator[openai.OpenAI]:
    with (
        Bench(llama_directory) as bench,
        openai.OpenAI(base_url=f"{bench.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def is_valid(arguments: str) -> bool:
    return json.loads(arguments) in ({"unit": "C"}, {"unit": "F"})


def test_a_named_tool_is_called_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"messages": [USER], "tools": TOOLS, "tool_choice": NAMED, "seed": 5, **SAMPLED}
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "tool_calls"
    (call,) = whole.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, is_valid(call.function.arguments)) == ("set_unit", True)
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]
    (same,) = streamed.message.tool_calls or []
    assert streamed.finish_reason == "tool_calls"
    assert (same.function.name, same.function.arguments) == (call.function.name, call.function.arguments)


@pytest.mark.parametrize("seed", range(4))
def test_one_call_where_no_more_are_wanted(client: openai.OpenAI, seed: int) -> None:
    asked: dict[str, Any] = {"messages": [USER], "tools": TOOLS, "tool_choice": "required", "seed": seed, **SAMPLED}
    choice = client.chat.completions.create(parallel_tool_calls=False, **asked).choices[0]
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name in ("set_unit", "stop")


def test_no_call_where_none_is_wanted(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"messages": [USER], "tools": TOOLS, "tool_choice": "none", "seed": 1, **SAMPLED}
    message = client.chat.completions.create(**asked).choices[0].message
    plain = client.chat.completions.create(messages=[USER], seed=1, **SAMPLED).choices[0].message
    assert (message.tool_calls, message.content) == (None, plain.content)


def test_the_turns_after_a_call_are_read(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"tools": TOOLS, "seed": 2, **SAMPLED}
    message = client.chat.completions.create(messages=[USER], tool_choice=NAMED, **asked).choices[0].message
    (call,) = message.tool_calls or []
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "done"}
    turns: list[Any] = [USER, message.model_dump(), result]
    after = client.chat.completions.create(messages=turns, tool_choice="none", **asked)
    without = client.chat.completions.create(messages=[USER], tool_choice="none", **asked)
    assert after.usage is not None
    assert without.usage is not None
    assert after.usage.prompt_tokens > without.usage.prompt_tokens


def test_the_older_names_of_tools(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"messages": [USER], "functions": [FUNCTION], "seed": 3, **SAMPLED}
    choice = client.chat.completions.create(function_call={"name": "set_unit"}, **asked).choices[0]
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call is not None
    assert is_valid(choice.message.function_call.arguments)


def test_a_strict_schema_that_cannot_be_followed_is_refused(client: openai.OpenAI) -> None:
    function = {**FUNCTION, "strict": True, "parameters": {"type": "object", "uniqueItems": True, "not": {}}}
    tools: Any = [{"type": "function", "function": function}]
    with pytest.raises(openai.BadRequestError, match="'tools' cannot be followed: it uses 'not'"):
        client.chat.completions.create(messages=[USER], tools=tools, tool_choice="required", **SAMPLED)


def test_a_response_calls_a_tool_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "deterministic",
        "input": "go",
        "tools": RESPONSE_TOOLS,
        "tool_choice": {"type": "function", "name": "set_unit"},
        "temperature": 1.5,
        "max_output_tokens": 120,
        "extra_body": {"seed": 5},
    }
    response = client.responses.create(**asked)
    (call,) = response.output
    assert call.type == "function_call"
    assert (response.status, call.name, is_valid(call.arguments)) == ("completed", "set_unit", True)
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        (streamed,) = stream.get_final_response().output
    assert streamed.type == "function_call"
    assert streamed.arguments == call.arguments
    assert kinds[2] == "response.output_item.added"
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    # What npm's `openai` adds to a call it has parsed, and sends back.
    sent_back: Any = {**call.model_dump(), "parsed_arguments": json.loads(call.arguments)}
    after = client.responses.create(
        model="deterministic", input=[USER, sent_back, result], max_output_tokens=4, temperature=0
    )
    assert after.output[0].type == "message"
