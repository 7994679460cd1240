"""The function as Lambda runs it: the real runtime client, under the real runtime interface emulator."""

import base64
import copy
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from settings import ROOT
from tests.checkpoints import CONTEXT, make_checkpoint
from tests.file_opens import FileOpens
from tools.emulator import RUNTIME_CLIENT, Emulator, Reply

EVENTS: dict[str, Any] = {path.stem: json.loads(path.read_bytes()) for path in sorted((ROOT / "events").glob("*.json"))}
HTTP = ("rest-api", "http-api", "function-url", "alb", "alb-multi-value")
DIRECT = ("direct", "direct-chat", "json-schema", "tool-call")
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"

TEMPLATE = """\
{%- for tool in tools -%}{{ tool.function.name }}
{% endfor -%}
{%- for message in messages -%}
{%- if message.content == "divide" -%}{{ 1 // 0 }}{%- endif -%}
{%- if message.name == "refuse" -%}{{ raise_exception(message.content) }}{%- endif -%}
{{ message.role }}: {{ message.content }}
{% endfor -%}
assistant:"""
"""A chat template with a fault in it: one message makes it fail in a way that no template is meant to fail.

Another one it refuses, with its own text for a reason.
"""
MARKER = "zebra-quartz-ninety"
"""Text that occurs in a prompt and nowhere else."""
FEW_BODY_BYTES = 2000
GATEWAY_SECONDS = 1.0


@dataclass(frozen=True)
class Function:
    """A running function and its first answer."""

    emulator: Emulator
    directory: Path
    first: Reply


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint with a chat template."""
    made = make_checkpoint(tmp_path_factory.mktemp("emulated") / "tiny")
    (made / "chat_template.jinja").write_text(TEMPLATE)
    return made


@pytest.fixture(scope="module")
def function(directory: Path) -> Iterator[Function]:
    """The function with its default settings, after its cold start by `events/direct.json`."""
    with Emulator({"MODEL_DIR": str(directory), "THREADS": "1"}) as emulator:
        yield Function(emulator, directory, emulator.invoke(EVENTS["direct"]))


@pytest.fixture(scope="module")
def configured(directory: Path) -> Iterator[Function]:
    """The function with settings of every kind, after its cold start by a schedule's ping."""
    env = {"LOG_PROMPTS": "true", "GATEWAY_TIMEOUT": str(GATEWAY_SECONDS), "MAX_BODY_BYTES": str(FEW_BODY_BYTES)}
    env |= {"MODEL_NAME": "storyteller", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048", "AWS_LAMBDA_FUNCTION_TIMEOUT": "60"}
    with Emulator({"MODEL_DIR": str(directory), "THREADS": "1", **env}) as emulator:
        yield Function(emulator, directory, emulator.invoke(EVENTS["schedule"]))


def http_event(source: str, body: bytes | Any, path: str = COMPLETIONS, method: str = "POST") -> dict[str, Any]:
    """The sample event of `source` with another request in it."""
    event: dict[str, Any] = copy.deepcopy(EVENTS[source])
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    event |= {"body": base64.b64encode(raw).decode(), "isBase64Encoded": True}
    if event.get("version") == "2.0":
        event["rawPath"] = event["requestContext"]["http"]["path"] = path
        event["requestContext"]["http"]["method"] = method
    else:
        event |= {"path": path, "httpMethod": method}
    return event


def answer(reply: Reply) -> dict[str, Any]:
    """The JSON in an HTTP response."""
    assert reply.status == 200
    assert isinstance(reply.payload["body"], str)
    return dict(json.loads(reply.payload["body"]))


def headers(reply: Reply) -> dict[str, str]:
    """The response's headers, whichever of the two forms they came in."""
    if "multiValueHeaders" in reply.payload:
        assert "headers" not in reply.payload
        return {name: value for name, (value,) in reply.payload["multiValueHeaders"].items()}
    return dict(reply.payload["headers"])


def records(reply: Reply) -> list[dict[str, Any]]:
    """The log records of an invocation, without metrics."""
    return [line for line in reply.log if "_aws" not in line]


def metrics(reply: Reply) -> dict[str, float]:
    """Every metric of an invocation, by name."""
    found = {}
    for line in reply.log:
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", []):
            assert directive["Namespace"] == "CausalLM"
            for metric in directive["Metrics"]:
                (found[metric["Name"]],) = line[metric["Name"]]
    return found


# --- Every kind of caller


@pytest.mark.parametrize("name", DIRECT)
def test_a_direct_invocation_returns_the_response_body(function: Function, name: str) -> None:
    payload = function.emulator.invoke(EVENTS[name]).payload
    assert payload["object"] == ("text_completion" if name == "direct" else "chat.completion")
    assert payload["model"] == "tiny"
    assert payload["usage"]["completion_tokens"] > 0
    assert payload["timings"]["cold_start"] is False
    choice = payload["choices"][0]
    assert isinstance(choice["text"] if name == "direct" else choice["message"]["content"], str)


@pytest.mark.parametrize("name", HTTP)
def test_an_http_caller_gets_a_response_in_its_shape(function: Function, name: str) -> None:
    reply = function.emulator.invoke(EVENTS[name])
    assert reply.payload["statusCode"] == 200
    assert reply.payload["isBase64Encoded"] is False
    assert ("multiValueHeaders" in reply.payload) == (name == "alb-multi-value")
    assert headers(reply)["content-type"] == "application/json"
    assert headers(reply)["x-request-id"] in {record["function_request_id"] for record in records(reply)}
    body = answer(reply)
    assert body["choices"][0]["finish_reason"] in ("stop", "length")
    assert headers(reply)["server-timing"].endswith(f"total;dur={body['timings']['total_ms']}")


def test_a_schedule_is_answered_at_once(function: Function) -> None:
    assert function.emulator.invoke(EVENTS["schedule"]).payload == {"status": "warm", "cold_start": False}


def test_every_sample_event_has_a_test() -> None:
    assert {*HTTP, *DIRECT, "schedule"} == set(EVENTS)


@pytest.mark.parametrize("name", HTTP)
def test_the_routes_that_generate_nothing(function: Function, name: str) -> None:
    def get(path: str) -> dict[str, Any]:
        return answer(function.emulator.invoke(http_event(name, b"", path, "GET")))

    assert get("/health") == {"status": "ok"}
    assert [model["id"] for model in get("/v1/models")["data"]] == ["tiny"]


def test_a_body_that_is_not_base64_is_read_as_it_is(function: Function) -> None:
    event = http_event("http-api", b"")
    event |= {"body": '{"prompt": "the fox", "max_tokens": 1}', "isBase64Encoded": False}
    assert answer(function.emulator.invoke(event))["usage"]["completion_tokens"] == 1


def test_the_same_seed_gives_the_same_text_through_every_door(function: Function) -> None:
    request = {"prompt": "the fox", "max_tokens": 12, "temperature": 1, "seed": 7}
    direct = function.emulator.invoke(request).payload["choices"]
    for name in HTTP:
        assert answer(function.emulator.invoke(http_event(name, request)))["choices"] == direct


# --- What callers get wrong


def test_a_bad_direct_request_is_a_function_error_and_the_next_one_works(function: Function) -> None:
    reply = function.emulator.invoke({"prompt": "the fox", "temperature": "hot"})
    assert reply.payload["errorType"] == "InvalidRequestError"
    assert reply.payload["errorMessage"] == "'temperature' must be a number between 0 and 2."
    assert function.emulator.invoke({"prompt": "the fox"}).payload["object"] == "text_completion"


@pytest.mark.parametrize("body", [{"\ud800": 1}, {"user": "\ud800"}, {"stream_options": {"\ud800": None}}])
def test_half_a_character_in_a_direct_request_is_refused_and_logged(function: Function, body: dict[str, Any]) -> None:
    reply = function.emulator.invoke({"prompt": "the fox", **body})
    assert reply.payload["errorType"] == "InvalidRequestError"
    assert reply.payload["errorMessage"] == "The body holds half of a surrogate pair; send valid Unicode."
    assert "request refused" in [record["message"] for record in records(reply)]


@pytest.mark.parametrize("event", [{}, {"Records": [{"eventSource": "aws:s3"}]}, [], "hello", 5, None])
def test_an_unknown_event_is_told_what_was_expected(function: Function, event: Any) -> None:
    payload = function.emulator.invoke(event).payload
    assert payload["errorType"] == "InvalidRequestError"
    assert "send an object with 'prompt' or 'messages', or an HTTP request" in payload["errorMessage"]


BAD: dict[str, tuple[int, dict[str, Any], str]] = {
    "not JSON": (400, {"body": b"{prompt}"}, "not valid JSON"),
    "an empty body": (400, {"body": b""}, "The body is empty"),
    "not an object": (400, {"body": []}, "must be a JSON object"),
    "invalid UTF-8": (400, {"body": b'{"prompt": "\xff\xfe"}'}, "not valid UTF-8 (byte 12)"),
    "a number that is none": (400, {"body": b'{"prompt": "a", "temperature": NaN}'}, "NaN is not a JSON number"),
    "a deep nest": (400, {"body": b"[" * 100_000}, "nested too deeply"),
    "an unknown field": (400, {"body": {"prompt": "a", "max_token": 5}}, "did you mean 'max_tokens'?"),
    "a wrong type": (400, {"body": {"prompt": {"text": "a"}}}, "'prompt' must be a string, a list"),
    "out of range": (400, {"body": {"prompt": "a", "top_p": 2}}, "'top_p' must be a number between 0 and 1"),
    "an empty prompt": (400, {"body": {"prompt": ""}}, "'prompt' is empty"),
    "a chat without messages": (400, {"body": {"prompt": "a"}, "path": CHAT}, "'messages' is required"),
    "half a character in a name": (400, {"body": {"prompt": "a", "\ud800": 1}}, "holds half of a surrogate pair"),
    "half a character in a chat": (
        400,
        {"body": {"messages": [{"role": "user", "content": "\ud800"}]}, "path": CHAT},
        "holds half of a surrogate pair",
    ),
    "half a character in a path": (404, {"body": b"", "path": "/v1/\ud800", "method": "GET"}, "the routes are POST"),
    "half a character in a model": (404, {"body": b"", "path": "/v1/models/\ud800", "method": "GET"}, "serves 'tiny'"),
    "half a character in a method": (405, {"body": b"", "method": "G\ud800T"}, "takes POST, not G?T"),
    "a prompt over the context": (400, {"body": {"prompt": "#" * 700}}, f"context holds {CONTEXT}, so at most"),
    "a prompt far over the context": (400, {"body": {"prompt": "fox " * 240_000}}, "more than 640 tokens long"),
    "an unknown model": (404, {"body": {"prompt": "a", "model": "gpt-4"}}, "this server serves 'tiny'"),
    "an unknown model's page": (404, {"body": b"", "path": "/v1/models/gpt-4", "method": "GET"}, "serves 'tiny'"),
    "an unknown route": (404, {"body": {"prompt": "a"}, "path": "/v1/images"}, "the routes are POST"),
    "embeddings": (404, {"body": {"input": "a"}, "path": "/v1/embeddings"}, "There are no embeddings here"),
    "a wrong method": (405, {"body": b"", "method": "GET"}, "takes POST, not GET"),
    "a body over the limit": (
        413,
        {"body": b" " * 1_000_001},
        "is larger than the 1000000 bytes that this server takes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_http_request_gets_the_same_bytes_through_every_door(function: Function, case: str) -> None:
    status, request, sentence = BAD[case]
    replies = {name: function.emulator.invoke(http_event(name, **request)) for name in HTTP}
    assert {name: reply.payload["statusCode"] for name, reply in replies.items()} == dict.fromkeys(HTTP, status)
    assert len({reply.payload["body"] for reply in replies.values()}) == 1
    found = [headers(reply) for reply in replies.values()]
    assert len({each.pop("x-request-id") for each in found}) == len(HTTP)
    assert all(each == found[0] for each in found)
    reply = replies["rest-api"]
    assert headers(reply)["content-type"] == "application/json"
    assert ("allow" in headers(reply)) == (status == 405)
    (name, error), *others = answer(reply).items()
    assert not others
    assert name == "error"
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert sentence in error["message"]


def test_a_body_whose_base64_is_broken_is_refused(function: Function) -> None:
    event = http_event("rest-api", b"") | {"body": "%%%"}
    assert function.emulator.invoke(event).payload["statusCode"] == 400


def test_an_unexpected_exception_is_a_500_that_tells_nothing(function: Function) -> None:
    request = {"messages": [{"role": "user", "content": "divide"}], "max_tokens": 4}
    reply = function.emulator.invoke(http_event("http-api", request, CHAT))
    request_id = records(reply)[0]["function_request_id"]
    assert reply.payload["statusCode"] == 500
    assert answer(reply)["error"] == {
        "message": f"Something went wrong here; the log has it under request {request_id}.",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    logged = next(record for record in records(reply) if record["message"] == "unexpected error")
    assert logged["exception_name"] == "ZeroDivisionError"
    assert metrics(reply)["errors"] == 1
    assert answer(function.emulator.invoke(http_event("http-api", {"prompt": "a"})))["choices"]


def test_an_unexpected_exception_of_a_direct_invocation_tells_nothing_either(function: Function) -> None:
    payload = function.emulator.invoke({"messages": [{"role": "user", "content": "divide"}]}).payload
    assert payload["errorType"] == "InternalError"
    assert "division" not in json.dumps(payload)


@pytest.mark.parametrize(("door", "choices", "limit"), [("function-url", 8, "6 MB"), ("alb", 2, "1 MB")])
def test_a_response_larger_than_its_way_back_takes_is_refused(
    function: Function, door: str, choices: int, limit: str
) -> None:
    request = {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 20, "n": choices}
    request |= {"max_tokens": 600, "ignore_eos": True, "temperature": 1, "seed": 1}
    reply = function.emulator.invoke(http_event(door, request, CHAT))
    assert reply.payload["statusCode"] == 400
    assert limit in answer(reply)["error"]["message"]
    assert function.emulator.invoke({"prompt": "a"}).payload["timings"]["cold_start"] is False


# --- The log


def test_log_records_are_json_with_the_request_s_id_and_one_cold_start(function: Function) -> None:
    warm = function.emulator.invoke({"prompt": "the fox"})
    for reply, cold in ((function.first, True), (warm, False)):
        started = next(line for line in reply.output if line.startswith("START RequestId: "))
        (record,) = [record for record in records(reply) if record["message"] == "tokens generated"]
        assert record["cold_start"] is cold
        assert record["function_request_id"] == started.split()[2]
        assert record["timings"] == reply.payload["timings"]
        assert record["usage"] == reply.payload["usage"]
        assert reply.payload["timings"]["cold_start"] is cold


def test_everything_the_function_prints_is_a_json_line(function: Function) -> None:
    for reply in (function.first, function.emulator.invoke(EVENTS["alb"])):
        platform = ("START RequestId", "END RequestId", "REPORT RequestId")
        assert all(line.startswith(("{", *platform)) for line in reply.output)


def test_the_cold_start_s_phases_are_reported_once(function: Function) -> None:
    phases = {"start_ms", "app_imports_ms", "imports_ms", "tokenizer_ms", "weights_ms", "warm_up_ms", "total_ms"}
    init = function.first.payload["timings"]["init"]
    assert set(init) == phases
    assert {name: ms for name, ms in metrics(function.first).items() if name.startswith("cold_start_")} == {
        f"cold_start_{name}": ms for name, ms in init.items()
    }
    assert function.emulator.init_seconds == pytest.approx(init["total_ms"] / 1000, rel=0.2, abs=0.2)
    warm = function.emulator.invoke({"prompt": "the fox"})
    assert "init" not in warm.payload["timings"]
    assert not any(name.startswith("cold_start_") for name in metrics(warm))


def test_a_generation_s_metrics_are_those_of_its_answer(function: Function) -> None:
    reply = function.emulator.invoke({"prompt": "the fox", "max_tokens": 5, "ignore_eos": True})
    timings, usage = reply.payload["timings"], reply.payload["usage"]
    names = {"queue_ms", "prefill_ms", "decode_ms", "total_ms", "time_to_first_token_ms", "tokens_per_second"}
    expected = {name: timings[name] for name in (*names, "cached_tokens")}
    expected |= {name: usage[name] for name in ("prompt_tokens", "completion_tokens")}
    tried = ("accepted_prediction_tokens", "rejected_prediction_tokens")
    expected |= {name: usage["completion_tokens_details"][name] for name in tried}
    assert metrics(reply) == expected


def test_errors_are_counted_by_type(function: Function) -> None:
    reply = function.emulator.invoke(http_event("alb", {"prompt": ""}))
    (line,) = [line for line in reply.log if "_aws" in line]
    assert line["errors"] == [1.0]
    assert line["error_type"] == "InvalidRequestError"


SECRETIVE: list[Any] = [
    {"prompt": MARKER, "max_tokens": 8},
    {"messages": [{"role": "user", "content": MARKER}], "max_tokens": 8},
    {"messages": MARKER},
    {"messages": [MARKER]},
    {"messages": [{"role": "user", "content": [MARKER]}]},
    {"prompt": MARKER, "temperature": 5},
    {"prompt": [MARKER, 5]},
    {"prompt": MARKER * 100},
    {"prompt": "a", MARKER: 1},
    {"prompt": "a", "stream_options": {MARKER: 1}},
    {"prompt": "a", "model": MARKER},
    {"prompt": "a", "temperature": MARKER},
    {"prompt": "a", "logit_bias": {MARKER: 1}},
    {"prompt": "a", "stop": [[MARKER]]},
    {"messages": [{"role": MARKER, "content": "a"}]},
    {"messages": [{"role": "user", "content": "a", MARKER: 1}]},
    {"messages": [{"role": "user", "content": "a"}], "response_format": {"type": MARKER}},
    {"messages": [{"role": "user", "content": MARKER, "name": "refuse"}]},
    {MARKER: 1},
    http_event("alb", {"prompt": "a", MARKER: 1}),
    http_event("http-api", b"", f"/v1/{MARKER}", "GET"),
    http_event("http-api", b"", f"/v1/models/{MARKER}", "GET"),
    http_event("rest-api", b"", COMPLETIONS, MARKER[:20]),
    http_event("rest-api", {"prompt": MARKER}),
    http_event("rest-api", {"messages": MARKER}, CHAT),
]


@pytest.mark.parametrize("event", SECRETIVE)
def test_prompts_stay_out_of_the_log(function: Function, event: Any) -> None:
    assert MARKER[:20] not in "\n".join(function.emulator.invoke(event).output)


def test_completions_stay_out_of_the_log(function: Function) -> None:
    # The prompt's own token, made certain, comes back as the completion.
    reply = function.emulator.invoke({"prompt": "~", "max_tokens": 8, "logit_bias": {"94": 100}, "temperature": 0})
    text = reply.payload["choices"][0]["text"]
    assert len(text) == 8
    assert text not in "\n".join(reply.output)


# --- The same files, opened once


def test_no_file_of_the_checkpoint_is_opened_during_a_warm_invocation(function: Function) -> None:
    function.emulator.invoke(EVENTS["direct-chat"])
    with FileOpens(function.directory) as opens:
        for event in EVENTS.values():
            function.emulator.invoke(event)
        assert not opens.take()


# --- Settings


def test_a_ping_can_be_the_cold_start(configured: Function) -> None:
    assert configured.first.payload == {"status": "warm", "cold_start": True}
    assert [record["message"] for record in records(configured.first)] == ["model loaded"]
    assert metrics(configured.first)["cold_start_total_ms"] > 0


def test_the_model_s_name_is_a_setting(configured: Function) -> None:
    payload = configured.emulator.invoke({"prompt": "a", "model": "storyteller", "max_tokens": 1}).payload
    assert payload["model"] == "storyteller"


def test_prompts_and_completions_are_logged_where_a_setting_says_so(configured: Function) -> None:
    reply = configured.emulator.invoke({"prompt": MARKER, "max_tokens": 8})
    (record,) = [record for record in records(reply) if record["message"] == "prompt and completion"]
    assert record["request"]["prompt"] == MARKER
    assert record["response"]["choices"] == reply.payload["choices"]


def test_the_gateway_s_deadline_cuts_an_answer_short_and_says_so(configured: Function) -> None:
    request = {"prompt": "a", "max_tokens": 600, "n": 16, "ignore_eos": True}
    reply = configured.emulator.invoke(http_event("rest-api", request))
    assert reply.seconds < GATEWAY_SECONDS
    last = answer(reply)["choices"][-1]
    assert last["finish_reason"] == "length"
    assert last["cut_by_deadline"] is True
    whole = answer(configured.emulator.invoke(http_event("rest-api", {"prompt": "a", "max_tokens": 4})))
    assert "cut_by_deadline" not in whole["choices"][0]


def test_the_function_s_own_deadline_holds_where_there_is_no_gateway(directory: Path, configured: Function) -> None:
    # Sixty seconds are left, a second is the gateway's: the same request through a load balancer is not cut.
    request = {"prompt": "a", "max_tokens": 600, "n": 2, "ignore_eos": True}
    choices = answer(configured.emulator.invoke(http_event("alb", request)))["choices"]
    assert [choice.get("cut_by_deadline") for choice in choices] == [None, None]


def test_the_body_limit_is_a_setting(configured: Function) -> None:
    event = http_event("http-api", {"prompt": "a" * FEW_BODY_BYTES})
    assert configured.emulator.invoke(event).payload["statusCode"] == 413


def test_the_memory_size_reaches_the_function(configured: Function) -> None:
    (record,) = [record for record in records(configured.emulator.invoke(EVENTS["direct"])) if "usage" in record]
    assert record["function_memory_size"] == "2048"


# --- Loads that fail


def broken(directory: Path, tmp_path: Path, fault: str) -> tuple[Path, dict[str, str], str]:
    """A checkpoint or an environment that cannot be served, and words of the sentence that says so."""
    copied = Path(shutil.copytree(directory, tmp_path / "broken"))
    weights = copied / "model.safetensors"
    if fault == "missing directory":
        return tmp_path / "no", {}, f"{tmp_path / 'no'} is not a directory; set MODEL_DIR"
    if fault == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-1000])
        return copied, {}, f"{weights} holds {weights.stat().st_size} bytes where its header says"
    if fault == "foreign tokenizer":
        tokenizer = json.loads((copied / "tokenizer.json").read_bytes())
        size, first = len(tokenizer["model"]["vocab"]), tokenizer["added_tokens"][0]
        tokenizer["added_tokens"] += [{**first, "id": i, "content": f"<extra-{i}>"} for i in range(size, 321)]
        (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
        return copied, {}, f"{copied / 'tokenizer.json'} has ids up to 320 and the model only 320 embeddings"
    return copied, {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"}, "raise the memory size"


@pytest.mark.parametrize("fault", ["missing directory", "truncated weights", "foreign tokenizer", "too little memory"])
def test_a_load_that_fails_fails_the_init_phase_with_one_sentence(directory: Path, tmp_path: Path, fault: str) -> None:
    checkpoint, env, sentence = broken(directory, tmp_path, fault)
    with Emulator({"MODEL_DIR": str(checkpoint), "THREADS": "1", **env}) as emulator:
        reply = emulator.invoke(EVENTS["direct"])
    assert reply.status == 502
    assert reply.payload["errorType"] == "LoadError"
    assert sentence in reply.payload["errorMessage"]
    assert "\n" not in reply.payload["errorMessage"]
    assert reply.payload["requestId"] == ""  # of the init phase, not of an invocation


# --- Memory


def test_running_out_of_memory_is_a_503_and_the_next_request_works(tmp_path: Path) -> None:
    # A prompt of 500 tokens needs three activations of 512 x 32768 floats, 67 MB each; a short one some hundred KB.
    wide = make_checkpoint(tmp_path / "wide", intermediate_size=32768, num_hidden_layers=1)
    command = [*RUNTIME_CLIENT[:2], "tests.memory_limited", "80000000", RUNTIME_CLIENT[-1]]
    with Emulator({"MODEL_DIR": str(wide), "THREADS": "1"}, command) as emulator:
        for _ in range(2):
            assert answer(emulator.invoke(http_event("alb", {"prompt": "~", "max_tokens": 4})))["choices"]
            reply = emulator.invoke(http_event("alb", {"prompt": "~" * 500, "max_tokens": 4}))
            assert reply.payload["statusCode"] == 503
            assert headers(reply)["retry-after"] == "1"
            assert answer(reply)["error"]["code"] == "out_of_memory"
            assert metrics(reply)["errors"] == 1
        payload = emulator.invoke({"prompt": "~" * 500, "max_tokens": 4}).payload
        assert payload["errorType"] == "ServiceUnavailableError"
        assert emulator.invoke({"prompt": "~", "max_tokens": 4}).payload["timings"]["cold_start"] is False
