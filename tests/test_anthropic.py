"""Anthropic's Messages API over HTTP: the chat that it asks for, whole and streamed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.anthropic_answer import StreamedMessage
from api.anthropic_request import MessagesRequest
from api.events import CallArguments, CallBegun, Part
from api.model import Model
from api.service import Service
from api.validation import validate
from generation.sequence import Piece
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.test_responses import events_in
from tests.test_server import Bench

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"unit": {"enum": ["C", "F"]}},
    "required": ["unit"],
    "additionalProperties": False,
}
TOOL: dict[str, Any] = {"name": "set_unit", "description": "Sets the unit.", "input_schema": SCHEMA}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "set_unit", "description": "Sets the unit.", "parameters": SCHEMA},
}
USER: dict[str, Any] = {"role": "user", "content": "go"}
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 6}
CALL = {"type": "tool_use", "id": "call_1", "name": "set_unit", "input": {"unit": "C"}}


@pytest.fixture(scope="module")
def bench(llama_directory: Path) -> Iterator[Bench]:
    with Bench(llama_directory) as bench:
        yield bench


@pytest.fixture(scope="module")
def model(llama_directory: Path) -> Model:
    return deterministic_model(read_tokenizer(llama_directory), DeterministicEngine())


def ask(bench: Bench, path: str = "/v1/messages", **body: Any) -> dict[str, Any]:
    answer = bench.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize(
    ("asked", "messages", "more"),
    [
        ({"messages": [USER]}, [USER], {}),
        ({"system": "Be brief.", "messages": [USER]}, [{"role": "system", "content": "Be brief."}, USER], {}),
        (
            {
                "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief.", "cache_control": {}}],
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "g"}, {"type": "text", "text": "o"}]}
                ],
            },
            [{"role": "system", "content": "Be brief."}, USER],
            {},
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "Yes,"}]}]},
            [USER, {"role": "assistant", "content": "Yes,"}],
            {"continue_final_message": True},
        ),
        (
            {
                "messages": [
                    USER,
                    {"role": "assistant", "content": [{"type": "text", "text": "Well.", "citations": None}, CALL]},
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "call_1", "content": "done", "is_error": False},
                            {"type": "text", "text": "And?"},
                        ],
                    },
                ],
                "tools": [TOOL],
                "tool_choice": {"type": "none"},
            },
            [
                USER,
                {
                    "role": "assistant",
                    "content": "Well.",
                    "tool_calls": [
                        {"id": "call_1", "function": {"name": "set_unit", "arguments": json.dumps(CALL["input"])}}
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "done"},
                {"role": "user", "content": "And?"},
            ],
            {"tools": [CHAT_TOOL], "tool_choice": "none"},
        ),
    ],
)
def test_the_answer_is_that_of_the_chat_which_says_the_same(
    bench: Bench, asked: dict[str, Any], messages: list[dict[str, Any]], more: dict[str, Any]
) -> None:
    message = ask(bench, **asked, **GREEDY)
    chat = ask(bench, "/v1/chat/completions", messages=messages, **more, **GREEDY)
    assert message["content"] == [{"type": "text", "text": chat["choices"][0]["message"]["content"]}]
    assert (message["role"], message["stop_reason"], message["stop_sequence"]) == ("assistant", "max_tokens", None)
    usage = message["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == chat["usage"]["prompt_tokens"]
    assert usage["output_tokens"] == 6


def test_a_call_whole_and_streamed(bench: Bench) -> None:
    asked: dict[str, Any] = {"messages": [USER], "tools": [TOOL], "tool_choice": {"type": "any"}, "max_tokens": 200}
    asked["tool_choice"]["disable_parallel_tool_use"] = True
    whole = ask(bench, **asked)
    (call,) = whole["content"]
    assert (call["type"], call["name"], whole["stop_reason"]) == ("tool_use", "set_unit", "tool_use")
    assert call["input"] in ({"unit": "C"}, {"unit": "F"})
    events = events_in(bench.client.post("/v1/messages", json={**asked, "stream": True}).text)
    assert [event["type"] for event in events[:2]] == ["message_start", "content_block_start"]
    assert [event["type"] for event in events[-3:]] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[1]["content_block"]["input"] == {}
    parts = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert json.loads("".join(parts)) in ({"unit": "C"}, {"unit": "F"})
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] > 1


def test_a_streamed_text_is_the_whole_one(bench: Bench) -> None:
    asked = {"messages": [USER], **GREEDY}
    events = events_in(bench.client.post("/v1/messages", json={**asked, "stream": True}).text)
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert [{"type": "text", "text": text}] == ask(bench, **asked)["content"]


def test_a_stop_sequence_is_named(bench: Bench) -> None:
    text = ask(bench, messages=[USER], temperature=0, max_tokens=20)["content"][0]["text"]
    message = ask(bench, messages=[USER], temperature=0, max_tokens=20, stop_sequences=["never", text[3:5]])
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", text[3:5])
    assert message["content"] == [{"type": "text", "text": text[: text.index(text[3:5])]}]


def test_an_answer_in_shape(bench: Bench) -> None:
    output = {"format": {"type": "json_schema", "schema": SCHEMA}}
    message = ask(bench, messages=[USER], max_tokens=100, output_config=output)
    assert json.loads(message["content"][0]["text"]) in ({"unit": "C"}, {"unit": "F"})
    assert message["stop_reason"] == "end_turn"


@pytest.mark.parametrize("arguments", ['{"x": 1e999}', '{"x": NaN}', '{"x":' * 100_000, '{"x": 1'])
def test_arguments_that_cannot_be_read_are_no_object(model: Model, arguments: str) -> None:
    request = validate(MessagesRequest, {"messages": [USER], **GREEDY})
    streamed = StreamedMessage(Service(model).prepare(request), model)
    said = (CallBegun(0, "call_0", "f"), CallArguments(0, arguments), CallBegun(1, "call_1", "f"))
    streamed.parts(Part(0, Piece("", (), 1), said, 2, 0))
    assert streamed.message["content"][0] == {"type": "tool_use", "id": "call_0", "name": "f", "input": {}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": [USER]}, "'max_tokens' is required."),
        ({"max_tokens": 1}, "'messages' is required."),
        (
            {**GREEDY, "messages": [USER], "tool_choice": {"type": "any"}},
            "'tool_choice' asks for a call; it needs 'tools'.",
        ),
        ({**GREEDY, "messages": [USER], "tool_choice": {"type": "tool"}}, "'tool_choice.name' is required."),
        ({**GREEDY, "messages": [USER], "container": "c"}, "'container' is not a parameter this server supports;"),
        ({**GREEDY, "messages": [USER], "stop_sequences": [""]}, "'stop_sequences' must not hold an empty string."),
        (
            {**GREEDY, "messages": [{"role": "user", "content": [CALL]}]},
            "'messages[0].content[0]' does not belong to a message of this role.",
        ),
        *(
            ({**GREEDY, "messages": [{"role": role, "content": [block]}]}, f"'messages[0].content[0].{name}' is")
            for role, block, name in [
                ("user", {"type": "text"}, "text"),
                ("user", {"type": "tool_result", "content": "done"}, "tool_use_id"),
                ("assistant", {**CALL, "id": None}, "id"),
                ("assistant", {**CALL, "name": None}, "name"),
                ("assistant", {"type": "thinking", "signature": "s"}, "thinking"),
            ]
        ),
        *(
            ({**GREEDY, "messages": [USER, {"role": "user", "content": content}]}, "'messages[1].content' is empty;")
            for content in ["", [], [{"type": "text", "text": ""}]]
        ),
        (
            {**GREEDY, "messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}, CALL]}]},
            "The last message calls a tool, so it cannot be continued;",
        ),
        (
            {**GREEDY, "messages": [USER], "tools": [{**TOOL, "name": "set unit"}]},
            "'tools[0].name' must be a name of up to 128 letters,",
        ),
        (
            {**GREEDY, "messages": [USER], "stop_sequences": "x"},
            "'stop_sequences' must be a list of at most 16 strings, not 'x'.",
        ),
        (
            {**GREEDY, "messages": [USER], "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "'tools[0].",
        ),
        (
            {**GREEDY, "messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "'messages[0].content",
        ),
    ],
)
def test_a_bad_request_gets_one_sentence(bench: Bench, body: dict[str, Any], message: str) -> None:
    answer = bench.client.post("/v1/messages", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)
