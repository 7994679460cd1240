"""Chunks of generated text to OpenAI's objects: pure builders, whole and streamed, completion and chat.

Knows the shapes of responses and the tokenizer's names for tokens; decides nothing.
"""

from collections.abc import Sequence
from typing import Literal

from api.response_types import (
    ChatChoice,
    ChatChunkChoice,
    ChatLogprobs,
    CompletionChoice,
    CompletionLogprobs,
    Delta,
    Timings,
    TokenLogprob,
    TopLogprob,
)
from generation.token_loop import Chunk, Token
from generation.tokenizer import Tokenizer


def completion_choice(
    index: int, chunks: Sequence[Chunk], tokenizer: Tokenizer, *, echo: str, logprobs: int | None
) -> CompletionChoice:
    """One choice of a completion, or a streamed part of it, from consecutive chunks of one generation.

    `echo` is what of the prompt's text to repeat before theirs.
    """
    choice: CompletionChoice = {
        "index": index,
        "text": echo + "".join(chunk.text for chunk in chunks),
        "logprobs": None if logprobs is None else _completion_logprobs(_sampled(chunks), tokenizer, top=logprobs),
        "finish_reason": _finish_reason(chunks[-1]),
    }
    if chunks[-1].finish_reason == "deadline":
        choice["cut_by_deadline"] = True
    return choice


def chat_choice(index: int, chunks: Sequence[Chunk], tokenizer: Tokenizer, *, logprobs: bool) -> ChatChoice:
    """One choice of a chat completion from all chunks of one generation."""
    choice: ChatChoice = {
        "index": index,
        "message": {"role": "assistant", "content": "".join(chunk.text for chunk in chunks), "refusal": None},
        "logprobs": _chat_logprobs(_tokens(chunks), tokenizer) if logprobs else None,
        "finish_reason": _finish_reason(chunks[-1]) or "length",
    }
    if chunks[-1].finish_reason == "deadline":
        choice["cut_by_deadline"] = True
    return choice


def chat_chunk_choice(
    index: int, delta: Delta, chunk: Chunk | None, tokenizer: Tokenizer, *, logprobs: bool
) -> ChatChunkChoice:
    """One choice of a streamed chat completion; no chunk for the delta that only opens the message."""
    choice: ChatChunkChoice = {
        "index": index,
        "delta": delta,
        "logprobs": _chat_logprobs(chunk.tokens, tokenizer) if logprobs and chunk and chunk.tokens else None,
        "finish_reason": _finish_reason(chunk) if chunk else None,
    }
    if chunk and chunk.finish_reason == "deadline":
        choice["cut_by_deadline"] = True
    return choice


def server_timing(timings: Timings) -> str:
    """The `Server-Timing` header (W3C) for a response's timings."""
    spans = ("queue", "prefill", "decode", "total")
    values = [timings["queue_ms"], timings["prefill_ms"], timings["decode_ms"], timings["total_ms"]]
    marks = ["cold_start"] if timings["cold_start"] else []
    return ", ".join(marks + [f"{name};dur={value}" for name, value in zip(spans, values, strict=True)])


def _finish_reason(chunk: Chunk) -> Literal["stop", "length"] | None:
    """OpenAI's word for it: a cut by the deadline is a length, told apart by `cut_by_deadline`."""
    return "length" if chunk.finish_reason == "deadline" else chunk.finish_reason


def _tokens(chunks: Sequence[Chunk]) -> list[Token]:
    return [token for chunk in chunks for token in chunk.tokens]


def _sampled(chunks: Sequence[Chunk]) -> list[Token]:
    """The tokens and the end of sequence that was sampled after them: a completion's log-probabilities have both.

    Clients that score a prompt drop the last entry as the one sampled token, whichever it was.
    """
    end = chunks[-1].end
    return [*_tokens(chunks), *([] if end is None else [end])]


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


def _chat_logprobs(tokens: Sequence[Token], tokenizer: Tokenizer) -> ChatLogprobs:
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
