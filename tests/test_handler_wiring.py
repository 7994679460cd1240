"""The handler with what only some deployments have: an SQS queue, SnapStart, a model in S3."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

import model_loader
from api.errors import InvalidRequestError
from aws import batch
from engines.errors import LoadError
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


def test_a_batch_is_answered_into_the_results_queue_and_bad_messages_go_back(
    handler: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    event = sqs_event('{"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0}', '{"prompt": 5}')
    assert failed(handler.lambda_handler(event, CONTEXT)) == ["1"]
    (result,) = results(queue)
    assert result["response"]["usage"]["completion_tokens"] == 4


def test_a_message_of_a_batch_cannot_ask_for_a_stream(
    handler: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "SETTINGS", Settings(results_queue_url=queue))
    event = sqs_event('{"prompt": "Once", "max_tokens": 4, "stream": true}', '{"prompt": "Once", "max_tokens": 4}')
    assert failed(handler.lambda_handler(event, CONTEXT)) == ["0"]


def test_a_stream_ends_with_an_error_at_the_size_that_lambda_streams(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "MAX_STREAM_BYTES", 2_000)
    request = {"prompt": "Once", "max_tokens": 50, "ignore_eos": True, "stream": True}
    sent = []
    with pytest.raises(InvalidRequestError, match="is over Lambda's"):
        sent.extend(handler.lambda_handler(request, CONTEXT).parts)
    *_, last = sent
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"].startswith("The answer is over Lambda's")
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
