"""Events that no gateway sends: every field of every sample event deleted or retyped. None is answered with a 500."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from api.errors import ApiError
from api.service import Service
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer
from tests.test_batch import sqs_event
from tests.test_handler_wiring import CONTEXT, handler, map_event

__all__ = ["handler"]  # the fixture

EVENTS = {path.stem: json.loads(path.read_bytes()) for path in Path("events").glob("*.json")}
EVENTS["distributed-map"] = map_event()
EVENTS["sqs"] = sqs_event("not json", "not json either")
VALUES: tuple[Any, ...] = (None, True, 10**30, "", "x", "\ud800", [], [1], {}, {"x": 1}, {"x": [1]})
"""What each field is replaced by."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every field of a JSON value."""
    fields = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in fields:
        yield (*path, key)
        yield from places(part, (*path, key))


def alterations(event: Any) -> Iterator[Any]:
    """The event with one field deleted or replaced."""
    for path in places(event):
        for value in (*VALUES, ...):
            altered = deepcopy(event)
            parent = altered
            for key in path[:-1]:
                parent = parent[key]
            if value is ...:
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            yield altered


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_an_altered_event_is_answered_or_refused_with_a_sentence(
    name: str, handler: Any, llama_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = deterministic_model(read_tokenizer(llama_directory), DeterministicEngine())
    monkeypatch.setattr(handler, "SERVICE", Service(model, max_tokens=10))  # the samples' own requests are refused
    for event in alterations(EVENTS[name]):
        status, said = outcome(handler, event)
        assert status < 500, f"{said} for {event}"


def outcome(handler: Any, event: Any) -> tuple[int, str]:
    """The status of an answer or of the error that was raised, and its text."""
    try:
        answer = handler.lambda_handler(event, CONTEXT)
    except ApiError as error:
        return error.status, error.message
    text = json.dumps(answer, ensure_ascii=False)
    text.encode()  # as the runtime client does
    if isinstance(answer, list):
        return max([200, *(result["response"]["status_code"] for result in answer if result["response"])]), text
    return answer.get("statusCode", 200), text


@pytest.mark.parametrize("event", [None, True, 5, 0.5, "text", [], [1], {}, {"Records": []}, {"requestContext": {}}])
def test_what_is_no_event_at_all_is_refused(event: Any, handler: Any) -> None:
    with pytest.raises(ApiError, match="This event is none that the function knows"):
        handler.lambda_handler(event, CONTEXT)
