"""One API behind two entry points: the server on a socket, and the handler behind each kind of front door.

The handler runs under Lambda's runtime client: in its emulator, and without it where answers stream. The clients are
OpenAI's own, and plain HTTP where bytes are compared.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import httpx2
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field

from tests.checkpoints import CONTEXT, make_checkpoint
from tests.deterministic_engine import CHAT_TEMPLATE
from tests.running_server import PATIENCE, ServerProcess, free_port, wait_until
from tools.emulator import Emulator
from tools.gateway import Gateway
from tools.local_function import LocalFunction

KEY = "the-second-of-two-keys"
MAX_BODY = 20_000
ENTRY_POINTS = ("server", "rest-api", "http-api", "function-url")


@pytest.fixture(scope="module")
def base_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """Where each entry point listens: the same checkpoint, loaded in a process of its own."""
    folder = tmp_path_factory.mktemp("entry-points")
    checkpoint = make_checkpoint(folder / "tiny")
    (checkpoint / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    env = {
        "MODEL_DIR": str(checkpoint),
        "API_KEYS": f"the-first-of-two-keys,{KEY}",
        "MAX_BODY_BYTES": str(MAX_BODY),
        "MAX_TOKENS": "300",
        "THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    port = free_port()
    with ExitStack() as stack:
        command = ["-m", "uvicorn", "app:app", "--port", str(port)]
        server = stack.enter_context(ServerProcess(command, env, port, folder / "server.log"))
        emulator = stack.enter_context(Emulator(env))
        function = stack.enter_context(LocalFunction({**env, "STREAMING_DOORS": "function-url"}))
        gateways = {
            "function-url": stack.enter_context(Gateway(function.start, "function-url")),
            "rest-api": stack.enter_context(Gateway(lambda event: emulator.invoke(event).payload, "1.0")),
            "http-api": stack.enter_context(Gateway(lambda event: emulator.invoke(event).payload, "2.0")),
        }
        assert httpx2.get(f"{gateways['rest-api'].url}/health", timeout=PATIENCE).status_code == 200
        wait_until(server.listens, "the server listens")
        yield {"server": server.url, **{name: gateway.url for name, gateway in gateways.items()}}


@pytest.fixture(params=ENTRY_POINTS)
def client(base_urls: Mapping[str, str], request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base_urls[request.param]}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def chat(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_the_openai_client_completes(client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(model="tiny", prompt="the fox", max_tokens=7, temperature=0)
    answer = Completion.model_validate(raw.http_response.json())
    assert answer.object == "text_completion"
    assert answer.model == "tiny"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert "prefill;dur=" in raw.headers["server-timing"]


def test_the_openai_client_chats(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="tiny",
        messages=[{"role": "developer", "content": "Be brief."}, *chat("hello"), *chat("you there?")],
        max_completion_tokens=6,
        logprobs=True,
        top_logprobs=20,
        seed=3,
    )
    answer = ChatCompletion.model_validate(raw.http_response.json())
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].logprobs is not None
    tokens = answer.choices[0].logprobs.content
    assert tokens
    assert {len(token.top_logprobs) for token in tokens} == {20}
    assert all(token.bytes is not None and token.logprob <= 0 for token in tokens)


def test_text_parts_are_one_text(client: openai.OpenAI) -> None:
    parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]}]
    answers = [
        client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=5)
        for messages in (parts, chat("hello"))
    ]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


def test_legacy_logprobs_satisfy_the_client_s_models(client: openai.OpenAI) -> None:
    raw = client.completions.with_raw_response.create(
        model="tiny", prompt="the fox", max_tokens=5, logprobs=5, temperature=0
    )
    logprobs = Completion.model_validate(raw.http_response.json()).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert logprobs.text_offset is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) > 0
    assert logprobs.token_logprobs == [max(top.values()) for top in logprobs.top_logprobs]  # greedy


def test_the_openai_client_streams_a_completion(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "prompt": ["the fox 🦊", "a dog"],
        "n": 2,
        "max_tokens": 20,
        "seed": 11,
        "stop": ["e", "qq"],
        "echo": True,
    }
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert [part.choices for part in parts[-1:]] == [[]]
    assert parts[-1].usage is not None
    assert whole.usage is not None
    assert parts[-1].usage.total_tokens == whole.usage.total_tokens
    for choice in whole.choices:
        own = [part.choices[0] for part in parts[:-1] if part.choices[0].index == choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [part.finish_reason for part in own] == [None] * (len(own) - 1) + [choice.finish_reason]


def test_the_openai_client_streams_a_chat(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": chat("hi 👋"), "max_tokens": 30, "seed": 5}
    whole = client.chat.completions.create(**asked).choices[0]
    parts = [ChatCompletionChunk.model_validate(part.model_dump()) for part in _streamed_chat(client, asked)]
    choices = [part.choices[0] for part in parts]
    assert choices[0].delta.role == "assistant"
    assert [choice.delta.role for choice in choices[1:]] == [None] * (len(choices) - 1)
    assert "".join(choice.delta.content or "" for choice in choices) == whole.message.content
    assert [choice.finish_reason for choice in choices] == [None] * (len(choices) - 1) + [whole.finish_reason]
    assert len({part.id for part in parts}) == 1


class Review(BaseModel):
    """What the clients' own helper for shapes asks for."""

    sentiment: Literal["positive", "negative", "neutral"]
    stars: Annotated[int, Field(ge=1, le=5)]
    recommended: bool | None


def test_the_openai_client_parses_answers_into_pydantic_models(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": chat("hi"), "temperature": 1.5, "seed": 3, "n": 2}
    parsed = client.chat.completions.parse(**asked, response_format=Review)
    assert [choice.finish_reason for choice in parsed.choices] == ["stop", "stop"]
    assert all(isinstance(choice.message.parsed, Review) for choice in parsed.choices)
    with client.chat.completions.stream(**asked, response_format=Review) as stream:
        streamed = stream.get_final_completion()
    assert [choice.message.parsed for choice in streamed.choices] == [
        choice.message.parsed for choice in parsed.choices
    ]


def _streamed_chat(client: openai.OpenAI, asked: Mapping[str, Any]) -> list[ChatCompletionChunk]:
    stream: Any = client.chat.completions.create(**asked, stream=True)
    return list(stream)


def test_extensions_pass_through_the_client(client: openai.OpenAI) -> None:
    extra = {"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.3, "min_tokens": 9, "ignore_eos": True}
    answer = client.completions.create(model="tiny", prompt="x", max_tokens=9, stop="e", extra_body=extra)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9


def test_token_ids_are_prompts(client: openai.OpenAI) -> None:
    one = client.completions.create(model="tiny", prompt=[5, 6, 7], max_tokens=4, temperature=0)
    many = client.completions.create(model="tiny", prompt=[[5, 6, 7], [8, 9]], max_tokens=4, temperature=0)
    assert one.usage is not None
    assert many.usage is not None
    assert (one.usage.prompt_tokens, many.usage.prompt_tokens) == (3, 5)
    assert one.choices[0].text == many.choices[0].text


def test_echo_alone_repeats_the_prompt(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="the fox", max_tokens=0, echo=True, logprobs=1)
    assert answer.choices[0].text == "the fox"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0
    assert answer.choices[0].logprobs is not None
    assert answer.choices[0].logprobs.token_logprobs is not None
    assert len(answer.choices[0].logprobs.token_logprobs) == answer.usage.prompt_tokens


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError, match="does not exist here") as caught:
        client.models.retrieve("another/model")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("key", ["wrong", "the-second-of-two-key", "the-second-of-two-keys-"])
def test_a_wrong_key_is_openai_s_authentication_error(client: openai.OpenAI, key: str) -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided") as caught:
        client.models.list(extra_headers={"authorization": f"Bearer {key}"})
    assert caught.value.code == "invalid_api_key"
    assert key not in str(caught.value)


def test_a_bad_request_is_openai_s_error_also_for_a_stream(client: openai.OpenAI) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="between 0 and 2, not 3") as caught:
            client.completions.create(model="tiny", prompt="x", temperature=3, stream=stream)
        assert caught.value.param == "temperature"


def completion(**fields: Any) -> bytes:
    return json.dumps({"prompt": "the fox", **fields}).encode()


COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
REQUESTS: Mapping[str, tuple[str, str, bytes]] = {
    "not JSON": ("POST", COMPLETIONS, b"{'prompt'"),
    "empty": ("POST", COMPLETIONS, b""),
    "blank": ("POST", COMPLETIONS, b" \n"),
    "not an object": ("POST", COMPLETIONS, b"[1]"),
    "invalid UTF-8": ("POST", COMPLETIONS, b'{"prompt": "\xff"}'),
    "half a surrogate pair": ("POST", COMPLETIONS, b'{"prompt": "\\ud800"}'),
    "half a surrogate pair in a name": ("POST", COMPLETIONS, b'{"prompt": "x", "\\ud800": 1}'),
    "half a surrogate pair in a message": ("POST", CHATS, b'{"messages": [{"role": "user", "content": "\\udfff"}]}'),
    "NaN": ("POST", COMPLETIONS, b'{"prompt": "x", "temperature": NaN}'),
    "a number beyond all": ("POST", COMPLETIONS, b'{"prompt": "x", "temperature": 1e999}'),
    "a number too long": ("POST", COMPLETIONS, b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}"),
    "nested too deeply": ("POST", COMPLETIONS, b"[" * 9000),
    "no prompt": ("POST", COMPLETIONS, b"{}"),
    "an empty prompt": ("POST", COMPLETIONS, completion(prompt="")),
    "a prompt of another type": ("POST", COMPLETIONS, completion(prompt={"text": 1})),
    "a token id outside the vocabulary": ("POST", COMPLETIONS, completion(prompt=[1, 99999])),
    "a prompt longer than the context": ("POST", COMPLETIONS, completion(prompt=[5] * (CONTEXT + 1))),
    "too many choices": ("POST", COMPLETIONS, completion(prompt=["x"] * 9, n=15)),
    "an unknown field": ("POST", COMPLETIONS, completion(best_of=2)),
    "a misspelt field": ("POST", COMPLETIONS, completion(temprature=1)),
    "out of range": ("POST", COMPLETIONS, completion(temperature=-1)),
    "a penalty that is nearly nothing": ("POST", COMPLETIONS, completion(repetition_penalty=5e-324)),
    "seventeen stops": ("POST", COMPLETIONS, completion(stop=["a"] * 17)),
    "an unknown model": ("POST", COMPLETIONS, completion(model="gpt-9")),
    "a stream of a bad request": ("POST", COMPLETIONS, completion(stream=True, logprobs=6)),
    "over the limit": ("POST", COMPLETIONS, completion(prompt="x" * MAX_BODY)),
    "far over the limit": ("POST", COMPLETIONS, b" " * 5_000_000),
    "no messages": ("POST", CHATS, b'{"messages": []}'),
    "a message of another role": ("POST", CHATS, b'{"messages": [{"role": "tool", "content": "x"}]}'),
    "tools": ("POST", CHATS, b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}'),
    "a schema that cannot be followed": (
        *("POST", COMPLETIONS),
        completion(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}),
    ),
    "an image": (
        *("POST", CHATS),
        b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}',
    ),
    "GET where POST is meant": ("GET", COMPLETIONS, b""),
    "POST where GET is meant": ("POST", "/v1/models", b"{}"),
    "DELETE of a model": ("DELETE", "/v1/models/tiny", b""),
    "an unknown route": ("GET", "/v1/embeddings", b""),
    "the root": ("GET", "/", b""),
    "another model": ("GET", "/v1/models/a/b%20c", b""),
    "another model, with a line break": ("GET", "/v1/models/a%0Ab%3Fc%23d", b""),
    "models": ("GET", "/v1/models", b""),
    "models, with a slash and a query": ("GET", "/v1/models/?limit=3", b""),
    "the model": ("GET", "/v1/models/tiny", b""),
    "health": ("GET", "/health", b""),
}


def test_statuses_are_openai_s_and_bodies_the_same_bytes(base_urls: Mapping[str, str]) -> None:
    differing = {}
    with httpx2.Client(timeout=PATIENCE, headers={"authorization": f"Bearer {KEY}"}) as client:
        for name, (method, path, body) in REQUESTS.items():
            answers = [client.request(method, base_urls[entry] + path, content=body) for entry in ENTRY_POINTS]
            seen = {(answer.status_code, answer.content, *_shared(answer)) for answer in answers}
            assert {answer.status_code for answer in answers} <= {200, 400, 404, 405, 413}, name
            if len(seen) > 1:
                differing[name] = seen
    assert not differing


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Bearer ключ", "Basic abc", KEY])
def test_without_a_key_every_entry_point_says_the_same(base_urls: Mapping[str, str], header: str | None) -> None:
    headers = [] if header is None else [(b"authorization", header.encode())]
    for method, path in (("POST", COMPLETIONS), ("GET", "/v1/models"), ("GET", "/ready")):
        answers = [httpx2.request(method, base_urls[entry] + path, headers=headers) for entry in ENTRY_POINTS]
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
        assert len({answer.content for answer in answers}) == 1
    for entry in ENTRY_POINTS:
        assert httpx2.get(f"{base_urls[entry]}/health", headers=headers).status_code == 200


def test_answers_differ_in_nothing_but_id_and_time(base_urls: Mapping[str, str]) -> None:
    body = {"messages": chat("hello"), "seed": 4, "n": 2, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    answers = []
    for entry in ENTRY_POINTS:
        response = httpx2.post(base_urls[entry] + CHATS, json=body, headers={"authorization": f"bearer {KEY}"})
        answer = response.json()
        assert answer.pop("id").startswith("chatcmpl-")
        assert set(answer.pop("timings")) >= {"queue_ms", "prefill_ms", "decode_ms", "total_ms", "cold_start"}
        assert answer.pop("created") > 1_700_000_000
        answers.append(answer)
    assert all(answer == answers[0] for answer in answers)


def test_readiness_says_what_is_loaded(base_urls: Mapping[str, str]) -> None:
    for entry in ENTRY_POINTS:
        ready = httpx2.get(f"{base_urls[entry]}/ready", headers={"authorization": f"Bearer {KEY}"}).json()
        assert ready["status"] == "ready"
        assert ready["model"] == "tiny"
        assert ready["context_length"] == CONTEXT
        assert {"engine", "revision", "dtype", "device"} < set(ready)
        assert {"imports_ms", "tokenizer_ms", "weights_ms", "warm_up_ms", "total_ms"} < set(ready["load"])


def _shared(answer: httpx2.Response) -> tuple[str | None, ...]:
    return tuple(answer.headers.get(name) for name in ("content-type", "allow", "retry-after", "www-authenticate"))


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_routes_answer_without_their_version_and_texts_become_tokens(base_urls: Mapping[str, str], name: str) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=base_urls[name], headers=headers, timeout=PATIENCE) as http:
        assert http.get("/models").json() == http.get("/v1/models").json()
        assert http.post("/completions", json={"prompt": "the fox", "max_tokens": 1}).status_code == 200
        tokens = http.post("/tokenize", json={"prompt": "the fox"}).json()["tokens"]
        assert http.post("/detokenize", json={"tokens": tokens}).json()["content"] == "the fox"
        prompt = http.post("/apply-template", json={"messages": chat("hello")}).json()["prompt"]
        assert prompt == "user: hello\nassistant:"
        refused = http.post("/embeddings", json={"input": "the fox"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (404, "invalid_request_error")
        greedy = {"temperature": 0, "stream": True}
        streamed = http.post("/responses", json={**greedy, "input": "hello", "max_output_tokens": 3}).text
        assert streamed.startswith("event: response.created\ndata: {")
        assert "event: response.incomplete\n" in streamed
        assert "[DONE]" not in streamed
        hello = {"messages": chat("hello"), "max_tokens": 3}
        message = http.post("/messages", json={**hello, **greedy}).text
        assert message.startswith("event: message_start\ndata: {")
        assert message.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    with httpx2.Client(base_url=base_urls[name], headers={"x-api-key": KEY}, timeout=PATIENCE) as http:
        assert http.post("/v1/messages", json={**hello, "temperature": 0}).json()["usage"]["output_tokens"] == 3
        assert http.post("/v1/messages", json={"max_tokens": 3}).status_code == 400
    assert httpx2.get(base_urls[name], timeout=PATIENCE).text.startswith("<!doctype html>")
    for path in ("/tokenize", "/detokenize", "/apply-template", "/v1/responses", "/v1/messages"):
        assert httpx2.post(f"{base_urls[name]}{path}", json={}, timeout=PATIENCE).status_code == 401
