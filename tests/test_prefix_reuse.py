"""Requests find what earlier ones have read: how many tokens is told, and only those who may share it find it."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from api.answers import Answer
from api.anthropic_request import MessagesRequest
from api.chat import ChatTemplate
from api.keys import ApiKeys
from api.model import Model
from api.routes import HttpRequest, handle
from api.schema import ChatRequest, CompletionRequest
from api.service import Service
from api.validation import validate
from engines.base import PAGE_TOKENS, Step
from engines.compiled_engine import CompiledEngine
from engines.pages import PagePool
from generation.deadline import Deadline
from generation.prefix_cache import PrefixCache
from model_loader import load_model
from server.serving import Serving
from settings import ROOT, Settings
from tests.running_server import PATIENCE, served
from tools.emulator import Emulator

PROMPT = list(range(5, 105))
"""100 tokens: six pages and four more."""
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}:{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture(scope="module")
def model(llama_artifact: Path) -> Model:
    """Compiled, so that it has pages; the engine keeps none between tests, a service does."""
    return replace(load_model(Settings(model_dir=str(llama_artifact))), chat_template=ChatTemplate(CHAT_TEMPLATE, {}))


@pytest.fixture
def service(model: Model) -> Service:
    return Service(model)


def ask(service: Service, **body: Any) -> Answer:
    request = validate(CompletionRequest, {"prompt": PROMPT, "max_tokens": 2, "temperature": 0, **body})
    return service.respond(service.prepare(request))


def found(answer: Answer) -> int:
    """Tokens found read, of which all places that tell of it say the same."""
    assert answer["timings"]["cached_tokens"] == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return int(answer["timings"]["cached_tokens"])


def test_usage_says_how_much_was_found_and_the_answer_is_the_same(service: Service) -> None:
    cold, warm = (ask(service, max_tokens=20, seed=1, temperature=1, logprobs=3) for _ in range(2))
    assert (found(cold), found(warm)) == (0, 96)
    assert cold["choices"] == warm["choices"]
    assert found(ask(service, prompt=PROMPT[:96])) == 80  # the last token is read, for its logits
    assert found(ask(service, prompt=PROMPT[:97])) == 96
    assert found(ask(service, echo=True, logprobs=0)) == 0
    assert found(ask(service, n=3)) == 96
    assert found(ask(service, prompt=[PROMPT, [*PROMPT[:50], 7]])) == 96 + 48


def test_a_stream_s_last_part_says_it_too(service: Service) -> None:
    ask(service)
    body = {"prompt": PROMPT, "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    *_, last = service.stream(service.prepare(validate(CompletionRequest, body)))
    assert found(last) == 96


def test_a_streamed_message_says_it_at_its_beginning_and_at_its_end(service: Service) -> None:
    body = {"messages": [{"role": "user", "content": "the fox and the river " * 5}], "max_tokens": 2, "stream": True}
    for _ in range(2):
        begun, *_, ended, _ = service.stream(service.prepare(validate(MessagesRequest, body)))
        usage = {**ended["usage"], "output_tokens": 0}
        assert begun["message"]["usage"] == usage
    assert usage["cache_read_input_tokens"] > 0


def test_prompts_of_one_request_or_batch_that_begin_alike_are_read_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = count_rows(service, monkeypatch)
    endings = [[200 + number] * 20 for number in range(5)]
    answer = ask(service, prompt=[[*PROMPT, *ending] for ending in endings], max_tokens=1)
    assert (found(answer), sum(rows)) == (4 * 96, 120 + 4 * 24)
    rows.clear()
    others = [5, *PROMPT]
    requests = [
        validate(CompletionRequest, {"prompt": [*others, *ending], "max_tokens": 1, "temperature": 0})
        for ending in endings
    ]
    answers = service.respond_all([lambda request=request: service.prepare(request) for request in requests])  # type: ignore[misc]
    assert [found(a) for a in answers if isinstance(a, dict)] == [0, 96, 96, 96, 96]
    assert sum(rows) == 121 + 4 * 25


def count_rows(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each later pass."""
    engine = service.model.engine
    rows: list[int] = []
    forward = engine.forward_natively  # type: ignore[attr-defined]

    def counting(steps: Sequence[Step]) -> Any:
        rows.append(sum(len(step.ids) for step in steps))
        return forward(steps)

    monkeypatch.setattr(engine, "forward_natively", counting)
    return rows


def test_the_next_turn_of_a_conversation_is_read_from_the_last_answer_on(service: Service) -> None:
    messages = [{"role": "user", "content": "Tell me of the river and of everything that lives beside it."}]
    letter = int(service.model.tokenizer.encode("x", add_special_tokens=False)[0])
    body = {"messages": messages, "max_tokens": 40, "temperature": 0, "logit_bias": {str(letter): 100}}
    first = service.respond(service.prepare(validate(ChatRequest, body)))
    said = first["choices"][0]["message"]["content"]
    assert said == 40 * "x"
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
    second = service.respond(service.prepare(validate(ChatRequest, body)))
    assert found(second) == (first["usage"]["total_tokens"] - 1) // PAGE_TOKENS * PAGE_TOKENS


def test_callers_with_different_keys_share_nothing_unless_a_setting_says_so(model: Model) -> None:
    keys = ApiKeys(["one", "other"])
    body = json.dumps({"prompt": PROMPT, "max_tokens": 1}).encode()

    def call(service: Service, key: str) -> int:
        request = HttpRequest("POST", "/v1/completions", {"authorization": f"Bearer {key}"}, body)
        return found(json.loads(handle(request, service, max_body_bytes=10_000, deadline=None, keys=keys).body))

    apart, together = Service(model), Service(model, prefix_cache_shared=True)
    assert [call(apart, key) for key in ("one", "other", "one", "other")] == [0, 0, 96, 96]
    assert [call(together, key) for key in ("one", "other", "one")] == [0, 96, 96]


@pytest.mark.parametrize("name", ["prompt_cache_key", "cache_salt"])
def test_a_request_can_narrow_whom_it_shares_with(service: Service, name: str) -> None:
    assert [found(ask(service, **{name: value})) for value in ("a", "b", "a", None, None)] == [0, 0, 96, 0, 96]


def test_the_cache_can_be_turned_off_and_its_budget_is_kept(model: Model) -> None:
    assert [found(ask(Service(model, prefix_cache=0))) for _ in range(2)] == [0, 0]
    off = Service(model, prefix_cache=0)
    assert [found(ask(off)) for _ in range(2)] == [0, 0]
    engine = model.engine
    assert isinstance(engine, CompiledEngine)
    most, engine.pool.most = engine.pool.most, 8
    try:
        half = Service(model)
        assert [found(ask(half)) for _ in range(2)] == [0, 64]
    finally:
        engine.pool.most = most


def test_what_runs_has_priority_over_what_is_kept(llama_artifact: Path) -> None:
    model = load_model(Settings(model_dir=str(llama_artifact)))
    assert isinstance(model.engine, CompiledEngine)
    model.engine.pool.most = 20
    service = Service(model, prefix_cache=100)
    for number in range(5):
        ask(service, prompt=[number + 5, *PROMPT])
    answer = ask(service, prompt=PROMPT * 2, max_tokens=100, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 100
    assert found(ask(service, prompt=PROMPT * 2)) == 192


def test_only_what_is_unread_has_to_be_read_before_the_deadline(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(replace(model, load_ms={"warm_up_ms": 10.0}))  # not what it took on a busy machine
    now = [100.0]
    monkeypatch.setattr("generation.scheduler.time.monotonic", lambda: now[0])
    engine = service.model.engine
    forward = engine.forward_natively  # type: ignore[attr-defined]

    def slow(steps: Sequence[Step]) -> Any:
        now[0] += 0.01 * sum(len(step.ids) for step in steps)
        return forward(steps)

    monkeypatch.setattr(engine, "forward_natively", slow)
    ask(service)  # a token of a prompt is known to take 10 ms
    request = service.prepare(validate(CompletionRequest, {"prompt": PROMPT, "max_tokens": 1, "temperature": 0}))
    other = service.prepare(validate(CompletionRequest, {"prompt": [*PROMPT[:50], *PROMPT], "max_tokens": 1}))
    in_time, late = (service.respond(job, Deadline(now[0] + 0.5))["choices"][0] for job in (request, other))
    assert "cut_by_deadline" not in in_time
    assert late["cut_by_deadline"]


def test_the_server_finds_what_an_earlier_request_has_read_and_counts_it(llama_artifact: Path) -> None:
    settings = Settings(model_dir=str(llama_artifact))
    serving = Serving(load_model(settings), settings)
    with served(serving) as url, httpx2.Client(base_url=url, timeout=PATIENCE) as client:
        body = {"prompt": PROMPT, "max_tokens": 1}
        answers = [client.post("/v1/completions", json=body).json() for _ in range(3)]
        assert [found(answer) for answer in answers] == [0, 96, 96]
        lines = client.get("/metrics").text.splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if line.startswith("causal_lm_cache"))
    assert float(figures["causal_lm_cached_tokens_total"]) == 192
    assert float(figures["causal_lm_cache_tokens_kept"]) == 96
    assert float(figures["causal_lm_cache_tokens_used"]) == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": PROMPT, "max_tokens": 1}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 100}], "max_tokens": 1}),
    ],
)
def test_the_server_keeps_callers_with_different_keys_apart(model: Model, path: str, body: dict[str, Any]) -> None:
    serving = Serving(model, Settings(), ApiKeys(["one", "other"]))
    with served(serving) as url, httpx2.Client(base_url=url, timeout=PATIENCE) as client:
        answers = [
            client.post(path, json=body, headers={"authorization": f"Bearer {key}"}).json()
            for key in ("one", "other", "one")
        ]
    assert [found(answer) > 0 for answer in answers] == [False, False, True]


def test_a_warm_invocation_finds_what_the_one_before_has_read(llama_artifact: Path) -> None:
    with Emulator({"MODEL_DIR": str(llama_artifact), "THREADS": "1"}) as emulator:
        replies = [emulator.invoke({"prompt": PROMPT, "max_tokens": 1}) for _ in range(2)]
    assert [found(reply.payload) for reply in replies] == [0, 96]
    (line,) = [line for line in replies[1].log if "_aws" in line and "cached_tokens" in line]
    assert line["cached_tokens"] == [96.0]


def test_what_a_request_had_read_itself_before_it_made_room_is_not_found(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN pages for fewer than three requests WHEN one gives its pages back THEN no other had read any of them."""
    engine = model.engine
    assert isinstance(engine, CompiledEngine)
    monkeypatch.setattr(engine, "pool", PagePool(engine.pool.page_bytes, 12))
    service = Service(model, prefix_cache=100)
    began: list[int] = []
    find = PrefixCache.find

    def noted(cache: PrefixCache, ids: Any, scope: Any) -> Any:
        found = find(cache, ids, scope)
        began.append(found.length)
        return found

    monkeypatch.setattr(PrefixCache, "find", noted)
    bodies = [{"prompt": [10 + i, *range(20, 67)], "max_tokens": 60, "seed": i, "ignore_eos": True} for i in range(3)]
    prepared = [partial(service.prepare, validate(CompletionRequest, body)) for body in bodies]
    answers = service.respond_all(prepared, Deadline())
    assert max(began) > 0, "one has begun again behind what it had read"
    assert [found(answer) for answer in answers if not isinstance(answer, Exception)] == [0, 0, 0]


def test_those_who_sign_with_different_identities_share_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role's sessions are one caller; events as the three front doors make them that check signatures."""
    import handler

    monkeypatch.setattr(handler, "SERVICE", service)
    monkeypatch.setattr(handler, "_invoked", True)  # or the gateway's time counts from when this process started
    context = SimpleNamespace(
        aws_request_id="r",
        function_name="f",
        memory_limit_in_mb=1769,
        invoked_function_arn="arn",
        get_remaining_time_in_millis=lambda: 60_000,
    )

    def cached(door: str, user: str | None) -> int:
        event = json.loads((ROOT / "events" / f"{door}.json").read_text())
        details = event["requestContext"]
        if door == "rest-api":
            details["identity"]["user"] = user
            event |= {"httpMethod": "POST", "path": "/v1/completions"}
        else:
            details["authorizer"] = {"iam": {"userId": user}} if user else None
            details["http"]["method"] = "POST"
            event["rawPath"] = "/v1/completions"
        event["body"] = json.dumps({"prompt": PROMPT, "max_tokens": 2, "temperature": 0})
        answer: Any = handler.lambda_handler({**event, "isBase64Encoded": False}, context)
        return int(json.loads(answer["body"])["timings"]["cached_tokens"])

    assert cached("http-api", "AROAALICE:monday") == 0
    assert cached("http-api", "AROAMALLORY:monday") == 0
    assert cached("rest-api", None) == 0
    assert cached("function-url", "AROAALICE:tuesday") == cached("rest-api", "AROAALICE:monday") == 96
