"""Events to answers of Anthropic's Messages API, streamed and whole."""

import uuid
from typing import Any

from api.anthropic_object import ContentBlock, MessageEvent, MessageObject, MessageUsage, StopReason
from api.errors import InvalidRequestError
from api.events import CallArguments, CallBegun, Content, Event, Failed, Finished, Part, Reasoning, Said
from api.model import Model
from api.preparation import PreparedRequest
from api.response_types import Timings, Usage
from api.validation import parse_json
from generation.sequence import Piece


class StreamedMessage:
    """Turns the events of an answer into those of the API, one by one."""

    def __init__(self, prepared: PreparedRequest, model: Model) -> None:
        self._prompt_tokens = prepared.prompt_tokens
        self.message = _begun(prepared, model)
        """As far as it is known; the blocks of its content grow with `parts`."""
        self.arguments = ""
        """Of the call that grows."""
        self._started = False
        self._last: Piece | None = None
        self._calls = 0

    def parts(self, event: Event) -> list[dict[str, Any]]:
        """What to send for an event, maybe nothing. Raises the error of an event that is one."""
        events: list[MessageEvent] = []
        match event:
            case Part(_, piece, said, calls, cached):
                if not self._started:
                    self.message["usage"] = _usage(self._prompt_tokens, cached, 0)
                    events.append({"type": "message_start", "message": {**self.message, "content": []}})
                    self._started = True
                self._last, self._calls = piece, calls
                for each in said:
                    events += self._more(each)
            case Failed(error):
                raise error
            case Finished(usage, timings):
                events += self._end(usage, timings)
        return [{**event} for event in events]

    def _more(self, said: Said) -> list[MessageEvent]:
        """The events of what was said."""
        content = self.message["content"]
        grows = content[-1]["type"] if content else None
        match said:
            case Content(text):
                events = [] if grows == "text" else self._begin({"type": "text", "text": ""})
                content[-1]["text"] += text
                return [*events, self._delta({"type": "text_delta", "text": text})]
            case Reasoning(text):
                empty: ContentBlock = {"type": "thinking", "thinking": "", "signature": ""}
                events = [] if grows == "thinking" else self._begin(empty)
                content[-1]["thinking"] += text
                return [*events, self._delta({"type": "thinking_delta", "thinking": text})]
            case CallBegun(_, id, name):
                return self._begin({"type": "tool_use", "id": id, "name": name, "input": {}})
            case CallArguments(_, text):
                self.arguments += text
                return [self._delta({"type": "input_json_delta", "partial_json": text})]

    def _begin(self, block: ContentBlock) -> list[MessageEvent]:
        """The events of a new block, which ends the one before it."""
        events = self._close()
        self.message["content"].append(block)
        added: ContentBlock = {**block}
        return [*events, {"type": "content_block_start", "index": self._index, "content_block": added}]

    def _close(self) -> list[MessageEvent]:
        """The event of the last block's end, nothing where there is none."""
        content = self.message["content"]
        if not content:
            return []
        if content[-1]["type"] == "tool_use":
            content[-1]["input"] = _object(self.arguments)
            self.arguments = ""
        return [{"type": "content_block_stop", "index": self._index}]

    def _delta(self, delta: dict[str, Any]) -> MessageEvent:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    @property
    def _index(self) -> int:
        return len(self.message["content"]) - 1

    def _end(self, usage: Usage, timings: Timings) -> list[MessageEvent]:
        assert self._last is not None
        events = self._close()
        ended: dict[str, Any] = {
            "stop_reason": _stop_reason(self._last, self._calls),
            "stop_sequence": self._last.stop_string,
        }
        if self._last.finish_reason == "deadline":
            ended["cut_by_deadline"] = True
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        counted = _usage(self._prompt_tokens, cached, usage["completion_tokens"])
        self.message |= {**ended, "usage": counted, "timings": timings}  # type: ignore[typeddict-item]
        return [
            *events,
            {"type": "message_delta", "delta": ended, "usage": counted, "timings": timings},
            {"type": "message_stop"},
        ]


class WholeMessage:
    """Collects the events of a message that is sent when it is complete."""

    def __init__(self, prepared: PreparedRequest, model: Model) -> None:
        self._streamed = StreamedMessage(prepared, model)

    def add(self, event: Event) -> dict[str, Any] | None:
        """The message, once the last event is in. Raises the error of an event that is one."""
        self._streamed.parts(event)
        return {**self._streamed.message} if isinstance(event, Finished) else None


def _begun(prepared: PreparedRequest, model: Model) -> MessageObject:
    """The message before anything of its content is there."""
    message: MessageObject = {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model.name,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _usage(prepared.prompt_tokens, 0, 0),
    }
    if prepared.max_tokens_cut_to is not None:
        message["max_tokens_cut_to"] = prepared.max_tokens_cut_to
    return message


def _stop_reason(last: Piece, calls: int) -> StopReason:
    if last.finish_reason != "stop":
        return "max_tokens"
    if calls:
        return "tool_use"
    return "end_turn" if last.stop_string is None else "stop_sequence"


def _usage(prompt: int, cached: int, made: int) -> MessageUsage:
    """Of `prompt` tokens `cached` were found read."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": made,
    }


def _object(arguments: str) -> dict[str, Any]:
    """A call's arguments; of one that was cut, or holds what cannot be read, there is no whole object."""
    try:
        found: dict[str, Any] = parse_json(arguments.encode())
    except InvalidRequestError:
        return {}
    return found
