"""The handler with what only some deployments have: an SQS queue, SnapStart, a model in S3."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

import model_loader
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
