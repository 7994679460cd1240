"""Runs in a checkout's root: the handler, invoked with SQS events made of the bodies that arrive, one list a line."""

import json
import os
import sys
import time
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

sys.path.insert(0, os.getcwd())
os.environ.update(
    AWS_ACCESS_KEY_ID="a",
    AWS_SECRET_ACCESS_KEY="a",
    AWS_DEFAULT_REGION="us-east-1",
    POWERTOOLS_METRICS_NAMESPACE="benchmark",
    POWERTOOLS_SERVICE_NAME="benchmark",
)


class Context:
    """Of an invocation with minutes left."""

    function_name = "benchmark"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:benchmark"
    aws_request_id = "0"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Ten minutes, always."""
        return 600_000


def main() -> None:
    """Answer until the input ends; each answer is `{"seconds": ...}`."""
    queues = ThreadedMotoServer(port=0, verbose=False)
    queues.start()
    host, port = queues.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    os.environ["RESULTS_QUEUE_URL"] = boto3.client("sqs").create_queue(QueueName="results")["QueueUrl"]
    import handler

    for line in sys.stdin:
        records = [
            {"messageId": str(number), "receiptHandle": "r", "body": json.dumps(body), "eventSource": "aws:sqs"}
            for number, body in enumerate(json.loads(line))
        ]
        context: Any = Context()
        started = time.perf_counter()
        answer: Any = handler.lambda_handler({"Records": records}, context)
        seconds = time.perf_counter() - started
        if answer["batchItemFailures"]:
            raise RuntimeError(f"messages failed: {answer}")
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
