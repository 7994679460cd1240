"""What clients that score text read from a completion: a log-probability for every token, the sampled one included."""

from typing import Any

import pytest
from msgspec.structs import replace

from api.answers import Answer
from api.chat import ChatTemplate
from api.errors import InvalidRequestError
from api.model import Model
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from tests.deterministic_engine import CHAT_TEMPLATE

ENDS: dict[str, Any] = {"logit_bias": {"0": 100}}
"""The next token is `<eos>`; log-probabilities are the model's own, before any bias."""
LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


@pytest.fixture(scope="module")
def service(llama: Model) -> Service:
    return Service(llama)


def choice_of(service: Service, **body: Any) -> Answer:
    request = validate(CompletionRequest, {"prompt": "the lazy dog", "temperature": 0, "logprobs": 1, **body})
    choice: Answer = service.respond(service.prepare(request))["choices"][0]
    return choice


def parts_of(service: Service, **body: Any) -> list[Answer]:
    request = validate(
        CompletionRequest, {"prompt": "the lazy dog", "temperature": 0, "logprobs": 1, "stream": True, **body}
    )
    return [part["choices"][0] for part in service.stream(service.prepare(request)) if part]


@pytest.mark.parametrize("echo", [False, True])
def test_end_of_sequence_is_the_last_entry_and_has_no_text(service: Service, echo: bool) -> None:
    choice = choice_of(service, echo=echo, max_tokens=1, **ENDS)
    assert (choice["text"], choice["finish_reason"]) == ("the lazy dog" if echo else "", "stop")
    assert choice["logprobs"]["tokens"][-1] == "<eos>"
    assert choice["logprobs"]["text_offset"][-1] == len(choice["text"])
    assert {len(choice["logprobs"][name]) for name in LISTS} == {
        len(service.model.tokenizer.encode(choice["text"])) + 1
    }


def test_end_of_sequence_has_the_entry_that_any_other_token_would_have(service: Service) -> None:
    body = {"echo": True, "max_tokens": 1, "logprobs": 3, **ENDS}
    assert choice_of(service, **body)["logprobs"] == choice_of(service, **body, ignore_eos=True)["logprobs"]


def test_a_scored_prompt_has_the_same_entries_whatever_is_sampled_after_it(service: Service) -> None:
    alone = choice_of(service, echo=True, max_tokens=0)["logprobs"]
    for after in ({}, ENDS, {"logit_bias": {"9": 100}}):
        scored = choice_of(service, echo=True, max_tokens=1, **after)["logprobs"]
        assert {name: scored[name][:-1] for name in LISTS} == {name: alone[name] for name in LISTS}


def test_end_of_sequence_after_some_text_follows_its_tokens(service: Service) -> None:
    choice = choice_of(service, max_tokens=9, min_tokens=4, **ENDS)
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"].index("<eos>") == 4 == len(choice["logprobs"]["tokens"]) - 1
    assert choice["logprobs"]["text_offset"][-1] == len(choice["text"])


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize(("max_tokens", "min_tokens"), [(1, 0), (9, 4)])
def test_streamed_entries_joined_are_the_whole_answer_s(
    service: Service, echo: bool, max_tokens: int, min_tokens: int
) -> None:
    body = {"echo": echo, "max_tokens": max_tokens, "min_tokens": min_tokens, **ENDS}
    whole, parts = choice_of(service, **body), parts_of(service, **body)
    assert "".join(part["text"] for part in parts) == whole["text"]
    for name in LISTS:
        assert [entry for part in parts for entry in part["logprobs"][name]] == whole["logprobs"][name]


def test_a_chat_s_entries_are_the_tokens_of_its_content(llama: Model) -> None:
    service = Service(replace(llama, chat_template=ChatTemplate(CHAT_TEMPLATE, {})))
    body = {"messages": [{"role": "user", "content": "hi"}], "logprobs": True, "min_tokens": 4, "seed": 2, **ENDS}
    answer = service.respond(service.prepare(validate(ChatRequest, body)))
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert len(choice["logprobs"]["content"]) == answer["usage"]["completion_tokens"] - 1 == 4


def test_more_choices_than_the_setting_allows_are_refused(llama: Model) -> None:
    service = Service(llama, max_choices=4)
    assert len(service.prepare(validate(CompletionRequest, {"prompt": ["a", "b"], "n": 2})).choices) == 4
    with pytest.raises(InvalidRequestError, match="3 prompts with 'n' 2 make 6 choices; one request may ask for 4"):
        service.prepare(validate(CompletionRequest, {"prompt": ["a", "b", "c"], "n": 2}))
