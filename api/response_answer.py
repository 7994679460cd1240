"""Events to answers of OpenAI's Responses API: typed events with their places in the output, and the whole response.

A whole response is what the events of a streamed one have made when they are all there: one fold makes both.
"""

import time
import uuid
from typing import Any

import msgspec

from api.events import CallArguments, CallBegun, Content, Event, Failed, Finished, Part, Reasoning, Said
from api.model import Model
from api.preparation import PreparedRequest
from api.response_object import OutputItem, OutputPart, ResponseEvent, ResponseObject, ResponseUsage, Status
from api.response_request import FunctionTool, ResponseRequest, TextFormat
from api.response_types import Timings, TokenLogprob, Usage
from api.responses import chat_logprobs
from generation.sequence import Piece


class WholeResponse:
    """Collects the events of a response that is sent when it is complete."""

    def __init__(self, prepared: PreparedRequest, request: ResponseRequest, model: Model) -> None:
        self._streamed = StreamedResponse(prepared, request, model)

    def add(self, event: Event) -> dict[str, Any] | None:
        """The response, once the last event is in. Raises the error of an event that is one."""
        events = self._streamed.parts(event)
        return events[-1]["response"] if isinstance(event, Finished) else None


class StreamedResponse:
    """Turns the events of an answer into those of the API, one by one."""

    def __init__(self, prepared: PreparedRequest, request: ResponseRequest, model: Model) -> None:
        self._tokenizer = model.tokenizer if request.logprobs else None
        self._response = _begun(prepared, request, model)
        self._output = Output()
        self._untold: list[TokenLogprob] = []
        """Of tokens whose text was not said yet."""
        self._cut: str | None = None
        self._sent = 0

    def parts(self, event: Event) -> list[dict[str, Any]]:
        """What to send for an event, maybe nothing. Raises the error of an event that is one."""
        match event:
            case Part(_, piece, said):
                if piece.finish_reason in ("length", "deadline"):
                    self._cut = piece.finish_reason
                return self._numbered(self._more(piece, said))
            case Failed(error):
                raise error
            case Finished(usage, timings):
                return self._numbered(self._end(usage, timings))

    def _more(self, piece: Piece, said: tuple[Said, ...]) -> list[ResponseEvent]:
        """The events of what was said. Tokens of calls and thoughts are told nowhere."""
        logprobs = chat_logprobs(piece.tokens, self._tokenizer)["content"] if self._tokenizer else []
        last = piece.finish_reason is not None
        if not said and last and self._output.grows == "message" and self._untold + logprobs:
            said = (Content(""),)
        if not said:
            self._untold += logprobs
            return []
        if isinstance(said[0], Content):
            logprobs = self._untold + logprobs
        self._untold = []
        events: list[ResponseEvent] = []
        for each in said:
            events += self._output.add(each, logprobs if isinstance(each, Content) else [])
            logprobs = [] if isinstance(each, Content) else logprobs
        return events

    def _end(self, usage: Usage, timings: Timings) -> list[ResponseEvent]:
        """The events of the end, the whole response in the last of them."""
        status: Status = "incomplete" if self._cut else "completed"
        events = [] if self._output.items else self._output.text("", [])
        events += self._output.close(status)
        ended: ResponseObject = {
            **self._response,
            "status": status,
            "output": self._output.items,
            "usage": _usage(usage),
            "timings": timings,
        }
        if self._cut is None:
            ended["completed_at"] = int(time.time())
        else:
            ended["incomplete_details"] = {"reason": "max_output_tokens"}
        if self._cut == "deadline":
            ended["cut_by_deadline"] = True
        return [*events, {"type": f"response.{status}", "response": ended}]

    def _numbered(self, events: list[ResponseEvent]) -> list[dict[str, Any]]:
        """The events as they are sent; before the very first go two that say that the response has begun."""
        if self._sent == 0:
            begun = self._response
            events = [
                {"type": "response.created", "response": begun},
                {"type": "response.in_progress", "response": begun},
                *events,
            ]
        first, self._sent = self._sent, self._sent + len(events)
        return [{**event, "sequence_number": first + number} for number, event in enumerate(events)]


class Output:
    """The items of a response as they grow, and the events that tell of it."""

    def __init__(self) -> None:
        self.items: list[OutputItem] = []
        self.grows = ""
        """The type of the last item while it grows, else empty."""

    def add(self, said: Said, logprobs: list[TokenLogprob]) -> list[ResponseEvent]:
        """The events of what was said; `logprobs` are of the tokens of a text."""
        match said:
            case Content(text):
                return self.text(text, logprobs)
            case Reasoning(text):
                return self._thought(text)
            case CallBegun(_, id, name):
                return self._begin(
                    {
                        "id": _id("fc"),
                        "type": "function_call",
                        "status": "in_progress",
                        "call_id": id,
                        "name": name,
                        "arguments": "",
                    }
                )
            case CallArguments(_, text):
                self.items[-1]["arguments"] += text
                return [self._of_item("response.function_call_arguments.delta", delta=text)]

    def text(self, delta: str, logprobs: list[TokenLogprob]) -> list[ResponseEvent]:
        """The events of more of a message's text."""
        events = []
        if self.grows != "message":
            part: OutputPart = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            events = self._begin(
                {"id": _id("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": []}
            )
            events.append(self._of_part("response.content_part.added", part={**part, "logprobs": []}))
            self.items[-1]["content"] = [part]
        (grown,) = self.items[-1]["content"]
        grown["text"] += delta
        grown["logprobs"] += logprobs
        events.append(self._of_part("response.output_text.delta", delta=delta, logprobs=logprobs))
        return events

    def _thought(self, delta: str) -> list[ResponseEvent]:
        events = []
        if self.grows != "reasoning":
            events = self._begin(
                {"id": _id("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": []}
            )
            self.items[-1]["content"] = [{"type": "reasoning_text", "text": ""}]
        self.items[-1]["content"][0]["text"] += delta
        return [*events, self._of_part("response.reasoning_text.delta", delta=delta)]

    def close(self, status: Status) -> list[ResponseEvent]:
        """The events of the end of the item that grew, nothing where none did."""
        if not self.grows:
            return []
        kind, self.grows = self.grows, ""
        item = self.items[-1]
        item["status"] = status
        events: list[ResponseEvent] = []
        if kind == "function_call":
            done = self._of_item(
                "response.function_call_arguments.done", name=item["name"], arguments=item["arguments"]
            )
            events.append(done)
        else:
            (part,) = item["content"]
            if kind == "reasoning":
                events.append(self._of_part("response.reasoning_text.done", text=part["text"]))
            else:
                done = self._of_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
                events.append(done)
                events.append(self._of_part("response.content_part.done", part=part))
        return [*events, {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": item}]

    def _begin(self, item: OutputItem) -> list[ResponseEvent]:
        """The events of a new item, which ends the one before it."""
        events = self.close("completed")
        self.items.append(item)
        self.grows = item["type"]
        added: OutputItem = {**item}
        return [*events, {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": added}]

    def _of_item(self, kind: str, **fields: Any) -> ResponseEvent:
        """An event about the last item."""
        place = {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}
        return {"type": kind, **place, **fields}  # type: ignore[typeddict-item]

    def _of_part(self, kind: str, **fields: Any) -> ResponseEvent:
        """An event about the last item's only text."""
        return self._of_item(kind, content_index=0, **fields)


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _usage(usage: Usage) -> ResponseUsage:
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": usage["total_tokens"],
    }


def _begun(prepared: PreparedRequest, request: ResponseRequest, model: Model) -> ResponseObject:
    """The response before anything of its output is there."""
    sampling = prepared.choices[0].params.sampling
    response: ResponseObject = {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "error": None,
        "model": model.name,
        "output": [],
        "usage": None,
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata,
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": None,
        "reasoning": {"effort": request.reasoning.effort, "summary": request.reasoning.summary},
        "service_tier": "default",
        "store": False,
        "temperature": sampling.temperature,
        "text": {"format": _given(request.text.format)},
        "tool_choice": msgspec.to_builtins(request.tool_choice),
        "tools": [_given(tool) for tool in request.tools],
        "top_logprobs": request.top_logprobs,
        "top_p": sampling.top_p,
        "truncation": "disabled",
    }
    if prepared.max_tokens_cut_to is not None:
        response["max_tokens_cut_to"] = prepared.max_tokens_cut_to
    return response


def _given(part: TextFormat | FunctionTool) -> dict[str, Any]:
    """A part of the request as it was sent, without what was left out."""
    fields = msgspec.structs.asdict(part)
    return {name: value for name, value in fields.items() if value not in (None, "")}
