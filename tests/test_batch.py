"""SQS batches: failures reported per record, answers in a real SQS-compatible server's queue."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from api.errors import InternalError, InvalidRequestError
from aws import batch

pytest_plugins = ["tests.aws_server"]
ARN = "arn:aws:sqs:us-east-1:123456789012:requests"
"""Of the queue that messages come from, in the account of moto's server."""


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
            {
                "messageId": str(number),
                "receiptHandle": "r",
                "body": body,
                "eventSource": "aws:sqs",
                "eventSourceARN": ARN,
            }
            for number, body in enumerate(bodies)
        ]
    }


def answer(bodies: list[str]) -> list[dict[str, Any] | Exception]:
    return [_answer(body) for body in bodies]


def _answer(body: str) -> dict[str, Any] | Exception:
    if body == "broken":
        return InternalError("broken")
    if '"prompt"' not in body:
        return InvalidRequestError("no prompt", param="prompt")
    request = json.loads(body)
    cut = {"cut_by_deadline": True} if request["prompt"] == "long" else {}
    return {"choices": [{"text": request["prompt"].upper(), **cut}]}


@pytest.fixture
def queue(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server)
    batch.client.cache_clear()
    batch.client().create_queue(QueueName="requests", Attributes={"VisibilityTimeout": "5400"})
    yield str(batch.client().create_queue(QueueName="results")["QueueUrl"])
    batch.client().close()
    batch.client.cache_clear()


def results(queue: str) -> list[Any]:
    messages = batch.client().receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(message["Body"]) for message in messages]


def delays_asked_for() -> list[int]:
    """The seconds after which messages are to be delivered again: what SQS is asked from now on."""
    asked: list[int] = []
    batch.client().meta.events.register(
        "provide-client-params.sqs.ChangeMessageVisibilityBatch",
        lambda params, **_: asked.extend(entry["VisibilityTimeout"] for entry in params["Entries"]),
    )
    return asked


def failed(response: Any) -> list[str]:
    return [item["itemIdentifier"] for item in response["batchItemFailures"]]


def test_answers_go_to_the_results_queue_and_only_what_may_succeed_later_fails(queue: str) -> None:
    event = sqs_event('{"prompt": "a"}', "broken", '{"prompt": "b"}')
    response = batch.process(event, Context(60_000), answer, queue)
    assert failed(response) == ["1"]
    assert [(result["message_id"], result["response"]["choices"][0]["text"]) for result in results(queue)] == [
        ("0", "A"),
        ("2", "B"),
    ]


def test_the_result_of_a_refused_request_is_why(queue: str) -> None:
    assert failed(batch.process(sqs_event("not json", '{"messages": []}'), Context(60_000), answer, queue)) == []
    why = {"message": "no prompt", "type": "invalid_request_error", "param": "prompt", "code": None}
    assert results(queue) == [
        {"message_id": "0", "request": "not json", "error": why},
        {"message_id": "1", "request": {"messages": []}, "error": why},
    ]


def test_an_answer_that_no_message_holds_is_not_generated_again(queue: str) -> None:
    body = json.dumps({"prompt": 600_000 * "a"})
    assert failed(batch.process(sqs_event(body), Context(60_000), answer, queue)) == []
    (result,) = results(queue)
    assert result["message_id"] == "0"
    assert "ask for fewer tokens" in result["error"]["message"]


def test_a_refusal_of_a_long_request_is_sent_without_it(queue: str) -> None:
    body = json.dumps({"messages": 200_000 * "é"}, ensure_ascii=False)
    assert failed(batch.process(sqs_event(body), Context(60_000), answer, queue)) == []
    (result,) = results(queue)
    assert (result["error"]["message"], "request" in result) == ("no prompt", False)


def test_what_had_no_time_is_delivered_again_at_once_and_what_failed_later(queue: str) -> None:
    """GIVEN a queue with a long visibility timeout WHEN messages come back THEN they do not wait for that."""
    sqs, requests = batch.client(), batch.client().get_queue_url(QueueName="requests")["QueueUrl"]
    for body in ('{"prompt": "long"}', '{"prompt": "long"}', "broken"):
        sqs.send_message(QueueUrl=requests, MessageBody=body)
    taken = sqs.receive_message(QueueUrl=requests, MaxNumberOfMessages=10)["Messages"]
    fields = {"eventSource": "aws:sqs", "eventSourceARN": ARN}
    records = [
        {"messageId": each["MessageId"], "receiptHandle": each["ReceiptHandle"], "body": each["Body"], **fields}
        for each in taken
    ]
    asked = delays_asked_for()
    _, cut, broken = (record["messageId"] for record in records)
    assert failed(batch.process({"Records": records}, Context(60_000), answer, queue)) == [cut, broken]
    (again,) = sqs.receive_message(QueueUrl=requests, MaxNumberOfMessages=10)["Messages"]
    assert again["MessageId"] == cut
    assert asked == [0, batch.AGAIN_SECONDS]


def test_what_failed_is_delivered_again_later_also_where_no_result_can_be_sent_any_more(queue: str) -> None:
    asked = delays_asked_for()
    event = sqs_event("broken", '{"prompt": "a"}', "not json")
    assert failed(batch.process(event, Context(60_000, 500), answer, queue)) == ["0", "1", "2"]
    assert asked == [batch.AGAIN_SECONDS, 0, 0]


def test_messages_of_a_queue_that_may_not_be_asked_are_still_reported(
    queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    batch.client().delete_queue(QueueUrl=batch.client().get_queue_url(QueueName="requests")["QueueUrl"])
    assert failed(batch.process(sqs_event("broken", "broken"), Context(60_000), answer, queue)) == ["0", "1"]
    assert "messages wait for the visibility timeout" in caplog.messages


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
    assert failed(batch.process(event, Context(60_000), answer, queue)) == ["2"]


def test_a_lost_results_queue_fails_the_record_and_is_logged(queue: str, caplog: pytest.LogCaptureFixture) -> None:
    batch.client().delete_queue(QueueUrl=queue)
    assert failed(batch.process(sqs_event('{"prompt": "a"}'), Context(60_000), answer, queue)) == ["0"]
    assert "result not sent" in caplog.messages


def test_what_nobody_expected_fails_the_records_and_not_the_invocation(
    queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(bodies: list[str]) -> list[dict[str, Any] | Exception]:
        raise MemoryError

    assert failed(batch.process(sqs_event('{"prompt": "a"}', "b"), Context(60_000), broken, queue)) == ["0", "1"]
    assert "unexpected error" in caplog.messages


def test_no_result_is_sent_when_the_invocation_is_about_to_end(queue: str) -> None:
    event = sqs_event('{"prompt": "a"}', '{"prompt": "b"}')
    assert failed(batch.process(event, Context(60_000, 5_000, 500), answer, queue)) == ["1"]
    assert [result["request"]["prompt"] for result in results(queue)] == ["a"]


def test_importing_the_handler_does_not_import_the_batch_utility() -> None:
    code = "import sys, aws.events, aws.observability; sys.exit(bool({'aws.batch', 'boto3'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], check=True)
