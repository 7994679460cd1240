"""A batch of requests from an SQS queue: each answered by itself, the answers sent to the results queue.

A message that fails goes back to its queue alone; after the queue's last attempt it lies in the dead-letter queue.
Imported only when such an event comes: boto3 and the batch utility are no part of a cold start for anyone else.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

LEAST_SECONDS = 5.0
"""Seconds a request must have left; with less it goes back to the queue untouched."""


class OutOfTimeError(Exception):
    """The invocation ends before this request could have a proper answer; the next one will have time."""


def process(
    event: dict[str, Any], context: Any, answer: Callable[[Any], Mapping[str, Any]], results_queue_url: str
) -> PartialItemFailureResponse:
    """Answer each record of an SQS `event`; the return value names the messages that SQS is to deliver again.

    `answer` takes a request body and returns the response body, or raises. Each result is a message
    `{"message_id", "request", "response"}`.
    """
    taken = 0

    def handle(record: SQSRecord) -> None:
        nonlocal taken
        if context.get_remaining_time_in_millis() / 1000 < LEAST_SECONDS:
            raise OutOfTimeError("Too little of the invocation was left.")
        taken += 1
        request = json.loads(record.body)
        response = answer(request)
        if taken > 1 and response.get("cut_by_deadline"):
            raise OutOfTimeError("Earlier requests of the batch took its time.")
        result = {"message_id": record.message_id, "request": request, "response": response}
        client().send_message(QueueUrl=results_queue_url, MessageBody=json.dumps(result))

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event=event, record_handler=handle, processor=processor, context=context)


@cache
def client() -> Any:
    """The SQS client, made by the first batch. `client.cache_clear()` drops it after a restore."""
    return boto3.client("sqs")
