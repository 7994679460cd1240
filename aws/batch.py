"""A batch of requests from an SQS queue: each answered by itself, the answers sent to the results queue.

A message whose answer did not come goes back to its queue alone; after the queue's last attempt it lies in the
dead-letter queue. A request that no attempt could answer has the reason as its result.

Imported only when such an event comes: boto3 and the batch utility are no part of a cold start for anyone else.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.config import Config

from api.answers import is_cut
from api.errors import ApiError, InternalError, InvalidRequestError
from aws.observability import logger, record_error

LEAST_SECONDS = 5.0
"""Seconds a request must have left; with less it goes back to the queue untouched."""
SENDING_SECONDS = 2.0
"""Of an invocation, kept for sending the results: should it end before, all its messages would be delivered again."""
LEAST_SENDING_SECONDS = 1.0
"""With less left no more results are sent: should an invocation end before it returns, all would be made again."""
AGAIN_SECONDS = 60
"""After which a message is delivered again whose request met an error of the service."""
MAX_MESSAGE_BYTES = 1_000_000
"""A little under the 1 MiB that a message may have."""


class OutOfTimeError(Exception):
    """The invocation ends before this request could have a proper answer; the next one will have time."""


Answers = Callable[[list[str]], list[dict[str, Any] | Exception]]
"""Takes request bodies, in JSON; gives for each the response body, or the error that it met."""


def process(event: dict[str, Any], context: Any, answer: Answers, results_queue_url: str) -> PartialItemFailureResponse:
    """Answer the records of an SQS `event` together; the return value names those that SQS is to deliver again.

    Each result is a message `{"message_id", "request", "response"}`, of a refused request with `error` for `response`.
    """
    bodies = [record["body"] for record in event["Records"]]
    answers: list[dict[str, Any] | Exception]
    if context.get_remaining_time_in_millis() / 1000 < LEAST_SECONDS:
        answers = [OutOfTimeError("Too little of the invocation was left.")] * len(bodies)
    else:
        try:
            answers = answer(bodies)
        except Exception as error:  # whatever it is: the messages come again in a minute, not when SQS gives up waiting
            logger.exception("unexpected error")
            record_error(InternalError.logged_under(context.aws_request_id))
            answers = [error] * len(bodies)
    first = next((number for number, given in enumerate(answers) if not isinstance(given, Exception)), None)
    numbers = iter(range(len(bodies)))
    delays = {record["messageId"]: AGAIN_SECONDS for record in event["Records"]}

    def handle(record: SQSRecord) -> None:
        number = next(numbers)
        response = answers[number]
        if isinstance(response, dict) and number != first and is_cut(response):
            response = OutOfTimeError("The other requests of the batch took its time.")
        to_send = not isinstance(response, Exception) or _is_refusal(response)
        if to_send and context.get_remaining_time_in_millis() / 1000 < LEAST_SENDING_SECONDS:
            response = OutOfTimeError("Sending the other results took the batch's time.")
        if isinstance(response, OutOfTimeError):
            delays[record.message_id] = 0
        if isinstance(response, Exception) and not _is_refusal(response):
            raise response
        try:
            message = _message(record.message_id, bodies[number], response)
            client().send_message(QueueUrl=results_queue_url, MessageBody=message)
        except Exception:
            logger.exception("result not sent")
            record_error(InternalError.logged_under(context.aws_request_id))
            raise

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    response = process_partial_response(event=event, record_handler=handle, processor=processor, context=context)
    failed = {item["itemIdentifier"] for item in response["batchItemFailures"]}
    _deliver_again([record for record in event["Records"] if record["messageId"] in failed], delays)
    return response


def _is_refusal(error: Exception) -> bool:
    """Whether the same request will be refused again."""
    return isinstance(error, ApiError) and error.status < 500


def _message(message_id: str, body: str, response: dict[str, Any] | Exception) -> str:
    """The result in JSON, in ASCII; without the request where both are too long together."""
    request: Any = body
    with suppress(ValueError):
        request = json.loads(body)
    outcome = response.envelope() if isinstance(response, ApiError) else {"response": response}
    message = json.dumps({"message_id": message_id, "request": request, **outcome})
    if len(message) <= MAX_MESSAGE_BYTES:
        return message
    if not isinstance(response, ApiError):
        outcome = InvalidRequestError(
            "The answer and its request are over the 1 MB of a message; ask for fewer tokens, choices or logprobs."
        ).envelope()
    return json.dumps({"message_id": message_id, **outcome})


def _deliver_again(records: list[dict[str, Any]], delays: Mapping[str, int]) -> None:
    """Have SQS deliver these after `delays` in seconds; by itself it waits for their queue's visibility timeout."""
    if not records:
        return
    try:
        _, _, _, _, account, name = records[0]["eventSourceARN"].split(":")
        entries = [
            {
                "Id": str(number),
                "ReceiptHandle": record["receiptHandle"],
                "VisibilityTimeout": delays[record["messageId"]],
            }
            for number, record in enumerate(records)
        ]
        queue = client().get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        client().change_message_visibility_batch(QueueUrl=queue, Entries=entries)
    except Exception:
        logger.exception("messages wait for the visibility timeout")


@cache
def client() -> Any:
    """The SQS client, made by the first batch. `client.cache_clear()` drops it after a restore."""
    return boto3.client("sqs", config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2}))
