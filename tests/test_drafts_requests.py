"""Requests say what is guessed for them, and answers how many guesses came true."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from api.answers import Answer
from api.chat import ChatTemplate
from api.errors import InvalidRequestError
from api.model import Model
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from generation.drafting import MOST_DRAFTED
from model_loader import load_model
from server.serving import Serving
from settings import ROOT, Settings
from tests.deterministic_engine import CHAT_TEMPLATE
from tests.running_server import PATIENCE, served

PROMPT = [40, 41, 42, 43, 44, 45, 46, 47]


@pytest.fixture(scope="module")
def model(llama_directory: Path, compiled: Callable[..., Path]) -> Model:
    """Compiled: drafts are for engines whose logits do not depend on what else is in a pass."""
    loaded = load_model(Settings(model_dir=str(compiled(llama_directory, "int8"))))
    return replace(loaded, chat_template=ChatTemplate(CHAT_TEMPLATE, {}))


@pytest.fixture
def service(model: Model) -> Service:
    return Service(model)


def ask(service: Service, **body: Any) -> Answer:
    body = {"max_tokens": 40, "temperature": 0, "ignore_eos": True, **body}
    if "messages" in body:
        return service.respond(service.prepare(validate(ChatRequest, body)))
    return service.respond(service.prepare(validate(CompletionRequest, {"prompt": PROMPT, **body})))


def tried(answer: Answer) -> tuple[int, int]:
    """Tokens of drafts that came, and that did not."""
    details = answer["usage"]["completion_tokens_details"]
    return details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]


def expected(text: str | list[str]) -> dict[str, Any]:
    """The parameter that says that an answer will be `text`, in one part or several."""
    content = text if isinstance(text, str) else [{"type": "text", "text": part} for part in text]
    return {"type": "content", "content": content}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("kind", [{}, {"messages": [{"role": "user", "content": "hi"}]}])
def test_a_predicted_answer_is_the_same_and_says_how_much_of_it_was_predicted(
    service: Service, kind: dict[str, Any], parts: int
) -> None:
    bias = {str(token): 100 for token in range(70, 90)}  # letters, which are spelled in one way
    plain = ask(service, **kind, logit_bias=bias, prompt_lookup_num_tokens=0)
    choice = plain["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    third = len(text) // parts
    said = text if parts == 1 else [text[:third], text[third : 2 * third], text[2 * third :]]
    answer = ask(service, **kind, logit_bias=bias, prediction=expected(said))
    assert answer["choices"] == plain["choices"]
    assert tried(plain) == (0, 0)
    assert tried(answer)[0] > 15


@pytest.mark.parametrize(
    "body",
    [
        {"n": 3, "seed": 5, "temperature": 0.8},
        {"echo": True, "logprobs": 2},
        {"prompt": ["once upon", "once upon a time"], "n": 2, "seed": 1, "temperature": 1},
        {"response_format": {"type": "json_object"}, "seed": 3, "temperature": 1, "logprobs": 1},
        {"structured_outputs": {"regex": "(ab){1,9}c"}},
        {"stop": ["e"], "frequency_penalty": 0.5},
    ],
)
def test_an_answer_is_the_same_whatever_is_guessed(model: Model, body: dict[str, Any]) -> None:
    answers = [
        ask(Service(model), **body, **guessed)["choices"]
        for guessed in (
            {"prompt_lookup_num_tokens": 0},
            {},
            {"prompt_lookup_num_tokens": 1},
            {"prediction": expected("ababababab")},
        )
    ]
    assert answers[1:] == answers[:1] * 3


def test_a_setting_says_how_much_is_guessed_where_a_request_does_not(model: Model) -> None:
    repeating = {"logit_bias": {"75": 100}}
    assert tried(ask(Service(model), **repeating))[0] > 10
    off = Service(model, draft_tokens=0)
    assert tried(ask(off, **repeating)) == (0, 0)
    assert tried(ask(off, **repeating, prompt_lookup_num_tokens=5))[0] > 10
    assert Settings().prompt_lookup_num_tokens == MOST_DRAFTED


def test_an_engine_whose_passes_round_differently_guesses_nothing(llama: Model) -> None:
    repeating = {"logit_bias": {"75": 100}, "prediction": expected("KKKK"), "prompt_lookup_num_tokens": 5}
    assert tried(ask(Service(llama), **repeating)) == (0, 0)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"prompt_lookup_num_tokens": 32}, "'prompt_lookup_num_tokens' must be an integer between 0 and 31."),
        ({"prediction": "fox"}, "'prediction' must be an object"),
        ({"prediction": {"type": "text", "content": "x"}}, "'prediction.type' must be 'content'."),
        ({"prediction": {"type": "content"}}, "'prediction.content' is required."),
        (
            {"prediction": expected("fox ") | {"content": 3}},
            "'prediction.content' must be a string or a list of text parts",
        ),
        ({"prediction": expected("fox " * 700)}, "'prediction' is longer than the 640 tokens"),
    ],
)
def test_what_cannot_be_a_prediction_is_refused(service: Service, body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)):
        ask(service, **body)


def test_the_document_s_request_is_answered(service: Service) -> None:
    document = (ROOT / "docs" / "drafts.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", document, re.DOTALL)
    assert ask(service, **json.loads(example))["usage"]["completion_tokens"] == 40


def test_the_server_counts_guesses(model: Model) -> None:
    with served(Serving(model, Settings())) as url, httpx2.Client(base_url=url, timeout=PATIENCE) as client:
        body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "logit_bias": {"75": 100}, "ignore_eos": True}
        answer = client.post("/v1/completions", json=body).json()
        lines = client.get("/metrics").text.splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if "_prediction_tokens_total" in line and line[0] != "#")
    counted = [float(figures[f"causal_lm_{kind}_prediction_tokens_total"]) for kind in ("accepted", "rejected")]
    assert tuple(counted) == tried(answer)
    assert counted[0] > 10


@pytest.mark.parametrize("prompt", [[40], [40, 41, 42, 43] * 4 + [40]])
def test_choices_that_share_a_prompt_are_the_same_whatever_is_guessed(model: Model, prompt: list[int]) -> None:
    """Where the one that reads it has one token of it left: it has no more, or the rest was read before."""
    body = {"prompt": prompt, "n": 3, "seed": 1, "temperature": 1, "logit_bias": {str(token): 60 for token in prompt}}
    plain = ask(Service(model), **body, prompt_lookup_num_tokens=0)
    service = Service(model)
    for _ in range(2):
        answer = ask(service, **body, prediction=expected("ababababab"))
        assert answer["choices"] == plain["choices"]
        assert ask(service, **body)["choices"] == plain["choices"]
