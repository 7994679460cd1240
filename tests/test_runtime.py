"""aws/runtime.py in a process of its own, against a Runtime API on a loopback socket."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate import Gate
from tests.runtime_api import Conduct, Ending, FaultyRuntimeApi
from tools.local_function import LocalFunction

PARTS = ["data: one\n\n", "data: two\n\n", "data: three\n\n"]
TOY = (sys.executable, "-m", "aws.runtime", "tests.toy_handler.handler")


@pytest.fixture(scope="module")
def api() -> FaultyRuntimeApi:
    return FaultyRuntimeApi()


@pytest.fixture(scope="module")
def running(api: FaultyRuntimeApi) -> Iterator[LocalFunction]:
    """One process for all tests of this file: each also shows that it lived on after the one before."""
    with LocalFunction({}, TOY, api) as function:
        yield function


@pytest.fixture
def function(running: LocalFunction, api: FaultyRuntimeApi) -> LocalFunction:
    api.conduct = Conduct()
    return running


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path / "gate") as gate:
        yield gate


def lives(function: LocalFunction, api: FaultyRuntimeApi) -> dict[str, object]:
    """What became of the last stream, from an invocation that is answered as it should be."""
    api.conduct = Conduct()
    answer = function.invoke({"what": "now"})
    assert answer.complete
    assert not answer.streamed
    assert answer.sent_headers["content-type"] == "application/json"
    return dict(json.loads(answer.body))


# --- The wire


def test_every_part_is_sent_as_a_chunk_when_it_exists(function: LocalFunction, gate: Gate) -> None:
    answer = function.start({"parts": PARTS, "gate": gate.path})
    for count, part in enumerate(PARTS, start=1):
        gate.open()
        answer.wait_for_chunks(count)
        assert answer.chunks[-1].data == part.encode()
        assert answer.over <= (count == len(PARTS))
    assert answer.wait().complete
    assert [chunk.data.decode() for chunk in answer.chunks] == PARTS


def test_the_headers_are_those_that_the_documents_ask_for(function: LocalFunction) -> None:
    answer = function.invoke({"parts": PARTS, "content_type": "text/event-stream"})
    assert answer.path == f"/2018-06-01/runtime/invocation/{answer.id}/response"
    assert answer.sent_headers == {
        "host": function.api.address,
        "content-type": "text/event-stream",
        "lambda-runtime-function-response-mode": "streaming",
        "transfer-encoding": "chunked",
        "trailer": "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
        "connection": "close",
    }
    assert answer.trailers == {}


def test_the_invocation_s_id_goes_back_where_it_came(function: LocalFunction) -> None:
    answer = function.invoke({"parts": PARTS}, headers={"Lambda-Runtime-Invocation-Id": "a-b-c"})
    assert answer.sent_headers["lambda-runtime-invocation-id"] == "a-b-c"


def test_an_event_is_json_whatever_its_content_type(function: LocalFunction) -> None:
    answer = function.invoke({"echo": [1]}, headers={"Content-Type": "application/octet-stream"})
    assert answer.body == b"[1]"


def test_an_empty_part_is_no_chunk(function: LocalFunction) -> None:
    answer = function.invoke({"parts": ["", "one", "", "two", ""]})
    assert [chunk.data for chunk in answer.chunks] == [b"one", b"two"]
    assert answer.complete


def test_an_answer_may_be_empty(function: LocalFunction) -> None:
    answer = function.invoke({"parts": []})
    assert (answer.complete, answer.chunks) == (True, [])


def test_any_other_value_is_sent_as_awslambdaric_sends_it(function: LocalFunction) -> None:
    event = {"echo": {"text": "äöü", "numbers": [1, 2.5, None]}}
    ours = function.invoke(event)
    with LocalFunction({}, (sys.executable, "-m", "awslambdaric", TOY[-1])) as original:
        theirs = original.invoke(event)
    assert not ours.streamed
    assert ours.body == theirs.body
    assert ours.sent_headers == {**theirs.sent_headers, "host": function.api.address}


# --- Errors


@pytest.mark.parametrize("parts", [PARTS, []], ids=["in the middle", "before the first part"])
def test_an_exception_ends_the_answer_with_trailers(
    function: LocalFunction, api: FaultyRuntimeApi, parts: list[str]
) -> None:
    answer = function.invoke({"parts": parts, "error": "it broke: äöü"})
    assert answer.complete
    assert answer.body.decode() == "".join(parts)
    assert answer.trailers["lambda-runtime-function-error-type"] == "Function.ToyError"
    error = answer.error
    assert error is not None
    assert (error["errorType"], error["errorMessage"], error["requestId"]) == ("ToyError", "it broke: äöü", answer.id)
    assert lives(function, api) == {"made": len(parts), "running": False}


@pytest.mark.parametrize("part", ["data: x\n\n", ""], ids=["with text", "without text"])
def test_nothing_more_is_made_once_the_reader_is_gone(
    function: LocalFunction, api: FaultyRuntimeApi, gate: Gate, part: str
) -> None:
    answer = function.start({"parts": ["one", *[part] * 100], "gate": gate.path})
    gate.open()
    answer.wait_for_chunks(1)
    answer.abandon()
    answer.wait()
    gate.open(100)
    assert lives(function, api) == {"made": 2, "running": False}
    assert "The answer was not delivered whole" in function.output[-1]


WIRE_BYTES = 480
"""More than a streamed answer of PARTS has on the wire."""


@pytest.mark.parametrize("then", ["hangs up", "resets"])
@pytest.mark.parametrize("event", [{"parts": PARTS}, {"parts": PARTS, "error": "it broke"}], ids=["whole", "failed"])
def test_a_connection_may_break_at_any_byte(
    function: LocalFunction, api: FaultyRuntimeApi, event: object, then: Ending
) -> None:
    for count in range(then == "resets", WIRE_BYTES, 2):
        api.conduct = Conduct(count, then)
        function.invoke(event)
        assert not lives(function, api)["running"], count


@pytest.mark.parametrize("status", ["410 Gone", "413 Payload Too Large", "500 Internal Server Error"])
@pytest.mark.parametrize("reads", [None, 300], ids=["at the end", "before the end"])
def test_a_refused_stream_is_a_line_in_the_log(
    function: LocalFunction, api: FaultyRuntimeApi, status: str, reads: int | None
) -> None:
    api.conduct = Conduct(reads, status=status)
    answer = function.invoke({"parts": PARTS} if reads is None else {"endless": 1_000_000})
    assert answer.complete == (reads is None)
    assert not lives(function, api)["running"]
    assert "The answer was not delivered whole" in function.output[-1]


def test_a_refused_whole_answer_is_a_line_in_the_log(function: LocalFunction, api: FaultyRuntimeApi) -> None:
    api.conduct = Conduct(status="413 Payload Too Large")
    function.invoke({})
    lives(function, api)
    assert "The answer was not delivered" in function.output[-1]


@pytest.mark.parametrize("conduct", [Conduct(then="is silent"), Conduct(2000, "is silent")], ids=["answers", "reads"])
def test_a_runtime_api_that_no_longer_does_anything_holds_up_until_the_deadline(
    function: LocalFunction, api: FaultyRuntimeApi, conduct: Conduct
) -> None:
    api.conduct = conduct
    event = {"parts": PARTS} if conduct.reads is None else {"endless": 1000}
    function.start(event, seconds=1).wait_for_chunks(1)
    assert not lives(function, api)["running"]
    assert "The answer was not delivered whole: the invocation's time is over." in function.output[-1]


def test_nothing_is_sent_after_the_deadline(function: LocalFunction, api: FaultyRuntimeApi) -> None:
    answer = function.invoke({"parts": PARTS}, seconds=-1)
    assert answer.chunks == []
    assert lives(function, api) == {"made": 0, "running": False}
