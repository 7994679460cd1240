"""A batch of requests from an SQS queue: each answered by itself, the answers sent to the results queue.

A message that fails goes back to its queue alone; after the queue's last attempt it lies in the dead-letter queue.
Imported only when such an event comes: boto3 and the batch utility are no part of a cold start for anyone else.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from api.answers import is_cut
from api.errors import InternalError
from aws.observability import logger, record_error

LEAST_SECONDS = 5.0
"""Seconds a request must have left; with less it goes back to the queue untouched."""


class OutOfTimeError(Exception):
    """The invocation ends before this request could have a proper answer; the next one will have time."""


Answers = Callable[[list[str]], list[dict[str, Any] | Exception]]
"""Takes request bodies, in JSON; gives for each the response body, or the error that it met."""


def process(event: dict[str, Any], context: Any, answer: Answers, results_queue_url: str) -> PartialItemFailureResponse:
    """Answer the records of an SQS `event` together; the return value names those that SQS is to deliver again.

    Each result is a message `{"message_id", "request", "response"}`.
    """
    bodies = [record["body"] for record in event["Records"]]
    answers: list[dict[str, Any] | Exception]
    if context.get_remaining_time_in_millis() / 1000 < LEAST_SECONDS:
        answers = [OutOfTimeError("Too little of the invocation was left.")] * len(bodies)
    else:
        answers = answer(bodies)
    first = next((number for number, given in enumerate(answers) if not isinstance(given, Exception)), None)
    numbers = iter(range(len(bodies)))

    def handle(record: SQSRecord) -> None:
        number = next(numbers)
        response = answers[number]
        if isinstance(response, Exception):
            raise response
        if number != first and is_cut(response):
            raise OutOfTimeError("The other requests of the batch took its time.")
        result = {"message_id": record.message_id, "request": json.loads(bodies[number]), "response": response}
        try:
            client().send_message(QueueUrl=results_queue_url, MessageBody=json.dumps(result))
        except Exception:
            logger.exception("result not sent")
            record_error(InternalError.logged_under(context.aws_request_id))
            raise

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event=event, record_handler=handle, processor=processor, context=context)


@cache
def client() -> Any:
    """The SQS client, made by the first batch. `client.cache_clear()` drops it after a restore."""
    return boto3.client("sqs")
