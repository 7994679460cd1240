"""OpenAI's Responses API, whole and streamed: what is refused, what comes back, and the `openai` package before it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, Field, TypeAdapter

from api.errors import ApiError
from api.events import CallBegun, Content, Part, Reasoning, Said
from api.response_answer import StreamedResponse
from api.response_request import parse
from api.service import Service
from generation.sequence import FinishReason, Piece, Token
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.test_server import Bench

SAME: dict[str, Any] = {"max_output_tokens": 6, "temperature": 0}
USER: dict[str, Any] = {"role": "user", "content": "go"}


@pytest.fixture(scope="module")
def bench(llama_directory: Path) -> Iterator[Bench]:
    with Bench(llama_directory) as bench:
        yield bench


@pytest.fixture(scope="module")
def client(bench: Bench) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{bench.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(bench: Bench, path: str = "/v1/responses", **body: Any) -> dict[str, Any]:
    answer = bench.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def chat_text(bench: Bench, messages: list[dict[str, Any]]) -> str:
    answer = ask(bench, "/v1/chat/completions", messages=messages, max_tokens=6, temperature=0)
    text: str = answer["choices"][0]["message"]["content"]
    return text


def text_of(response: dict[str, Any]) -> str:
    ((part,),) = (item["content"] for item in response["output"])
    text: str = part["text"]
    return text


def events_in(text: str) -> list[dict[str, Any]]:
    """The events of a streamed response, each of which is sent under its type's name."""
    found = []
    for event in text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


@pytest.mark.parametrize(
    ("asked", "messages"),
    [
        ({"input": "go"}, [USER]),
        ({"input": [USER]}, [USER]),
        ({"input": [{"type": "message", **USER}], "store": True, "background": False}, [USER]),
        ({"input": "go", "instructions": "Be brief."}, [{"role": "system", "content": "Be brief."}, USER]),
        (
            {
                "input": [
                    {"role": "developer", "content": "Be brief."},
                    {
                        "role": "user",
                        "content": [{"type": "input_text", "text": "g"}, {"type": "input_text", "text": "o"}],
                    },
                    {"type": "reasoning", "id": "rs_1", "summary": [], "content": None},
                    {
                        "id": "msg_1",
                        "type": "message",
                        "status": "completed",
                        "role": "assistant",
                        "content": [
                            {"type": "output_text", "text": "Yes.", "annotations": [], "logprobs": [], "parsed": {}}
                        ],
                    },
                    USER,
                ]
            },
            [
                {"role": "system", "content": "Be brief."},
                USER,
                {"role": "assistant", "content": "Yes."},
                USER,
            ],
        ),
    ],
)
def test_the_answer_is_that_of_the_chat_which_says_the_same(
    bench: Bench, asked: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    assert text_of(ask(bench, **asked, **SAME)) == chat_text(bench, messages)


def test_a_whole_response_satisfies_openai_s_model(bench: Bench) -> None:
    found = ask(bench, input="go", instructions="Be brief.", metadata={"a": "b"}, top_p=0.5, **SAME)
    response = Response.model_validate(found)
    assert (response.status, response.model, response.instructions) == ("incomplete", "deterministic", "Be brief.")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (response.temperature, response.top_p, response.metadata) == (0, 0.5, {"a": "b"})
    assert response.usage is not None
    assert response.usage.output_tokens == 6
    assert response.usage.total_tokens == response.usage.input_tokens + 6
    assert (found["store"], found["error"], found["timings"]["decode_ms"] > 0) == (False, None, True)


def test_a_response_that_ends_by_itself_is_complete(bench: Bench) -> None:
    found = ask(bench, input="go", text={"format": {"type": "json_schema", "name": "x", "schema": {"const": 5}}})
    assert (found["status"], found["incomplete_details"], text_of(found)) == ("completed", None, "5")
    form = {"type": "json_schema", "name": "x", "schema": {"const": 5}, "strict": False}
    assert found["text"] == {"format": form}


def test_a_streamed_response_ends_as_the_whole_one(bench: Bench) -> None:
    asked: dict[str, Any] = {"input": "go", "include": ["message.output_text.logprobs"], "top_logprobs": 2, **SAME}
    events = events_in(bench.client.post("/v1/responses", json={**asked, "stream": True}).text)
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    opening = ["created", "in_progress", "output_item.added", "content_part.added"]
    closing = ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert kinds == [*opening, *["output_text.delta"] * len(deltas), *closing]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[2]["item"]["content"] == []
    whole, ended = ask(bench, **asked), events[-1]["response"]
    assert "".join(deltas) == text_of(ended) == text_of(whole)
    logprobs = whole["output"][0]["content"][0]["logprobs"]
    assert len(logprobs) == 6
    assert ended["output"][0]["content"][0]["logprobs"] == logprobs
    assert {len(token["top_logprobs"]) for token in logprobs} == {2}
    assert ended["usage"] == whole["usage"]


def test_the_tokens_of_a_call_open_no_message(bench: Bench) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"properties": {"unit": {"enum": ["C", "F"]}}}}
    asked: dict[str, Any] = {"input": "go", "tools": [tool], "tool_choice": "required", "max_output_tokens": 200}
    asked |= {"include": ["message.output_text.logprobs"], "parallel_tool_calls": False}
    assert {item["type"] for item in ask(bench, **asked)["output"]} == {"function_call"}


def test_tokens_come_with_the_text_that_they_are_of(llama_directory: Path) -> None:
    model = deterministic_model(read_tokenizer(llama_directory), DeterministicEngine())
    request = parse({"input": "go", "include": ["message.output_text.logprobs"]})
    streamed = StreamedResponse(Service(model).prepare(request), request, model)
    ids = iter(range(100, 200))

    def told(*said: Said, finish_reason: FinishReason | None = None) -> list[tuple[str, list[str]]]:
        """The texts of one more token's part, each with its tokens."""
        piece = Piece("", (Token(next(ids)),), 1, finish_reason)
        events = streamed.parts(Part(0, piece, said, 0, 0))
        return [
            (event["delta"], [token["token"] for token in event["logprobs"]])
            for event in events
            if event["type"] == "response.output_text.delta"
        ]

    def texts(*tokens: int) -> list[str]:
        return [model.tokenizer.token_text(token) for token in tokens]

    assert told() == []  # 100: the beginning of a thought
    assert told(Reasoning("hm")) == []  # 101
    assert told() == []  # 102: may be a call
    assert told(Content("a")) == [("a", texts(102, 103))]
    assert told() == []  # 104
    assert told(CallBegun(0, "call_0", "f")) == []  # 105
    assert told(Reasoning("hm"), Content("b")) == [("b", texts(106))]
    assert told(finish_reason="stop") == [("", texts(107))]


def test_a_thought_goes_with_the_answer_that_followed_it() -> None:
    def thought(text: str) -> dict[str, Any]:
        content = [{"type": "reasoning_text", "text": text}]
        return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content}

    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "r"}
    answer = {"role": "assistant", "content": "Yes."}
    asked = [USER, thought("1"), thought("2"), call, output, thought("3"), answer, thought("4"), USER, answer]
    messages = parse({"input": asked}).as_chat().messages
    found = [(message.role, message.reasoning_content, len(message.tool_calls)) for message in messages]
    assert found == [
        ("user", None, 0),
        ("assistant", "12", 1),
        ("tool", None, 0),
        ("assistant", "3", 0),
        ("user", None, 0),
        ("assistant", None, 0),
    ]


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ([], "The body must be a JSON object.", None),
        ({}, "'input' is required.", "input"),
        ({"input": 5}, "'input' must be a string or a list of items.", "input"),
        ({"input": []}, "'input' must be a list of at least one object.", "input"),
        ({"input": [{"content": "a"}]}, "'input[0].role' is required.", "input[0].role"),
        (
            {"input": [{"role": "x", "content": "a"}]},
            "'input[0].role' must be 'assistant', 'developer', 'system' or 'user', not 'x'.",
            "input[0].role",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "'input[0].content' must be a string or a list of text parts.",
            "input[0].content",
        ),
        (
            {"input": [{"type": "item_reference", "id": "x"}]},
            "'input[0].type' must be 'function_call', 'function_call_output', 'message' or 'reasoning', "
            "not 'item_reference'.",
            "input[0].type",
        ),
        (
            {"input": "a", "text": {"format": {"type": "json_schema"}}},
            "'text.format.schema' is required.",
            "text.format.schema",
        ),
        ({"input": "a", "truncation": "auto"}, "'truncation' must be 'disabled', not 'auto'.", "truncation"),
        ({"input": "a", "n": 2}, "'n' is not a parameter this server supports; leave it out.", "n"),
        *(
            (
                {"input": "a", name: value},
                f"'{name}' needs a server that stores answers; this one stores nothing: send everything in 'input'.",
                name,
            )
            for name, value in [
                ("previous_response_id", "resp_1"),
                ("conversation", {"id": "x"}),
                ("prompt", {"id": "x"}),
                ("background", True),
            ]
        ),
    ],
)
def test_a_bad_request_gets_one_sentence(body: Any, message: str, param: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        parse(body).as_chat()
    assert (caught.value.message, caught.value.param) == (message, param)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "f"}])
def test_a_call_that_is_asked_for_needs_tools(bench: Bench, choice: Any) -> None:
    answer = bench.client.post("/v1/responses", json={"input": "a", "tool_choice": choice})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "'tool_choice' asks for a call; it needs 'tools'."


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"not": {}}}}},
            "text.format.schema",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "x" * 257, "schema": {}}}},
            "text.format.name",
        ),
        ({"reasoning": {"effort": "x" * 257}}, "reasoning.effort"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ],
)
def test_what_a_chat_refuses_is_named_as_it_was_sent(bench: Bench, body: dict[str, Any], param: str) -> None:
    answer = bench.client.post("/v1/responses", json={"input": "a", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["message"].split(" ")[0]) == (param, f"'{param}'")


def test_a_stream_that_fails_ends_with_a_typed_error(llama_directory: Path) -> None:
    with Bench(llama_directory) as bench:
        passes = iter("....")

        def fail_at_last() -> None:
            if next(passes, "!") == "!":
                raise ZeroDivisionError

        bench.engine.before_forward = fail_at_last
        text = bench.client.post("/v1/responses", json={"input": "go", "stream": True, **SAME}).text
    events = events_in(text)
    assert (events[-1]["type"], events[-1]["error"]["type"]) == ("error", "server_error")
    assert events[-1]["message"] == events[-1]["error"]["message"]
    assert events[-1]["sequence_number"] == len(events) - 1 > 4


def test_the_openai_client_creates_and_streams(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="deterministic", input="go", **SAME)
    assert answer.output_text
    with client.responses.stream(model="deterministic", input="go", **SAME) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
    events = client.responses.create(model="deterministic", input="go", stream=True, **SAME)
    assert [event.type for event in events][-1] == "response.incomplete"
    assert "".join(deltas) == answer.output_text


class Review(BaseModel):
    stars: int = Field(ge=1, le=5)
    recommended: bool


def test_the_openai_client_parses_into_models(client: openai.OpenAI, bench: Bench) -> None:
    parsed = client.responses.parse(model="deterministic", input="go", text_format=Review).output_parsed
    assert isinstance(parsed, Review)
    with client.responses.stream(model="deterministic", input="go", text_format=Review) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Review)

    async def again() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key="none", max_retries=0) as client:
            async with client.responses.stream(model="deterministic", input="go", text_format=Review) as stream:
                final = await stream.get_final_response()
            return final.output_parsed, (
                await client.responses.create(model="deterministic", input="go", **SAME)
            ).status

    streamed, status = asyncio.run(again())
    assert isinstance(streamed, Review)
    assert status == "incomplete"
