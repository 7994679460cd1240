"""Answers in shape through the service: valid by a validator that shares nothing with what made them."""

import json
import re
from typing import Any

import jsonschema_rs
import pytest

from api.answers import Answer
from api.errors import ApiError, InvalidRequestError
from api.model import Model
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from generation.tokenizer import REPLACEMENT
from tests.deterministic_engine import DeterministicEngine, deterministic_model
from tests.schema_corpus import SCHEMAS, UNSUPPORTED

SAMPLINGS: list[dict[str, Any]] = [
    {"temperature": 1.5, "seed": 1},
    {"temperature": 2.0, "top_p": 0.9, "frequency_penalty": 2.0, "presence_penalty": -2.0, "seed": 2},
    {"temperature": 0},
    {"temperature": 1.5, "n": 3, "seed": 3, "logprobs": 2, "stop": ["a", '"', "}", ","], "min_tokens": 200},
    {"temperature": 0.7, "top_k": 5, "repetition_penalty": 1.5, "min_p": 0.1, "seed": 4, "ignore_eos": True},
]


@pytest.fixture(scope="module")
def service(llama: Model) -> Service:
    return Service(deterministic_model(llama.tokenizer, DeterministicEngine(context_length=2000)))


@pytest.fixture(scope="module")
def endings(llama: Model) -> dict[str, float]:
    """A bias to what ends texts, lists, objects and answers, so that those of an unlearned network do end."""
    ids = (int(token) for mark in '"]}' for token in llama.tokenizer.encode(mark))
    return {"0": 100.0} | {str(token): 6.0 for token in ids}


def complete(service: Service, **body: Any) -> Answer:
    request = validate(CompletionRequest, {"prompt": "the fox", "max_tokens": 1000, **body})
    return service.respond(service.prepare(request))


def stream(service: Service, **body: Any) -> list[Answer]:
    request = validate(CompletionRequest, {"prompt": "the fox", "max_tokens": 1000, **body, "stream": True})
    return list(service.stream(service.prepare(request)))


def asked(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


@pytest.mark.parametrize("name", sorted(SCHEMAS.keys() - UNSUPPORTED.keys()))
def test_every_answer_is_valid_whatever_the_sampling_whole_and_streamed(
    service: Service, endings: dict[str, float], name: str
) -> None:
    schema = SCHEMAS[name]
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    ended = 0
    for sampling in SAMPLINGS:
        body = {**sampling, "logit_bias": endings, "response_format": asked(schema)}
        choices = complete(service, **body)["choices"]
        parts = [part["choices"][0] for part in stream(service, **body)]
        for choice in choices:
            streamed = "".join(part["text"] for part in parts if part["index"] == choice["index"])
            assert streamed == choice["text"]
            if choice["finish_reason"] == "stop":
                document = re.sub(r":60([zZ+-])", r":59\1", choice["text"])  # any minute may have a leap second here
                validator.validate(json.loads(document))
                ended += 1
    assert ended >= 3, "answers that only max_tokens ends say nothing"


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_keyword_that_is_not_supported_is_refused_by_name(service: Service, name: str) -> None:
    for body in ({"response_format": asked(SCHEMAS[name])}, {"structured_outputs": {"json": SCHEMAS[name]}}):
        with pytest.raises(InvalidRequestError) as caught:
            stream(service, **body)
        assert UNSUPPORTED[name] in caught.value.message
        assert caught.value.message.startswith(f"'{caught.value.param}' cannot be followed: ")
        assert caught.value.param in ("response_format.json_schema.schema", "structured_outputs.json")
        assert UNSUPPORTED[name] not in str(caught.value)


def test_the_share_of_schemas_that_are_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    accepted = len(SCHEMAS) - len(UNSUPPORTED)
    with capsys.disabled():
        print(
            f" {accepted} of {len(SCHEMAS)} schemas of the corpus are accepted, all of them held to valid answers",
            end="",
        )
    assert UNSUPPORTED.keys() <= SCHEMAS.keys()


@pytest.mark.parametrize(
    "shape", [{"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}]
)
def test_an_object_of_any_kind(service: Service, endings: dict[str, float], shape: dict[str, Any]) -> None:
    for seed in range(6):
        (choice,) = complete(service, **shape, seed=seed, temperature=1.5, logit_bias=endings)["choices"]
        assert choice["text"].startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["text"]), dict)


@pytest.mark.parametrize(
    ("outputs", "pattern"),
    [
        ({"regex": r"[a-z]{3,8}@example\.com"}, r"[a-z]{3,8}@example\.com"),
        ({"choice": ["yes", "no", 'per"haps']}, 'yes|no|per"haps'),
        ({"grammar": 'start: "a" b\nb: /[0-9]{1,3}/'}, "a[0-9]{1,3}"),
        ({"choice": ["ok \ufffd"]}, "ok \ufffd"),
    ],
)
def test_shapes_that_are_not_json(service: Service, outputs: dict[str, Any], pattern: str) -> None:
    for seed in range(8):
        answer = chat(service, structured_outputs=outputs, seed=seed, temperature=1.5, n=2)
        for choice in answer["choices"]:
            assert re.fullmatch(pattern, choice["message"]["content"])
            assert choice["finish_reason"] == "stop"


def chat(service: Service, **body: Any) -> Answer:
    messages = [{"role": "user", "content": "hi"}]
    return service.respond(service.prepare(validate(ChatRequest, {"messages": messages, **body})))


def test_choices_of_one_seed_differ_and_repeat_and_streamed_log_probabilities_are_the_whole_answer_s(
    service: Service, endings: dict[str, float]
) -> None:
    body = {"response_format": asked(SCHEMAS["a person"]), "n": 4, "seed": 9, "temperature": 1.5, "logprobs": 1}
    body |= {"logit_bias": endings}
    first, second = (complete(service, **body)["choices"] for _ in range(2))
    assert first == second
    assert len({choice["text"] for choice in first}) == 4
    parts = [part["choices"][0] for part in stream(service, **body)]
    for choice in first:
        own = [part["logprobs"] for part in parts if part["index"] == choice["index"]]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert [entry for logprobs in own for entry in logprobs[name]] == choice["logprobs"][name]
        located = zip(choice["logprobs"]["text_offset"], choice["logprobs"]["tokens"], strict=True)
        assert all(choice["text"][at:].startswith(token) for at, token in located if REPLACEMENT not in token)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "Give 'response_format' or 'structured_outputs', not both.",
        ),
        ({"response_format": {"type": "json_schema"}}, "'response_format.json_schema' is required."),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "'response_format.json_schema.schema' is required.",
        ),
        (
            {"structured_outputs": {"regex": "a", "choice": ["a"]}},
            "'structured_outputs' must hold one of 'json', 'json_object', 'regex', 'choice', 'grammar'.",
        ),
        (
            {"structured_outputs": {}},
            "'structured_outputs' must hold one of 'json', 'json_object', 'regex', 'choice', 'grammar'.",
        ),
        ({"structured_outputs": {"choice": []}}, "'structured_outputs.choice' must be a list of at least one string."),
        (
            {"response_format": asked({"x-guidance": {"lenient": True}, "not": {}})},
            "'response_format.json_schema.schema' cannot be followed: it uses 'x-guidance'.",
        ),
        (
            {"structured_outputs": {"regexp": "a"}},
            "'structured_outputs.regexp' is not a parameter this server supports; did you mean 'regex'?",
        ),
    ],
)
def test_what_is_asked_for_wrongly_gets_one_sentence(service: Service, body: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as caught:
        complete(service, **body)
    assert caught.value.message == message


@pytest.mark.parametrize("streamed", [False, True])
def test_a_shape_that_takes_too_much_on_its_way_ends_with_an_error(service: Service, streamed: bool) -> None:
    body = {"structured_outputs": {"regex": "[ab]{30}(a{1000}){1000}"}}
    with pytest.raises(InvalidRequestError, match=r"^The shape that was asked for took too much to follow"):
        (stream if streamed else complete)(service, **body)
    assert complete(service, max_tokens=5)["choices"]


def test_text_is_no_shape(service: Service) -> None:
    free = complete(service, seed=3, max_tokens=20)["choices"]
    assert complete(service, seed=3, max_tokens=20, response_format={"type": "text"})["choices"] == free
