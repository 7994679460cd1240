"""Tools through the service: every call is valid, in every style, whatever the sampling, whole and streamed."""

import json
from typing import Any

import jsonschema_rs
import pytest
from msgspec.structs import replace
from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from api.answers import Answer
from api.chat import ChatTemplate
from api.schema import ChatRequest
from api.service import Service
from api.validation import validate
from generation.tokenizer import Tokenizer
from tests.checkpoints import write_tokenizer
from tests.deterministic_engine import DeterministicEngine, deterministic_model

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls }}{{ m.tool_call_id }}\n{% endfor %}"
OFFERED = "{% if tools %}{{ tools | tojson }}\n{% endif %}"
STYLES = {
    "hermes": OFFERED + "{# <tool_call>\n{...}\n</tool_call> #}" + TURNS,
    "tagged list": OFFERED + "{# <tool_call>[...]</tool_call> #}" + TURNS,
    "mistral": OFFERED + "{# [TOOL_CALLS][...] #}" + TURNS,
    "mistral, spaced": OFFERED + "{# [TOOL_CALLS] [...] #}" + TURNS,
    "mistral, arguments": OFFERED + "{# [TOOL_CALLS]name[ARGS]{...} #}" + TURNS,
    "llama": OFFERED + '{# {"name": NAME, "parameters": {...}} #}' + TURNS,
    "plain": OFFERED + TURNS,
    "described": TURNS,
    "thinking": OFFERED + "{# <think></think> <tool_call> #}" + TURNS,
    "thinking, opened": OFFERED + "{# </think> <tool_call> #}" + TURNS + "<think>\n",
}
"""Templates of the same conventions as published ones."""
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "where": {"type": "object", "properties": {"deep": {"enum": ["}", '"{', "\\"]}}, "required": ["deep"]},
    },
    "required": ["city", "where"],
    "additionalProperties": False,
}
TIME: dict[str, Any] = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
SCHEMAS = {"get_weather": WEATHER, "time.now": {**TIME, "additionalProperties": False}, "stop": {"maxProperties": 0}}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather.", "parameters": WEATHER}},
    {
        "type": "function",
        "function": {"name": "time.now", "parameters": SCHEMAS["time.now"], "strict": True},
    },
    {"type": "function", "function": {"name": "stop"}},
]
SAMPLINGS: list[dict[str, Any]] = [
    {"temperature": 1.5, "seed": 1},
    {"temperature": 2.0, "frequency_penalty": 2.0, "presence_penalty": -2.0, "seed": 2, "min_tokens": 150},
    {"temperature": 0},
    {"temperature": 1.5, "n": 3, "seed": 3, "logprobs": True, "top_logprobs": 1, "stop": ["a", '"', "}", "\n", "<"]},
    {"temperature": 0.9, "top_k": 5, "repetition_penalty": 1.5, "seed": 4, "ignore_eos": True},
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """As Mistral's and Qwen's have them: marks that decoding leaves out, and marks that it does not."""
    directory = tmp_path_factory.mktemp("marked")
    write_tokenizer(directory, vocab_size=312)
    path = str(directory / "tokenizer.json")
    marked = RustTokenizer.from_file(path)
    marked.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("[TOOL_CALLS]", "[ARGS]")])
    marked.add_tokens([AddedToken(text, normalized=False) for text in ("<tool_call>", "<think>", "</think>")])
    marked.save(path)
    return Tokenizer(directory)


def service_of(tokenizer: Tokenizer, style: str) -> Service:
    model = deterministic_model(tokenizer, DeterministicEngine(context_length=4000))
    return Service(replace(model, chat_template=ChatTemplate(STYLES[style], {})))


def asked(**body: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS, "max_tokens": 700, **body}


def whole(service: Service, **body: Any) -> Answer:
    return service.respond(service.prepare(validate(ChatRequest, asked(**body))))


def streamed(service: Service, **body: Any) -> dict[int, dict[str, Any]]:
    """The choices that the parts of a stream make, folded as OpenAI's clients do."""
    choices: dict[int, dict[str, Any]] = {}
    for part in service.stream(service.prepare(validate(ChatRequest, asked(**body, stream=True)))):
        for choice in part["choices"]:
            kept = choices.setdefault(choice["index"], {"content": "", "calls": [], "reasoning_content": ""})
            delta = choice["delta"]
            kept["content"] += delta.get("content") or ""
            kept["reasoning_content"] += delta.get("reasoning_content", "")
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    assert call["index"] == len(kept["calls"])
                    kept["calls"].append({"name": call["function"]["name"], "arguments": ""})
                kept["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            kept["finish_reason"] = choice["finish_reason"]
    return choices


def calls_of(choice: Answer) -> list[dict[str, str]]:
    return [call["function"] for call in choice["message"].get("tool_calls", [])]


def endings(tokenizer: Tokenizer, *begins: str) -> dict[str, float]:
    """A bias to what ends texts and objects, and to `begins`, so that those of an unlearned network end and begin."""
    ids = (int(token) for mark in '"]}' for token in tokenizer.encode(mark))
    begun = (token for begin in begins if (token := tokenizer.token_id(begin)) is not None)
    return {"0": 100.0} | {str(token): 6.0 for token in ids} | {str(token): 8.0 for token in begun}


def check(choice: Answer) -> int:
    """That every finished call is valid. How many there are."""
    calls = calls_of(choice)
    finished = calls[:-1] if choice["finish_reason"] == "length" else calls
    for call in finished:
        jsonschema_rs.validate(SCHEMAS[call["name"]], json.loads(call["arguments"]))
    assert all(call["id"].startswith("call_") for call in choice["message"].get("tool_calls", []))
    return len(finished)


@pytest.mark.parametrize("style", STYLES)
def test_a_required_call_is_valid_whatever_the_sampling_whole_and_streamed(tokenizer: Tokenizer, style: str) -> None:
    service = service_of(tokenizer, style)
    ended = 0
    for sampling in SAMPLINGS:
        body = {**sampling, "tool_choice": "required", "logit_bias": endings(tokenizer, "</think>")}
        parts = streamed(service, **body)
        for choice in whole(service, **body)["choices"]:
            check(choice)
            assert choice["message"]["content"] is None or choice["finish_reason"] == "length"
            ended += choice["finish_reason"] == "tool_calls"
            folded = parts[choice["index"]]
            assert folded["calls"] == calls_of(choice)
            assert folded["finish_reason"] == choice["finish_reason"]
            assert folded["reasoning_content"] == choice["message"].get("reasoning_content", "")
    assert ended >= 4, "answers that only max_tokens ends say nothing"


@pytest.mark.parametrize(("style", "mark"), [("hermes", "<tool_call>"), ("mistral", "[TOOL_CALLS]")])
def test_a_model_that_may_call_says_something_or_calls_validly(tokenizer: Tokenizer, style: str, mark: str) -> None:
    service = service_of(tokenizer, style)
    called, said = 0, 0
    for seed in range(6):
        body = {"temperature": 1.5, "seed": seed, "logit_bias": endings(tokenizer, mark)}
        parts = streamed(service, **body)
        (choice,) = whole(service, **body)["choices"]
        called += check(choice)
        said += bool(choice["message"]["content"])
        assert parts[0]["calls"] == calls_of(choice)
        assert parts[0]["content"] == (choice["message"]["content"] or "")
        assert mark not in parts[0]["content"]
    assert called >= 2
    assert said >= 1
