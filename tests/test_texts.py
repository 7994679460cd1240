"""Texts, tokens and prompts over the API's own routes, by the names of vLLM and of llama.cpp's server."""

import json
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from api.chat import ChatTemplate
from api.errors import ApiError, NotFoundError, RequestTooLargeError
from api.model import Model
from api.routes import HttpRequest, canonical_path, handle
from api.service import Service
from engines.base import TokenIds
from tests.deterministic_engine import CHAT_TEMPLATE

TEXT = "the fox jumps, caf\u00e9 \U0001f98a"
USER = {"role": "user", "content": "go"}
ASSISTANT = {"role": "assistant", "content": "the river "}
CALLING = {"role": "assistant", "content": "the river ", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}


@pytest.fixture(scope="module")
def service(llama: Model) -> Service:
    return Service(replace(llama, chat_template=ChatTemplate(CHAT_TEMPLATE, {})))


def ask(service: Service, path: str, **body: Any) -> dict[str, Any]:
    request = HttpRequest("POST", path, {}, json.dumps(body).encode())
    answer: dict[str, Any] = json.loads(handle(request, service, max_body_bytes=10_000, deadline=None).body)
    return answer


def prompt_of(service: Service, **body: Any) -> str:
    prompt: str = ask(service, "/apply-template", **body)["prompt"]
    return prompt


@pytest.mark.parametrize("name", ["prompt", "content"])
def test_a_text_goes_to_tokens_and_back(service: Service, llama: Model, name: str) -> None:
    answer = ask(service, "/tokenize", **{name: TEXT}, return_token_strs=True)
    assert answer["tokens"] == llama.tokenizer.encode(TEXT).tolist()
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == llama.engine.context_length
    assert ask(service, "/detokenize", tokens=answer["tokens"]) == {"prompt": TEXT, "content": TEXT}


def test_the_tokenizer_s_special_tokens_are_vllm_s_default_and_not_llama_cpp_s(llama: Model) -> None:
    class Beginning:
        """A tokenizer that begins every text with token 0."""

        def encode(self, text: str, *, add_special_tokens: bool = True) -> TokenIds:
            ids = llama.tokenizer.encode(text)
            return np.insert(np.array(ids), 0, 0) if add_special_tokens else ids

    beginning: Any = Beginning()
    service = Service(replace(llama, tokenizer=beginning, chat_template=ChatTemplate("fox", {})))
    plain = llama.tokenizer.encode("fox").tolist()
    assert ask(service, "/tokenize", prompt="fox")["tokens"] == [0, *plain]
    assert ask(service, "/tokenize", prompt="fox", add_special_tokens=False)["tokens"] == plain
    assert ask(service, "/tokenize", content="fox")["tokens"] == plain
    assert ask(service, "/tokenize", content="fox", add_special=True)["tokens"] == [0, *plain]
    assert ask(service, "/tokenize", messages=[USER])["tokens"] == plain
    assert ask(service, "/tokenize", messages=[USER], add_special_tokens=True)["tokens"] == [0, *plain]


def test_messages_are_tokenized_as_the_prompt_they_make(service: Service) -> None:
    prompt = prompt_of(service, messages=[USER])
    assert prompt == "user: go\nassistant:"
    tokens = ask(service, "/tokenize", messages=[USER])["tokens"]
    assert tokens == ask(service, "/tokenize", prompt=prompt, add_special_tokens=False)["tokens"]
    usage = ask(service, "/v1/chat/completions", messages=[USER], max_tokens=1)["usage"]
    assert usage["prompt_tokens"] == len(tokens)


def test_a_last_message_of_the_assistant_is_over_unless_it_is_to_be_continued(service: Service) -> None:
    messages = [USER, ASSISTANT]
    assert prompt_of(service, messages=messages) == "user: go\nassistant: the river \nassistant:"
    assert prompt_of(service, messages=messages, add_generation_prompt=False).endswith("river \n")
    continued = prompt_of(service, messages=messages, continue_final_message=True)
    assert continued == "user: go\nassistant: the river "
    same = {"max_tokens": 9, "temperature": 0}
    chat = ask(service, "/v1/chat/completions", messages=messages, continue_final_message=True, **same)
    completion = ask(service, "/v1/completions", prompt=continued, **same)
    assert chat["choices"][0]["message"]["content"] == completion["choices"][0]["text"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/tokenize", {}, "Give one of 'prompt', 'content' and 'messages'."),
        ("/tokenize", {"prompt": "a", "content": "b"}, "Give one of 'prompt', 'content' and 'messages'."),
        ("/tokenize", {"content": ["a"]}, "'content' must be a string."),
        ("/tokenize", {"prompt": "a", "with_pieces": True}, "'with_pieces' is not a parameter this server supports; "),
        ("/tokenize", {"prompt": "a", "model": "x"}, "The model 'x' does not exist here; "),
        ("/detokenize", {"tokens": [320]}, "'tokens' must be token ids from 0 to 319."),
        ("/detokenize", {"tokens": [-1]}, "'tokens' must be token ids from 0 to 319."),
        ("/detokenize", {"tokens": "5"}, "'tokens' must be a list of token ids."),
        ("/detokenize", {}, "'tokens' is required."),
        ("/apply-template", {"messages": []}, "'messages' must be a list of at least one object."),
        (
            "/apply-template",
            {"messages": [USER], "continue_final_message": True},
            "'continue_final_message' needs a last message of the assistant.",
        ),
        (
            "/apply-template",
            {"messages": [ASSISTANT], "continue_final_message": True, "add_generation_prompt": True},
            "'add_generation_prompt' and 'continue_final_message' exclude each other.",
        ),
        (
            "/apply-template",
            {"messages": [USER, CALLING], "continue_final_message": True},
            "The last message calls a tool, so it cannot be continued; send the call's result after it.",
        ),
        (
            "/apply-template",
            {"messages": [USER, {**ASSISTANT, "function_call": {"name": "f"}}], "continue_final_message": True},
            "The last message calls a tool, so it cannot be continued; send the call's result after it.",
        ),
    ],
)
def test_a_bad_request_gets_one_sentence(service: Service, path: str, body: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as caught:
        ask(service, path, **body)
    assert caught.value.message.startswith(message)


def test_a_template_that_leaves_the_last_message_out_cannot_continue_it(llama: Model) -> None:
    service = Service(replace(llama, chat_template=ChatTemplate("{{ messages[0].content }}", {})))
    with pytest.raises(ApiError, match="leaves the last message out"):
        prompt_of(service, messages=[USER, ASSISTANT], continue_final_message=True)


def test_a_body_over_the_limit_is_refused(service: Service) -> None:
    with pytest.raises(RequestTooLargeError):
        ask(service, "/tokenize", prompt="a" * 10_001)


def test_embeddings_are_refused_with_the_reason(service: Service) -> None:
    with pytest.raises(NotFoundError, match="no embeddings here"):
        ask(service, "/v1/embeddings", input="a")


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/completions", "/v1/completions"),
        ("/chat/completions/", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/models/a/b", "/v1/models/a/b"),
        ("/embeddings", "/v1/embeddings"),
        ("/v1/models", "/v1/models"),
        ("/tokenize", "/tokenize"),
        ("/", "/"),
        ("/v1", "/v1"),
        ("/other", "/other"),
    ],
)
def test_paths_are_known_without_their_version(path: str, canonical: str) -> None:
    assert canonical_path(path) == canonical
