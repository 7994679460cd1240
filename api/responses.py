"""Parts of answers to OpenAI's objects: pure builders, whole and streamed, completion and chat.

Knows the shapes of responses and the tokenizer's names for tokens; decides nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from api.events import CallArguments, CallBegun, Content, Part, Reasoning, Said
from api.preparation import PreparedRequest
from api.response_types import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatFinishReason,
    ChatLogprobs,
    CompletionChoice,
    CompletionLogprobs,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    Timings,
    TokenLogprob,
    TopLogprob,
)
from api.schema import ChatRequest
from generation.sequence import Piece, Token
from generation.tokenizer import Tokenizer


class Wording(Protocol):
    """What a kind of request words differently in its answers."""

    @property
    def kind(self) -> str:
        """The `object` of a whole answer."""
        ...

    @property
    def part_kind(self) -> str:
        """The `object` of a streamed part."""
        ...

    @property
    def id_prefix(self) -> str:
        """What answers' ids begin with."""
        ...

    def whole(self, parts: list[Part]) -> Mapping[str, Any]:
        """One choice from all its parts."""
        ...

    def parts(self, part: Part, *, first: bool) -> Sequence[Mapping[str, Any]]:
        """What is streamed of one choice for one part, maybe nothing. `first` is the choice's first one."""
        ...


class CompletionWording:
    """Of completions."""

    kind = part_kind = "text_completion"
    id_prefix = "cmpl"

    def __init__(self, tokenizer: Tokenizer, *, echoes: list[str], logprobs: int | None) -> None:
        """`echoes` are what of each choice's prompt to repeat before its text."""
        self._tokenizer = tokenizer
        self._echoes = echoes
        self._logprobs = logprobs

    def whole(self, parts: list[Part]) -> CompletionChoice:
        """See `Wording`."""
        index = parts[0].index
        return self._choice(index, [part.piece for part in parts], self._echoes[index])

    def parts(self, part: Part, *, first: bool) -> list[CompletionChoice]:
        """See `Wording`."""
        piece, echo = part.piece, self._echoes[part.index] if first else ""
        visible = echo or piece.text or piece.tokens or piece.finish_reason
        return [self._choice(part.index, [piece], echo)] if visible else []

    def _choice(self, index: int, pieces: list[Piece], echo: str) -> CompletionChoice:
        logprobs = self._logprobs
        choice: CompletionChoice = {
            "index": index,
            "text": echo + "".join(piece.text for piece in pieces),
            "logprobs": (
                None if logprobs is None else _completion_logprobs(_sampled(pieces), self._tokenizer, top=logprobs)
            ),
            "finish_reason": _finish_reason(pieces[-1]),
        }
        if pieces[-1].finish_reason == "deadline":
            choice["cut_by_deadline"] = True
        return choice


class ChatWording:
    """Of chat completions."""

    kind = "chat.completion"
    part_kind = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool, tools: bool, legacy: bool) -> None:
        """`tools` is whether the answer may call any, `legacy` whether they were given as `functions`."""
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._tools = tools
        self._legacy = legacy

    def whole(self, parts: list[Part]) -> ChatChoice:
        """See `Wording`."""
        pieces = [part.piece for part in parts]
        said = [each for part in parts for each in part.said]
        calls = [each for each in said if isinstance(each, CallBegun)]
        content = "".join(each.text for each in said if isinstance(each, Content))
        message: AssistantMessage = {"role": "assistant", "content": content, "refusal": None}
        if calls:
            message["content"] = content or None
            functions: list[FunctionCall] = [
                {"name": call.name, "arguments": _arguments_of(call.number, said)} for call in calls
            ]
            if self._legacy:
                message["function_call"] = functions[0]
            else:
                message["tool_calls"] = [
                    {"id": call.id, "type": "function", "function": function}
                    for call, function in zip(calls, functions, strict=True)
                ]
        if reasoning := "".join(each.text for each in said if isinstance(each, Reasoning)):
            message["reasoning_content"] = reasoning
        choice: ChatChoice = {
            "index": parts[0].index,
            "message": message,
            "logprobs": chat_logprobs(_tokens(pieces), self._tokenizer) if self._logprobs else None,
            "finish_reason": self._finish_reason(parts[-1]) or "length",
        }
        if pieces[-1].finish_reason == "deadline":
            choice["cut_by_deadline"] = True
        return choice

    def parts(self, part: Part, *, first: bool) -> list[ChatChunkChoice]:
        """See `Wording`: before the first piece goes a delta that only opens the message."""
        piece = part.piece
        deltas = [self._delta(each) for each in part.said]
        logprobs = chat_logprobs(piece.tokens, self._tokenizer) if self._logprobs and piece.tokens else None
        if not deltas and (logprobs or piece.finish_reason):
            deltas = [{}]
        parts: list[ChatChunkChoice] = [
            {"index": part.index, "delta": delta, "logprobs": None, "finish_reason": None} for delta in deltas
        ]
        if parts:
            parts[0]["logprobs"] = logprobs
            parts[-1]["finish_reason"] = self._finish_reason(part)
            if piece.finish_reason == "deadline":
                parts[-1]["cut_by_deadline"] = True
        if first:
            opening: Delta = {"role": "assistant", "content": None if self._tools else "", "refusal": None}
            parts.insert(0, {"index": part.index, "delta": opening, "logprobs": None, "finish_reason": None})
        return parts

    def _delta(self, said: Said) -> Delta:
        match said:
            case Content(text):
                return {"content": text}
            case Reasoning(text):
                return {"reasoning_content": text}
            case CallBegun(number, id, name):
                function: FunctionCallDelta = {"name": name, "arguments": ""}
                if self._legacy:
                    return {"function_call": function}
                return {"tool_calls": [{"index": number, "id": id, "type": "function", "function": function}]}
            case CallArguments(number, text):
                if self._legacy:
                    return {"function_call": {"arguments": text}}
                return {"tool_calls": [{"index": number, "function": {"arguments": text}}]}

    def _finish_reason(self, last: Part) -> ChatFinishReason | None:
        reason = _finish_reason(last.piece)
        if reason == "stop" and last.calls:
            return "function_call" if self._legacy else "tool_calls"
        return reason


def wording_of(prepared: PreparedRequest, tokenizer: Tokenizer) -> Wording:
    """How the answer to this request is worded."""
    request = prepared.request
    if isinstance(request, ChatRequest):
        legacy = bool(request.functions)
        return ChatWording(tokenizer, logprobs=request.logprobs, tools=prepared.calls_tools, legacy=legacy)
    return CompletionWording(tokenizer, echoes=[choice.echo for choice in prepared.choices], logprobs=request.logprobs)


def server_timing(timings: Timings) -> str:
    """The `Server-Timing` header (W3C) for a response's timings."""
    spans = ("queue", "prefill", "decode", "total")
    values = [timings["queue_ms"], timings["prefill_ms"], timings["decode_ms"], timings["total_ms"]]
    marks = ["cold_start"] if timings["cold_start"] else []
    return ", ".join(marks + [f"{name};dur={value}" for name, value in zip(spans, values, strict=True)])


def _arguments_of(number: int, said: Sequence[Said]) -> str:
    return "".join(each.text for each in said if isinstance(each, CallArguments) and each.number == number)


def _finish_reason(piece: Piece) -> Literal["stop", "length"] | None:
    """OpenAI's word for it: a cut by the deadline is a length, told apart by `cut_by_deadline`."""
    return "length" if piece.finish_reason == "deadline" else piece.finish_reason


def _tokens(pieces: Sequence[Piece]) -> list[Token]:
    return [token for piece in pieces for token in piece.tokens]


def _sampled(pieces: Sequence[Piece]) -> list[Token]:
    """The tokens and the end of sequence that was sampled after them: a completion's log-probabilities have both.

    Clients that score a prompt drop the last entry as the one sampled token, whichever it was.
    """
    end = pieces[-1].end
    return [*_tokens(pieces), *([] if end is None else [end])]


def _completion_logprobs(tokens: Sequence[Token], tokenizer: Tokenizer, *, top: int) -> CompletionLogprobs:
    """The legacy object: parallel lists, `text_offset` from the start of the whole choice's text."""
    alternatives = [None if token.logprob is None else _alternatives(token, tokenizer) for token in tokens]
    return {
        "tokens": [tokenizer.token_text(token.id) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": alternatives if top else None,
        "text_offset": [token.offset for token in tokens],
    }


def _alternatives(token: Token, tokenizer: Tokenizer) -> dict[str, float]:
    """By text: the likeliest tokens and the token itself, as OpenAI's legacy object has them.

    Tokens that are parts of characters share a text; the likeliest of them counts.
    """
    named: dict[str, float] = {}
    for i, logprob in (*token.top, (token.id, token.logprob or 0.0)):
        named.setdefault(tokenizer.token_text(i), logprob)
    return named


def chat_logprobs(tokens: Sequence[Token], tokenizer: Tokenizer) -> ChatLogprobs:
    """What is said of the tokens of a chat's text."""
    content: list[TokenLogprob] = [
        {
            **_top_logprob(token.id, token.logprob or 0.0, tokenizer),
            "top_logprobs": [_top_logprob(i, logprob, tokenizer) for i, logprob in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _top_logprob(token: int, logprob: float, tokenizer: Tokenizer) -> TopLogprob:
    return {
        "token": tokenizer.token_text(token),
        "logprob": logprob,
        "bytes": list(tokenizer.token_bytes(token)),
    }
