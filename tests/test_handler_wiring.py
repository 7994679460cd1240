"""The handler with what only some deployments have: an SQS queue, SnapStart, a model in S3."""

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

import model_loader
from api.errors import InvalidRequestError
from aws import batch, map_batch
from engines.base import KVCache, TokenIds
from engines.errors import LoadError
from generation.prefix_cache import PrefixCache
from settings import Settings
from tests.test_batch import failed, queue, results, sqs_event

__all__ = ["queue"]  # the fixture
pytest_plugins = ["tests.aws_server"]

CONTEXT = SimpleNamespace(
    aws_request_id="r",
    function_name="f",
    function_version="1",
    memory_limit_in_mb=1769,
    invoked_function_arn="arn",
    get_remaining_time_in_millis=lambda: 60_000,
)


@pytest.fixture(scope="module")
def handler() -> Any:
    import handler

    return handler


def test_a_batch_is_answered_into_the_results_queue_and_bad_messages_with_the_reason(
    handler: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    event = sqs_event('{"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0}', '{"prompt": 5}')
    assert failed(handler.lambda_handler(event, CONTEXT)) == []
    answered, refused = results(queue)
    assert answered["response"]["usage"]["completion_tokens"] == 4
    assert (refused["request"], refused["error"]["param"]) == ({"prompt": 5}, "prompt")


def test_a_batch_is_cut_while_there_is_time_to_send_the_results(
    handler: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    began = now = time.monotonic()
    forward = handler.MODEL.engine.forward

    def forward_in_100_ms(steps: Any) -> Any:
        nonlocal now
        now += 0.1
        return forward(steps)

    monkeypatch.setattr(handler.MODEL.engine, "forward", forward_in_100_ms)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    hurried = SimpleNamespace(**{**vars(CONTEXT), "get_remaining_time_in_millis": lambda: 7_000})
    handler.lambda_handler(sqs_event('{"prompt": "Once", "max_tokens": 400, "ignore_eos": true}'), hurried)
    (result,) = results(queue)
    assert result["response"]["choices"][0]["cut_by_deadline"]
    assert 4 < now - began <= 7 - batch.SENDING_SECONDS


def test_messages_that_fail_are_logged_and_counted_each_with_its_reason(
    handler: Any,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    event = sqs_event('{"prompt": "Once", "max_tokens": -1}', "not json", "5", '{"prompt": 1e999}', '"\ud800"')
    assert failed(handler.lambda_handler(event, CONTEXT)) == []
    assert len(results(queue)) == 5
    reasons = [vars(record)["reason"] for record in caplog.records if record.message == "request refused"]
    assert reasons == [
        "'max_tokens' must be an integer of at least 0.",
        "The message is not valid JSON: Expecting value at line 1, column 1.",
        "The body must be a JSON object.",
        "The message holds a number too large to read.",
        "The message is not valid UTF-8 (byte 1); send JSON in UTF-8.",
    ]
    written = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(line.get("errors", [0])[0] for line in written) == 5


def test_ten_messages_are_answered_together_each_as_it_is_alone(
    handler: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    asked = [{"prompt": f"Once upon a time {n}", "max_tokens": 4 + n, "seed": n} for n in range(10)]
    alone = [handler.lambda_handler(body, CONTEXT)["choices"] for body in asked]
    passes = 0
    forward = handler.MODEL.engine.forward

    def counted(steps: Any) -> Any:
        nonlocal passes
        passes += 1
        return forward(steps)

    monkeypatch.setattr(handler.MODEL.engine, "forward", counted)
    event = sqs_event(*map(json.dumps, [*asked[:5], {"prompt": 5}, *asked[5:9]]))
    assert failed(handler.lambda_handler(event, CONTEXT)) == []
    given = [each for each in results(queue) if "response" in each]
    answers = {json.dumps(each["request"]): each["response"]["choices"] for each in given}
    assert answers == {json.dumps(body): choices for body, choices in zip(asked[:9], alone, strict=False)}
    assert passes == 12, "the longest has 12 tokens, and the prompts fit into the first pass"


def test_a_message_of_a_batch_cannot_ask_for_a_stream(
    handler: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    event = sqs_event('{"prompt": "Once", "max_tokens": 4, "stream": true}', '{"prompt": "Once", "max_tokens": 4}')
    assert failed(handler.lambda_handler(event, CONTEXT)) == []
    assert ["error" in result for result in results(queue)] == [True, False]


def map_event(**body: Any) -> dict[str, Any]:
    """A Distributed Map's batch as its ItemBatcher makes it: one item that asks for `body`, one that is no request."""
    asked = {"prompt": "Once", "max_tokens": 4, "temperature": 0, **body}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": asked}
    return {"BatchInput": {"of": "every batch"}, "Items": [line, "nonsense"]}


def item(custom_id: str, **body: Any) -> dict[str, Any]:
    return {**map_event(**body)["Items"][0], "custom_id": custom_id}


def test_a_distributed_map_s_batch_is_one_result_for_each_item_in_their_order(handler: Any) -> None:
    items = [item("a"), "nonsense", item("b", temperature=9), {**item("c"), "url": "/v1/models"}, item("d")]
    found = handler.lambda_handler({"Items": items}, CONTEXT)
    assert [result["custom_id"] for result in found] == ["a", None, "b", "c", "d"]
    assert [result["response"] and result["response"]["status_code"] for result in found] == [200, None, 400, None, 200]
    codes = [result["error"] and result["error"]["code"] for result in found]
    assert codes == [None, "invalid_request", None, "invalid_url", None]
    assert found[0]["response"]["request_id"] == CONTEXT.aws_request_id
    assert found[0]["response"]["body"]["choices"] == found[4]["response"]["body"]["choices"]
    assert len(handler.lambda_handler(map_event(), CONTEXT)) == 2


def test_the_items_of_one_invocation_run_together(handler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    engine = handler.MODEL.engine

    def forward(steps: Any) -> Any:
        rows.append(len(steps))
        return type(engine).forward(engine, steps)

    monkeypatch.setattr(engine, "forward", forward)
    handler.lambda_handler({"Items": [item(str(number)) for number in range(6)]}, CONTEXT)
    assert max(rows) == 6


def test_items_that_the_invocation_has_no_time_for_say_so_and_lose_nothing(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, forward = time.monotonic(), handler.MODEL.engine.forward

    def forward_in_20_ms(steps: Any) -> Any:
        nonlocal now
        now += 0.02
        return forward(steps)

    monkeypatch.setattr(handler.MODEL.engine, "forward", forward_in_20_ms)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    long = [item(str(number), max_tokens=400, ignore_eos=True) for number in range(100)]
    hurried = SimpleNamespace(**{**vars(CONTEXT), "get_remaining_time_in_millis": lambda: 1_500})
    found = handler.lambda_handler({"Items": long}, hurried)
    assert {result["error"]["code"] for result in found} == {"batch_expired"}
    begun = [result["response"]["body"] for result in found if result["response"]]
    assert 0 < len(begun) < 100
    assert all(body["choices"][0]["cut_by_deadline"] and body["usage"]["completion_tokens"] for body in begun)


def test_answers_too_long_for_a_state_are_left_out_the_longest_first(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_batch, "MAX_RESULTS_BYTES", 5_000)
    items = [item("a"), item("b", max_tokens=60, ignore_eos=True, logprobs=5), item("c")]
    found = handler.lambda_handler({"Items": items}, CONTEXT)
    assert [result["error"] and result["error"]["code"] for result in found] == [None, "answer_too_large", None]
    assert len(json.dumps(found)) < 5_000


def test_an_error_nobody_foresaw_fails_its_item_and_is_logged(
    handler: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def prepare(request: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(handler.SERVICE, "prepare", prepare)
    (result,) = handler.lambda_handler({"Items": [item("a")]}, CONTEXT)
    assert result["response"]["status_code"] == 500
    assert "a fault of ours" not in json.dumps(result)
    assert "RuntimeError: a fault of ours" in caplog.text


@pytest.fixture
def failing_salt(monkeypatch: pytest.MonkeyPatch) -> str:
    """The `cache_salt` of requests that meet an error once they run."""
    find = PrefixCache.find

    def failing(self: PrefixCache, ids: TokenIds, scope: Any) -> KVCache:
        if scope[-1] == "fails":
            raise RuntimeError("a fault of ours")
        return find(self, ids, scope)

    monkeypatch.setattr(PrefixCache, "find", failing)
    return "fails"


def test_an_item_that_fails_while_others_run_beside_it_fails_alone(
    handler: Any, failing_salt: str, caplog: pytest.LogCaptureFixture
) -> None:
    items = [item("a"), item("b", cache_salt=failing_salt), item("c")]
    found = handler.lambda_handler({"Items": items}, CONTEXT)
    assert [result["response"]["status_code"] for result in found] == [200, 500, 200]
    assert "a fault of ours" not in json.dumps(found)
    assert "RuntimeError: a fault of ours" in caplog.text


def test_a_message_that_fails_while_others_run_beside_it_is_logged_and_delivered_again_alone(
    handler: Any, queue: str, failing_salt: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    asked = [{"prompt": "Once", "max_tokens": 4}, {"prompt": "Once", "max_tokens": 4, "cache_salt": failing_salt}]
    event = sqs_event(*map(json.dumps, [*asked, asked[0]]))
    assert failed(handler.lambda_handler(event, CONTEXT)) == ["1"]
    assert sorted(result["message_id"] for result in results(queue)) == ["0", "2"]
    assert "RuntimeError: a fault of ours" in caplog.text
    assert "request failed" in caplog.messages


def test_a_stream_ends_with_an_error_at_the_size_that_lambda_streams(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "MAX_STREAM_BYTES", 2_000)
    request = {"prompt": "Once", "max_tokens": 50, "ignore_eos": True, "stream": True}
    sent = []
    with pytest.raises(InvalidRequestError, match="is over the 0 MB that can be sent here"):
        sent.extend(handler.lambda_handler(request, CONTEXT).parts)
    *_, last = sent
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"].startswith("The answer is over the 0 MB")
    assert sum(map(len, sent[:-1])) <= 2_000


def test_after_a_restore_the_next_answer_is_a_cold_one_and_clients_are_new(
    handler: Any, moto_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    event = {"prompt": "Once", "max_tokens": 1}
    handler.lambda_handler(event, CONTEXT)
    assert not handler.lambda_handler(event, CONTEXT)["timings"]["cold_start"]
    before = batch.client()
    capsys.readouterr()
    handler._restored()
    assert "restores" in json.loads(capsys.readouterr().out.splitlines()[-1])
    assert batch.client() is not before
    assert handler.lambda_handler(event, CONTEXT)["timings"]["cold_start"]


def test_an_s3_address_that_names_no_folder_fails_the_load_at_once() -> None:
    with pytest.raises(LoadError, match=r"an S3 model is named s3://bucket/prefix"):
        model_loader.load_model(Settings(model_dir="s3://Bucket"))
