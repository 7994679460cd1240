"""SQS batches: failures reported per record, answers in a real SQS-compatible server's queue."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from aws import batch

pytest_plugins = ["tests.aws_server"]


class Context:
    """Lambda's context, as far as a batch asks it: its id, and milliseconds left, one value per question."""

    aws_request_id = "r"

    def __init__(self, *remaining: int) -> None:
        self._remaining = list(remaining)

    def get_remaining_time_in_millis(self) -> int:
        """The next value; the last one for ever."""
        return self._remaining.pop(0) if len(self._remaining) > 1 else self._remaining[0]


def sqs_event(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {"messageId": str(number), "receiptHandle": "r", "body": body, "eventSource": "aws:sqs"}
            for number, body in enumerate(bodies)
        ]
    }


def answer(bodies: list[str]) -> list[dict[str, Any] | Exception]:
    return [_answer(body) for body in bodies]


def _answer(body: str) -> dict[str, Any] | Exception:
    if '"prompt"' not in body:
        return ValueError("no prompt")
    request = json.loads(body)
    cut = {"cut_by_deadline": True} if request["prompt"] == "long" else {}
    return {"choices": [{"text": request["prompt"].upper(), **cut}]}


@pytest.fixture
def queue(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    batch.client.cache_clear()
    yield str(batch.client().create_queue(QueueName="results")["QueueUrl"])
    batch.client().close()
    batch.client.cache_clear()


def results(queue: str) -> list[Any]:
    messages = batch.client().receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def failed(response: Any) -> list[str]:
    return [item["itemIdentifier"] for item in response["batchItemFailures"]]


def test_answers_go_to_the_results_queue_and_only_bad_records_fail(queue: str) -> None:
    event = sqs_event('{"prompt": "a"}', "not json", '{"messages": []}', '{"prompt": "b"}')
    response = batch.process(event, Context(60_000), answer, queue)
    assert failed(response) == ["1", "2"]
    assert [(result["message_id"], result["response"]["choices"][0]["text"]) for result in results(queue)] == [
        ("0", "A"),
        ("3", "B"),
    ]


def test_a_batch_that_fails_whole_is_still_reported_record_by_record(queue: str) -> None:
    assert failed(batch.process(sqs_event("1", "1"), Context(60_000), answer, queue)) == ["0", "1"]


def test_records_without_time_left_go_back_to_the_queue(queue: str) -> None:
    event = sqs_event('{"prompt": "a"}', '{"prompt": "b"}')
    response = batch.process(event, Context(100), answer, queue)
    assert failed(response) == ["0", "1"]
    assert results(queue) == []


def test_an_answer_that_others_cut_short_is_tried_again(queue: str) -> None:
    """The first answer is final, so that a batch which never has enough time still gets shorter every time."""
    event = sqs_event('{"prompt": "long"}', '{"prompt": "long"}')
    assert failed(batch.process(event, Context(60_000), answer, queue)) == ["1"]


def test_a_refused_request_takes_no_time_of_those_after_it(queue: str) -> None:
    event = sqs_event("not json", '{"prompt": "long"}', '{"prompt": "long"}')
    assert failed(batch.process(event, Context(60_000), answer, queue)) == ["0", "2"]


def test_a_lost_results_queue_fails_the_record_and_is_logged(queue: str, caplog: pytest.LogCaptureFixture) -> None:
    batch.client().delete_queue(QueueUrl=queue)
    assert failed(batch.process(sqs_event('{"prompt": "a"}'), Context(60_000), answer, queue)) == ["0"]
    assert "result not sent" in caplog.messages


def test_importing_the_handler_does_not_import_the_batch_utility() -> None:
    code = "import sys, aws.events, aws.observability; sys.exit(bool({'aws.batch', 'boto3'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)
