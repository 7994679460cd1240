"""Events to OpenAI's answers: the fold that makes a whole one, and the parts of a streamed one."""

import time
import uuid
from typing import Any

from api.events import Event, Failed, Finished, Part
from api.model import Model
from api.preparation import PreparedRequest
from api.responses import Wording

Answer = dict[str, Any]
"""One of the objects in `response_types.py`, as it goes out."""


def is_cut(answer: Answer) -> bool:
    """Whether the deadline cut a whole answer: a response, or any of the choices of another one."""
    return any(part.get("cut_by_deadline") for part in answer.get("choices", (answer,)))


def tokens_of(answer: Answer) -> tuple[int, int]:
    """The tokens that a whole answer has read, and those that it has made."""
    usage = answer["usage"]
    if answer["object"] == "response":
        return usage["input_tokens"], usage["output_tokens"]
    return usage["prompt_tokens"], usage["completion_tokens"]


class WholeAnswer:
    """Collects the events of an answer that is sent when it is complete."""

    def __init__(self, prepared: PreparedRequest, wording: Wording, model: Model) -> None:
        self._wording = wording
        self._heading = _heading(prepared, wording, wording.kind, model)
        self._parts: list[list[Part]] = [[] for _ in prepared.choices]

    def add(self, event: Event) -> Answer | None:
        """The answer, once the last event is in. Raises the error of an event that is one."""
        match event:
            case Part(index):
                self._parts[index].append(event)
                return None
            case Failed(error):
                raise error
            case Finished(usage, timings):
                choices = [self._wording.whole(parts) for parts in self._parts]
                return {**self._heading, "choices": choices, "usage": usage, "timings": timings}


class StreamedAnswer:
    """Words the events of an answer one by one."""

    def __init__(self, prepared: PreparedRequest, wording: Wording, model: Model) -> None:
        options = prepared.request.stream_options
        self._counted = options is not None and options.include_usage
        self._wording = wording
        self._heading = _heading(prepared, wording, wording.part_kind, model)
        self._begun = [False] * len(prepared.choices)

    def parts(self, event: Event) -> list[Answer]:
        """What to send for an event, maybe nothing. Raises the error of an event that is one.

        The parts' texts, joined, are the text of the whole answer.
        """
        match event:
            case Part(index):
                choices = self._wording.parts(event, first=not self._begun[index])
                self._begun[index] = True
                uncounted = {"usage": None} if self._counted else {}
                return [{**self._heading, "choices": [choice], **uncounted} for choice in choices]
            case Failed(error):
                raise error
            case Finished(usage, timings):
                if not self._counted:
                    return []
                return [{**self._heading, "choices": [], "usage": usage, "timings": timings}]


def _heading(prepared: PreparedRequest, wording: Wording, kind: str, model: Model) -> Answer:
    """What a whole answer, and every part of a streamed one, says first."""
    heading: Answer = {
        "id": f"{wording.id_prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model.name,
        "system_fingerprint": model.fingerprint,
    }
    if prepared.max_tokens_cut_to is not None:
        heading["max_tokens_cut_to"] = prepared.max_tokens_cut_to
    return heading
