"""Which bodies are requests and which are not, field by field; the server's document has the same ones.

What is refused for the model's sake, or for two parameters together, is in test_requests.py.
"""

import json
from collections.abc import Iterable
from typing import Any

import jsonschema_rs
import pytest

from api.errors import InvalidRequestError
from api.schema import ChatRequest, CompletionRequest, NamedFunction
from api.validation import SHOWN_INPUT, validate
from app import create_app

SHAPE = "a string, a list of strings, a list of token ids or a list of lists of token ids"
PARTS = "'messages[0].content' must be a string or a list of text parts."
BIAS = "'logit_bias' must be an object of up to 1024 token ids, each with a number between -100 and 100."
STOP = "'stop' must be a string or a list of up to 16 strings."
SEED = f"'seed' must be an integer between {-(2**63)} and {2**63 - 1}"
CHOICE = "'tool_choice' must be 'none', 'auto', 'required' or an object that names a function."
HALF = "The body holds half of a surrogate pair; send valid Unicode."
COMPONENTS = create_app().openapi()["components"]
SECRET = "correct horse battery staple"


def prompt(**fields: Any) -> dict[str, Any]:
    return {"prompt": "x", **fields}


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}], **fields}


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x", **fields}]}


def part(**fields: Any) -> dict[str, Any]:
    return message(content=[{"type": "text", "text": "x", **fields}])


def request(body: dict[str, Any]) -> CompletionRequest | ChatRequest:
    return validate(ChatRequest, body) if "messages" in body else validate(CompletionRequest, body)


def documented(body: dict[str, Any]) -> bool:
    """Whether the server's document says that such a body is a request."""
    name = "ChatRequest" if "messages" in body else "CompletionRequest"
    schema = {"$ref": f"#/components/schemas/{name}", "components": COMPONENTS}
    return jsonschema_rs.Draft202012Validator(schema).is_valid(body)


def accepted(field: str, *values: Any) -> list[tuple[dict[str, Any], str, Any]]:
    """Completions with `values` of `field`, and what they become: themselves."""
    return [(prompt(**{field: value}), field, value) for value in values]


def refused(bodies: Iterable[dict[str, Any]], message: str, param: str) -> list[tuple[dict[str, Any], str, str]]:
    """Bodies that are told the same."""
    return [(body, message, param) for body in bodies]


def prompts(field: str, *values: Any) -> list[dict[str, Any]]:
    """Completions with `values` of `field`."""
    return [prompt(**{field: value}) for value in values]


def tool(**fields: Any) -> dict[str, Any]:
    return chat(tools=[{"type": "function", "function": {"name": "a", **fields}}])


TOOL = {"type": "function", "function": {"name": "a"}}
ACCEPTED = [
    *accepted("prompt", "", [], ["a", ""], [1, 2**70], [[1], []], [[]], "🦊"),
    *accepted("temperature", 0.0, 0.5, 2.0),
    (prompt(temperature=1), "temperature", 1.0),
    (prompt(top_p=1), "top_p", 1.0),
    (prompt(min_p=0), "min_p", 0.0),
    (prompt(presence_penalty=-2), "presence_penalty", -2.0),
    (prompt(frequency_penalty=2), "frequency_penalty", 2.0),
    *accepted("repetition_penalty", 0.01, 10.0),
    (prompt(logit_bias={"5": 100, "x": -1.5}), "logit_bias", {"5": 100.0, "x": -1.5}),
    *accepted("logit_bias", {}, {str(token): 0.0 for token in range(1024)}),
    *accepted("top_k", -1, 0, 2**70),
    (prompt(top_p=0), "top_p", 0.0),
    *accepted("prompt_cache_key", "", "k" * 256),
    *accepted("cache_salt", "", "k" * 256),
    *accepted("metadata", {}, {"a": [{"b": None}]}),
    *accepted("best_of", 1),
    (chat(tools=[]), "tools", []),
    (chat(tool_choice="none"), "tool_choice", "none"),
    (chat(chat_template_kwargs={"a": 1, "b": True}), "chat_template_kwargs", {"a": 1, "b": True}),
    (part(cache_control={"type": "ephemeral"}), "n", 1),
    (message(annotations=[{}], refusal="no", audio={"id": "a"}, provider_specific_fields={"a": 1}), "n", 1),
    (message(parsed={"a": 1}, tool_calls=[]), "n", 1),
    (message(role="assistant", content=None, tool_calls=[{"function": {"name": "a"}}]), "n", 1),
    (
        message(tool_calls=[{"id": "a", "type": "function", "index": 0, "function": {"name": "a", "arguments": {}}}]),
        "n",
        1,
    ),
    (message(function_call={"name": "a", "arguments": "{}", "parsed_arguments": {}}), "n", 1),
    (message(role="tool", tool_call_id="a"), "n", 1),
    (message(role="function", name="a"), "n", 1),
    (tool(description=None, parameters=None, strict=None), "tool_choice", "auto"),
    (tool(name="a.B-2_c", description="does a", parameters={}, strict=True), "parallel_tool_calls", True),
    (chat(tools=[{**TOOL, "cache_control": {"type": "ephemeral"}}]), "n", 1),
    (chat(tools=[TOOL], tool_choice="required", parallel_tool_calls=False), "parallel_tool_calls", False),
    (chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "a"}}), "n", 1),
    (chat(functions=[{"name": "a"}], function_call={"name": "a"}), "function_call", NamedFunction("a")),
    *accepted("seed", -(2**63), 0, 2**63 - 1),
    *accepted("stop", "", "a", [], ["a"] * 16),
    *accepted("n", 1, 16),
    *accepted("max_tokens", 0, 2**70),
    *accepted("logprobs", 0, 5),
    *accepted("echo", True, False),
    (chat(max_tokens=1), "max_tokens", 1),
    (chat(logprobs=True, top_logprobs=20), "top_logprobs", 20),
    (prompt(temperature=None, n=None, stop=None, logit_bias=None, stream_options=None), "stop", []),
    (prompt(stream_options={"include_usage": None}), "n", 1),
    (message(name=None), "n", 1),
]
REFUSED = [
    ({}, "'prompt' is required.", "prompt"),
    ({"prompt": None}, "'prompt' is required.", "prompt"),
    *refused(
        prompts(
            "prompt", 5, True, {}, [None], [True], [1.5], [1, "a"], ["a", [1]], [1, [1]], [[True]], [["a"]], [[[1]]]
        ),
        f"'prompt' must be {SHAPE}.",
        "prompt",
    ),
    (prompt(temperature=3), "'temperature' must be a number between 0 and 2, not 3.", "temperature"),
    (prompt(temperature=-0.1), "'temperature' must be a number between 0 and 2, not -0.1.", "temperature"),
    (prompt(temperature=True), "'temperature' must be a number between 0 and 2, not true.", "temperature"),
    (prompt(temperature="hot"), "'temperature' must be a number between 0 and 2, not 'hot'.", "temperature"),
    (
        prompt(temperature=10**400),
        f"'temperature' must be a number between 0 and 2, not 1{'0' * (SHOWN_INPUT - 1)}.",
        "temperature",
    ),
    (prompt(temperature=[1]), "'temperature' must be a number between 0 and 2.", "temperature"),
    (prompt(user="x", model=5), "'model' must be a string, not 5.", "model"),
    (prompt(top_p=-1), "'top_p' must be a number between 0 and 1, not -1.", "top_p"),
    (prompt(top_k=-2), "'top_k' must be an integer of at least -1, not -2.", "top_k"),
    (prompt(best_of=2), "'best_of' must be 1, not 2.", "best_of"),
    (prompt(metadata="x"), "'metadata' must be an object, not 'x'.", "metadata"),
    (
        prompt(cache_salt=5),
        "'cache_salt' must be a string of at most 256 characters.",
        "cache_salt",
    ),
    (
        prompt(prompt_cache_key="k" * 257),
        "'prompt_cache_key' must be a string of at most 256 characters.",
        "prompt_cache_key",
    ),
    (
        prompt(service_tier="x" * 257),
        f"'service_tier' must be a string of at most 256 characters, not '{'x' * SHOWN_INPUT}'.",
        "service_tier",
    ),
    (chat(tools=[{}]), "'tools[0].type' is required.", "tools[0].type"),
    (chat(tools=["x"]), "'tools[0]' must be an object.", "tools[0]"),
    (chat(tools=[{"type": "custom"}]), "'tools[0].type' must be 'function', not 'custom'.", "tools[0].type"),
    (chat(tools=[{"type": "function"}]), "'tools[0].function' is required.", "tools[0].function"),
    (chat(tools=[TOOL] * 129), "'tools' must be a list of at most 128 objects.", "tools"),
    *refused(
        [tool(name=name) for name in ("", "a b", "x" * 129, "é", 5)],
        "'tools[0].function.name' must be a name of up to 128 letters, digits, '_', '.' and '-'.",
        "tools[0].function.name",
    ),
    (
        tool(parameters=SECRET),
        "'tools[0].function.parameters' must be an object.",
        "tools[0].function.parameters",
    ),
    (
        tool(parmeters={}),
        "'tools[0].function.parmeters' is not a parameter this server supports; did you mean 'parameters'?",
        "tools[0].function.parmeters",
    ),
    *refused(
        [chat(tool_choice="any"), chat(tool_choice=5), chat(tool_choice=[]), chat(tool_choice={"type": "tool"})],
        CHOICE,
        "tool_choice",
    ),
    (chat(tool_choice={"type": "function"}), "'tool_choice.function' is required.", "tool_choice.function"),
    (chat(function_call={}), "'function_call.name' is required.", "function_call.name"),
    (chat(functions=[{}]), "'functions[0].name' is required.", "functions[0].name"),
    (chat(modalities=["text", "audio"]), "'modalities' must be a list of nothing but 'text'.", "modalities"),
    (message(annotations={}), "'messages[0].annotations' must be a list.", "messages[0].annotations"),
    (
        message(tool_calls=[{}]),
        "'messages[0].tool_calls[0].function' is required.",
        "messages[0].tool_calls[0].function",
    ),
    (message(tool_calls=5), "'messages[0].tool_calls' must be a list of objects.", "messages[0].tool_calls"),
    (
        message(function_call={"name": "a", "arguments": 5}),
        "'messages[0].function_call.arguments' must be a JSON object, as a string or as itself.",
        "messages[0].function_call.arguments",
    ),
    (
        chat(chat_template_kwargs={"a": [1]}),
        "'chat_template_kwargs' must be an object of strings, numbers, true and false.",
        "chat_template_kwargs",
    ),
    (prompt(n=True), "'n' must be an integer between 1 and 16, not true.", "n"),
    (prompt(n=1.5), "'n' must be an integer between 1 and 16, not 1.5.", "n"),
    (prompt(seed=2**63), f"{SEED}, not {2**63}.", "seed"),
    (prompt(seed=-(2**63) - 1), f"{SEED}, not {-(2**63) - 1}.", "seed"),
    (
        prompt(repetition_penalty=0),
        "'repetition_penalty' must be a number between 0.01 and 10, not 0.",
        "repetition_penalty",
    ),
    (prompt(user="x" * 99, n="y" * 99), f"'n' must be an integer between 1 and 16, not '{'y' * SHOWN_INPUT}'.", "n"),
    (prompt(stream=1), "'stream' must be true or false, not 1.", "stream"),
    *refused(prompts("stop", 5, {}, ["a"] * 17, ["a", 5], [None]), STOP, "stop"),
    *refused(prompts("logit_bias", 5, [], {"5": 101}, {"5": True}, {"5": None}), BIAS, "logit_bias"),
    (prompt(logit_bias={str(token): 0 for token in range(1025)}), BIAS, "logit_bias"),
    (prompt(stream_options=5), "'stream_options' must be an object, not 5.", "stream_options"),
    (prompt(stream_options=[{"x": 1}]), "'stream_options' must be an object.", "stream_options"),
    (
        prompt(stream_options={"include_usage": "y"}),
        "'stream_options.include_usage' must be true or false, not 'y'.",
        "stream_options.include_usage",
    ),
    (
        prompt(stream_options={"includeUsage": True}),
        "'stream_options.includeUsage' is not a parameter this server supports; did you mean 'include_usage'?",
        "stream_options.includeUsage",
    ),
    (chat(topp=1), "'topp' is not a parameter this server supports; did you mean 'top_p'?", "topp"),
    (prompt(tools=[], n=0), "'n' must be an integer between 1 and 16, not 0.", "n"),
    (
        prompt(**{"x" * 99: 1}),
        f"'{'x' * SHOWN_INPUT}' is not a parameter this server supports; leave it out.",
        "x" * SHOWN_INPUT,
    ),
    (chat(max_tokens=0), "'max_tokens' must be an integer of at least 1, not 0.", "max_tokens"),
    (chat(logprobs=1), "'logprobs' must be true or false, not 1.", "logprobs"),
    (chat(prompt="x"), "'prompt' is not a parameter this server supports; leave it out.", "prompt"),
    (chat(response_format={}), "'response_format.type' is required.", "response_format.type"),
    (
        chat(response_format={"type": 5}),
        "'response_format.type' must be 'json_object', 'json_schema' or 'text', not 5.",
        "response_format.type",
    ),
    *refused(
        [{"messages": []}, {"messages": "hi"}, {"messages": {"role": "user"}}, {"messages": 5}],
        "'messages' must be a list of at least one object.",
        "messages",
    ),
    ({"messages": ["hi"]}, "'messages[0]' must be an object.", "messages[0]"),
    ({"messages": [[{"role": "user"}]]}, "'messages[0]' must be an object.", "messages[0]"),
    (
        message(role="ipython"),
        "'messages[0].role' must be 'assistant', 'developer', 'function', 'system', 'tool' or 'user', not 'ipython'.",
        "messages[0].role",
    ),
    (message(name=5), "'messages[0].name' must be a string.", "messages[0].name"),
    *refused(
        [
            message(content=5),
            message(content={}),
            message(content=["x"]),
            message(content=[[]]),
            message(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
            part(text=5),
        ],
        PARTS,
        "messages[0].content",
    ),
    (
        message(content=[{"type": "text"}]),
        "'messages[0].content[0].text' is required.",
        "messages[0].content[0].text",
    ),
    (
        part(citations=[]),
        "'messages[0].content[0].citations' is not a parameter this server supports; leave it out.",
        "messages[0].content[0].citations",
    ),
]


@pytest.mark.parametrize(("body", "field", "value"), ACCEPTED)
def test_what_is_accepted_has_its_value_and_is_documented(body: dict[str, Any], field: str, value: Any) -> None:
    given = getattr(request(body), field)
    assert (given, type(given)) == (value, type(value))
    assert documented(body)


@pytest.mark.parametrize(("body", "message", "param"), REFUSED)
def test_what_is_refused_is_told_why_and_is_not_documented(body: dict[str, Any], message: str, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request(body)
    assert (caught.value.message, caught.value.param) == (message, param)
    assert not documented(body)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["temperature", "presence_penalty", "repetition_penalty", "n"])
def test_what_is_not_a_json_number_is_refused_where_the_runtime_client_reads_it(field: str, number: float) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request(prompt(**{field: number}))
    assert caught.value.message.endswith(f", not {json.dumps(number)}.")
    with pytest.raises(InvalidRequestError, match="logit_bias"):
        request(prompt(logit_bias={"5": number}))


def test_an_integer_written_as_a_float_is_not_an_integer() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request(prompt(n=2.0))
    assert caught.value.message == "'n' must be an integer between 1 and 16, not 2.0."
    with pytest.raises(InvalidRequestError, match="'prompt' must be"):
        request(prompt(prompt=[1.0]))


@pytest.mark.parametrize(
    "body",
    [
        prompt(tools=None),
        prompt(stream_options={"x": None}),
        chat(response_format={"type": "text", "schema": None}),
        message(tool_calls=None),
        part(citations=None),
    ],
)
def test_null_means_not_given_whatever_its_name(body: dict[str, Any]) -> None:
    assert request(body).n == 1


@pytest.mark.parametrize(
    "body",
    [
        prompt(prompt="\ud800"),
        prompt(stop=["\udfff"]),
        prompt(user="\ud800"),
        prompt(n="\ud800"),
        prompt(logit_bias={"\ud800": 1}),
        prompt(**{"\ud800": 1}),
        prompt(**{"\ud800": None}),
        prompt(seed=2**70, user="\ud800"),
        prompt(stream_options={"\ud800": True}),
        chat(response_format="\ud800"),
        message(role="\ud800"),
        part(**{"\ud800": 1}),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_wherever_it_is(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request(body)
    assert caught.value.message == HALF


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": [SECRET, 5]},
        {"prompt": {SECRET: SECRET}},
        {"messages": SECRET},
        {"messages": [SECRET]},
        message(name=[SECRET]),
        message(content=[SECRET]),
        part(type=SECRET),
        part(text=[SECRET]),
        part(extra=SECRET),
        tool(name=SECRET),
        tool(parameters=SECRET),
        tool(description=[SECRET]),
        chat(functions=[{"name": SECRET}]),
        message(tool_calls=[{"function": {"name": [SECRET]}}]),
    ],
)
def test_no_sentence_repeats_what_was_said(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        request(body)
    assert "horse" not in caught.value.message


@pytest.mark.parametrize("name", ["content", "messages", "stream_options", "prompt"])
def test_however_deep_a_body_is_it_is_refused_in_words(name: str) -> None:
    for deeper in (lambda value: [value], lambda value: {name: value}, lambda value: [{name: value}]):
        value: Any = "x"
        for _ in range(5000):
            value = deeper(value)
        for body in (chat(**{name: value}), message(content=value)):
            with pytest.raises(InvalidRequestError):
                request(body)
