"""Requests to answers through the service: what is refused and in which words, and what comes back."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from api.answers import Answer
from api.chat import ChatTemplate
from api.errors import ApiError, InvalidRequestError, NotFoundError, ServiceUnavailableError
from api.messages import plain_messages
from api.model import Model
from api.routes import HttpRequest, handle
from api.schema import CalledFunction, ChatRequest, CompletionRequest, Message
from api.service import Service
from api.validation import parse_json, validate
from generation.deadline import Deadline
from tests.checkpoints import CONTEXT


@pytest.fixture(scope="module")
def service(llama: Model) -> Service:
    return Service(llama, max_tokens=600)


def complete(service: Service, **body: Any) -> Answer:
    return service.respond(service.prepare(validate(CompletionRequest, {"prompt": "the fox", **body})))


@pytest.fixture(scope="module")
def chatting(llama: Model) -> Service:
    """The same with a chat template that a caller can tell something."""
    template = "{% if mood %}{{ mood * 2 }} {% endif %}{{ reasoning_effort }}{{ messages }}"
    return Service(replace(llama, chat_template=ChatTemplate(template, {"bos_token": "<s>"})))


def chat(service: Service, **body: Any) -> Answer:
    messages = [{"role": "user", "content": "hi"}]
    return service.respond(service.prepare(validate(ChatRequest, {"messages": messages, **body})))


def refusal(service: Service, kind: type[CompletionRequest] | type[ChatRequest], body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        service.prepare(validate(kind, body))
    return caught.value


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ([], "The body must be a JSON object.", None),
        ({}, "'prompt' is required.", "prompt"),
        ({"prompt": ""}, "'prompt' is empty; send at least one token of text.", "prompt"),
        ({"prompt": []}, "'prompt' is empty; send at least one token of text.", "prompt"),
        ({"prompt": ["a", ""]}, "'prompt' is empty; send at least one token of text.", "prompt"),
        (
            {"prompt": 5},
            "'prompt' must be a string, a list of strings, a list of token ids or a list of lists of token ids.",
            "prompt",
        ),
        ({"prompt": [5000]}, "'prompt' holds the token id 5000; ids go from 0 to 319.", "prompt"),
        ({"prompt": "x", "tools": []}, "'tools' is not a parameter this server supports; leave it out.", "tools"),
        ({"prompt": "x", "topp": 1}, "'topp' is not a parameter this server supports; did you mean 'top_p'?", "topp"),
        ({"prompt": "x", "temperature": 5}, "'temperature' must be a number between 0 and 2, not 5.", "temperature"),
        ({"prompt": "x", "n": "2"}, "'n' must be an integer between 1 and 16, not '2'.", "n"),
        ({"prompt": "x", "stop": ["a"] * 17}, "'stop' must be a string or a list of up to 16 strings.", "stop"),
        ({"prompt": "x", "stop": [""]}, "'stop' must not hold an empty string.", "stop"),
        ({"prompt": "x", "max_tokens": 0}, "'max_tokens' must be at least 1 unless 'echo' is true.", "max_tokens"),
        (
            {"prompt": "x", "logit_bias": {"320": 1}},
            "'logit_bias' names '320'; its keys are token ids from 0 to 319.",
            "logit_bias",
        ),
        ({"prompt": "x", "min_tokens": 99}, "'min_tokens' is more than the 16 tokens allowed.", "min_tokens"),
    ],
)
def test_a_bad_completion_request_gets_one_sentence(
    service: Service, body: Any, message: str, param: str | None
) -> None:
    error = refusal(service, CompletionRequest, body)
    assert isinstance(error, InvalidRequestError)
    assert (error.message, error.param, error.status) == (message, param, 400)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "'messages' must be a list of at least one object."),
        ({"messages": ["hi"]}, "'messages[0]' must be an object."),
        ({"messages": "hi"}, "'messages' must be a list of at least one object."),
        (
            {"messages": [{"role": "ipython", "content": "x"}]},
            "'messages[0].role' must be 'assistant', 'developer', 'function', 'system', 'tool' or 'user', "
            "not 'ipython'.",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "'messages[0].content' must be a string or a list of text parts.",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 3},
            "'top_logprobs' needs 'logprobs' to be true.",
        ),
        (
            {"messages": [{"role": "user", "content": "x"}]},
            "The model 'tiny-llama' has no chat template; use /v1/completions with a prompt.",
        ),
    ],
)
def test_a_bad_chat_request_gets_one_sentence(service: Service, body: Any, message: str) -> None:
    assert refusal(service, ChatRequest, body).message == message


def test_a_prompt_over_the_context_is_told_its_length_and_what_fits(service: Service) -> None:
    error = refusal(service, CompletionRequest, {"prompt": [5] * CONTEXT})
    assert error.message == (
        "The prompt is 640 tokens long; this model's context holds 640, "
        "so at most 639 fit with one token of completion."
    )
    assert error.code == "context_length_exceeded"


@pytest.mark.parametrize(("asked", "granted"), [(5, None), (6, 5), (4096, 5)])
def test_more_tokens_than_the_context_leaves_are_cut_to_that_and_the_answer_says_so(
    service: Service, asked: int, granted: int | None
) -> None:
    body = {"prompt": [[5], [5] * (CONTEXT - 5)], "max_tokens": asked, "ignore_eos": True}
    whole = complete(service, **body)
    parts = list(service.stream(service.prepare(validate(CompletionRequest, {**body, "stream": True}))))
    assert [answer.get("max_tokens_cut_to") for answer in (whole, *parts)] == [granted] * (1 + len(parts))
    assert whole["usage"]["completion_tokens"] == 2 * (granted or asked)
    assert whole["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("asked", "granted"), [(600, None), (601, 600)])
def test_more_tokens_than_the_server_allows_are_cut_to_that(service: Service, asked: int, granted: int | None) -> None:
    prepared = service.prepare(validate(CompletionRequest, {"prompt": "x", "max_tokens": asked}))
    assert prepared.max_tokens_cut_to == granted
    assert prepared.choices[0].params.max_tokens == (granted or asked)


def test_the_newer_name_of_a_chat_s_limit_counts(chatting: Service) -> None:
    answer = chat(chatting, max_tokens=9, max_completion_tokens=4, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 4
    assert "max_tokens_cut_to" not in answer


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "fox " * 1_500_000}, "prompt"),  # 6 MB, what a direct invocation of a function can carry
        ({"prompt": "\n" * 16_000 + "fox " * 250}, "prompt"),
        ({"prompt": ["fox", "fox " * 1_500_000]}, "prompt"),
        ({"prompt": [5] * 300_000}, "prompt"),
    ],
)
def test_a_prompt_far_over_the_context_is_told_so(service: Service, body: Any, param: str) -> None:
    error = refusal(service, CompletionRequest, body)
    assert (error.status, error.param, error.code) == (400, param, "context_length_exceeded")
    assert error.message.endswith("this model's context holds 640, so at most 639 fit with one token of completion.")


def test_another_model_s_name_is_not_found(service: Service) -> None:
    error = refusal(service, CompletionRequest, {"prompt": "x", "model": "gpt-5"})
    assert isinstance(error, NotFoundError)
    assert (error.status, error.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "The body is not valid JSON: Expecting property name enclosed in double quotes at line 1, column 2."),
        (b'{"prompt": "\xff"}', "The body is not valid UTF-8 (byte 12); send JSON in UTF-8."),
        (b'{"temperature": NaN}', "The body is not valid JSON: NaN is not a JSON number."),
        (b'{"seed": ' + b"9" * 5000 + b"}", "The body holds a number too long to read."),
        (b'{"metadata": {"a": [-1e999]}}', "The body holds a number too large to read."),
        (b"[" * 100_000, "The body is nested too deeply."),
    ],
)
def test_what_is_not_json_is_told_where(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_json(body)
    assert caught.value.message == message


WITHOUT_EFFECT: dict[str, Any] = {
    "best_of": 1,
    "metadata": {"run": "7", "nested": {"x": None}},
    "prompt_cache_retention": "24h",
    "safety_identifier": "someone",
    "service_tier": "auto",
    "store": True,
    "stream_options": {"include_obfuscation": True},
    "user": "someone",
}
WITHOUT_EFFECT_ON_A_CHAT: dict[str, Any] = {
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "verbosity": "low",
}


@pytest.mark.parametrize("field", WITHOUT_EFFECT)
def test_what_is_accepted_without_effect_has_none(service: Service, field: str) -> None:
    given = complete(service, seed=3, **{field: WITHOUT_EFFECT[field]})
    assert given["choices"] == complete(service, seed=3)["choices"]


@pytest.mark.parametrize("field", [*WITHOUT_EFFECT, *WITHOUT_EFFECT_ON_A_CHAT])
def test_what_is_accepted_without_effect_on_a_chat_has_none(chatting: Service, field: str) -> None:
    value = {**WITHOUT_EFFECT, **WITHOUT_EFFECT_ON_A_CHAT}[field]
    given = chat(chatting, seed=3, max_tokens=8, **{field: value})
    assert given["choices"] == chat(chatting, seed=3, max_tokens=8)["choices"]


def test_an_answer_can_be_sent_back_as_clients_keep_it(chatting: Service) -> None:
    kept: dict[str, Any] = {
        "annotations": [],
        "provider_specific_fields": {"refusal": None},
        "refusal": None,
        "audio": None,
    }
    marked = [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]
    asked = {"role": "user", "content": marked}
    answer = {"role": "assistant", "content": "yes", **kept, "tool_calls": [], "function_call": None}
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    answers = [
        chat(chatting, messages=messages, seed=3, max_tokens=8)["choices"] for messages in ([asked, answer], plain)
    ]
    assert answers[0] == answers[1]


def test_a_chat_template_sees_what_it_asks_for(chatting: Service) -> None:
    def prompt(**body: Any) -> str:
        request = validate(ChatRequest, {"messages": [{"role": "assistant", "content": "x", **message}], **body})
        (choice,) = chatting.prepare(request).choices
        return chatting.model.tokenizer.decode(choice.prompt.tolist())

    message: dict[str, Any] = {}
    assert prompt() == "[{'role': 'assistant', 'content': 'x'}]"
    assert prompt(reasoning_effort="low").startswith("low[")
    assert prompt(chat_template_kwargs={"mood": "so"}).startswith("soso [")
    message = {"reasoning_content": "so"}
    assert "'reasoning_content': 'so'" in prompt()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"messages": "x"}, "'chat_template_kwargs' must not hold 'messages'."),
        ({"bos_token": "x"}, "'chat_template_kwargs' must not hold 'bos_token'."),
        (
            {"mood": "x", "deep": {}},
            "'chat_template_kwargs' must be an object of strings, numbers, true and false.",
        ),
    ],
)
def test_variables_that_a_template_cannot_take_are_refused(
    chatting: Service, variables: dict[str, Any], message: str
) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": variables}
    assert refusal(chatting, ChatRequest, body).message == message


def test_a_template_that_fails_on_a_variable_s_type_refuses_it(llama: Model) -> None:
    service = Service(replace(llama, chat_template=ChatTemplate("{{ mood + 'x' }}{{ 1 // many }}", {})))
    for variables in ({"mood": 5}, {"mood": "x", "many": 0}):
        body = {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": variables}
        assert "chat template refuses these messages" in refusal(service, ChatRequest, body).message


def test_one_model_on_one_engine_has_one_fingerprint(service: Service, llama: Model) -> None:
    first, second = (complete(service)["system_fingerprint"] for _ in range(2))
    assert first == second == llama.fingerprint
    assert replace(llama, revision="another").fingerprint != first


def test_null_means_not_given(service: Service) -> None:
    nulls = dict.fromkeys(("seed", "stop", "tools", "logprobs", "max_tokens", "top_p"))
    assert complete(service, temperature=0, **nulls)["choices"] == complete(service, temperature=0)["choices"]


def test_usage_counts_every_prompt_once_and_every_choice(service: Service) -> None:
    answer = complete(service, prompt=[[5, 6, 7], [8]], n=3, max_tokens=4, ignore_eos=True)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert answer["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 24,
        "total_tokens": 28,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def test_choices_with_one_seed_differ_and_repeat(service: Service) -> None:
    first, second = (complete(service, n=3, seed=4, max_tokens=12)["choices"] for _ in range(2))
    assert first == second
    assert len({choice["text"] for choice in first}) == 3


def test_choices_with_a_negative_seed_differ(service: Service) -> None:
    choices = complete(service, n=5, seed=-2, max_tokens=12, ignore_eos=True)["choices"]
    assert len({choice["text"] for choice in choices}) == 5


def test_a_function_s_answer_belongs_to_its_latest_call() -> None:
    def called(name: str) -> Message:
        return Message("assistant", function_call=CalledFunction(name))

    messages = [called("f"), called("g"), called("f"), Message("function", name="g", content="1")]
    messages += [Message("function", name="f", content="2"), Message("function", name="h", content="3")]
    ids = [message["tool_call_id"] for message in plain_messages(messages)[3:]]
    assert ids == ["call_1", "call_2", "h"]


def test_echo_without_completion_scores_the_prompt(service: Service) -> None:
    choice = complete(service, prompt="the lazy dog", echo=True, max_tokens=0, logprobs=1)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("the lazy dog", "length")
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == "the lazy dog"
    assert logprobs["token_logprobs"][0] is None
    located = zip(logprobs["text_offset"], logprobs["tokens"], strict=True)
    assert all(choice["text"][offset:].startswith(token) for offset, token in located)


@pytest.mark.parametrize("echo", [False, True])
def test_a_stream_joined_is_the_whole_answer(service: Service, echo: bool) -> None:
    body = {
        "prompt": ["the 🦊", "dog"],
        "n": 2,
        "seed": 5,
        "max_tokens": 40,
        "stop": ["q"],
        "logprobs": 2,
        "echo": echo,
    }
    whole = service.respond(service.prepare(validate(CompletionRequest, body)))["choices"]
    job = service.prepare(validate(CompletionRequest, {**body, "stream": True}))
    parts = [part["choices"][0] for part in service.stream(job) if part]
    for choice in whole:
        own = [part for part in parts if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert [part["finish_reason"] for part in own] == [None] * (len(own) - 1) + [choice["finish_reason"]]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [item for part in own for item in part["logprobs"][name]] == choice["logprobs"][name]


def test_a_deadline_cut_says_so(service: Service) -> None:
    job = service.prepare(validate(CompletionRequest, {"prompt": "the fox", "max_tokens": 500, "ignore_eos": True}))
    choice = service.respond(job, deadline=Deadline(0.0))["choices"][0]
    assert (choice["finish_reason"], choice["cut_by_deadline"], choice["text"]) == ("length", True, "")


@pytest.mark.parametrize("runs_out", ["forward", "new_cache"])
def test_running_out_of_memory_is_a_503_and_the_next_request_works(
    service: Service, runs_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(type(service.model.engine), runs_out, _no_memory)
        with pytest.raises(ServiceUnavailableError, match="shorter prompt"):
            complete(service)
    assert complete(service, temperature=0)["choices"][0]["text"]


def _no_memory(*_: Any, **__: Any) -> None:
    raise MemoryError


def test_only_the_first_answer_is_the_cold_one(llama: Model) -> None:
    service = Service(llama)
    first, second = (complete(service)["timings"] for _ in range(2))
    assert first["cold_start"]
    assert first["init"] == llama.load_ms
    assert not second["cold_start"]
    assert "init" not in second


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/completions", 405), ("POST", "/health", 405), ("POST", "/v1/embeddings", 404), ("GET", "/", 404)],
)
def test_unknown_routes_and_methods(service: Service, method: str, path: str, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        handle(HttpRequest(method, path, {}, b"{}"), service, max_body_bytes=10, deadline=None)
    assert caught.value.status == status


def test_a_buffered_stream_is_server_sent_events(service: Service) -> None:
    body = json.dumps({"prompt": "the", "stream": True, "max_tokens": 3, "ignore_eos": True}).encode()
    request = HttpRequest("POST", "/v1/completions", {}, body)
    response = handle(request, service, max_body_bytes=1000, deadline=None)
    *events, done, end = response.body.split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    assert all(json.loads(event.removeprefix(b"data: "))["object"] == "text_completion" for event in events)
