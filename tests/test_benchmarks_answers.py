"""Why a function gave no text, in the words of its answer."""

import json

import pytest

from benchmarks import answers
from tools.runtime_api import Answer, Chunk

ERROR = json.dumps({"error": {"message": "The prompt is too long.", "type": "invalid_request_error"}})
WHOLE = json.dumps({"statusCode": 400, "body": ERROR, "headers": {"x-request-id": "0" * 300}})
FAILED = json.dumps({"errorMessage": "The prompt is too long.", "errorType": "Error", "stackTrace": ["x" * 300]})
STREAMING = {"lambda-runtime-function-response-mode": "streaming"}


@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (WHOLE, {}, "/response"),
        (json.dumps({"statusCode": 400}) + "\0" * 8 + ERROR, STREAMING, "/response"),
        (FAILED, {}, "/error"),
    ],
    ids=["whole", "streamed", "failed"],
)
def test_the_reason_is_the_message_and_not_what_stands_around_it(body: str, headers: dict[str, str], path: str) -> None:
    answer = Answer(b"", 1, path=path, sent_headers=headers, chunks=[Chunk(0.0, body.encode())])
    assert answers.reason(answer) == "The prompt is too long."


def test_an_answer_without_a_message_says_how_it_ends() -> None:
    assert answers.reason(Answer(b"", 1, chunks=[Chunk(0.0, b"x" * 300 + b"half a str")])).endswith("xhalf a str")
    assert answers.reason(Answer(b"", 1)) == "it sent nothing"
