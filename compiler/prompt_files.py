"""A prompt's file -> the token ids that every request which continues it begins with.

Where the prompt ends and the caller's part begins is found by trying: several sample requests continue the prompt, each
made into tokens as a server does it, and what all of them have in common is the prompt's. So whatever the chat template
puts between the two is found, and a last token that the tokenizer joins with the caller's text is not taken; nor is
anything from the day's date on, where the template writes it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from api.asked import chat_text
from api.chat import ChatTemplate, load_chat_template
from api.errors import InvalidRequestError
from api.schema import ChatRequest, CompletionRequest
from api.validation import validate
from compiler.errors import CompileError
from engines.base import PAGE_TOKENS, TokenIds, token_ids
from generation.tokenizer import Tokenizer

FIELDS = ("messages", "tools", "chat_template_kwargs", "reasoning_effort")
"""What a chat's file may have: the fields of a request that its chat template sees."""
LEAST_ROOM = 64
"""Tokens of the context that a prompt must leave for the caller's part and the answer."""
_CONTINUATIONS = ("What is this?", " the", "the", "1 + 1", "\nNext", "?", "é", "<b>", "`x`", "你好")
"""Ways for a caller's part to begin."""
_ANOTHER_DAY = datetime(2038, 1, 19, 3, 14, 7)


@dataclass(frozen=True)
class Prompt:
    """What requests that continue one file have in common."""

    path: Path
    common: TokenIds
    """All of it."""
    sample: TokenIds
    """The prompt of one such request."""

    @property
    def ids(self) -> TokenIds:
        """What is stored: whole pages."""
        return token_ids(self.common[: len(self.common) // PAGE_TOKENS * PAGE_TOKENS])


def read(paths: Sequence[Path], directory: Path, context: int) -> list[Prompt]:
    """The prompts in `paths` for the checkpoint or artifact in `directory`.

    A file that ends in .json is the messages a chat begins with, any other raw text. Raises CompileError for a file
    that is neither, that has no whole page, or that leaves less than LEAST_ROOM of the `context`; LoadError for a
    checkpoint without a tokenizer.
    """
    if not paths:
        return []
    tokenizer = Tokenizer(directory)
    template = load_chat_template(directory, tokenizer.special_tokens)
    return [_read(path, tokenizer, template, context) for path in paths]


def _read(path: Path, tokenizer: Tokenizer, template: ChatTemplate | None, context: int) -> Prompt:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise CompileError(f"{path} is not text in UTF-8.") from None
    try:
        if path.suffix == ".json":
            requests = _chats(path, text, tokenizer, template)
        else:
            requests = [_completion(text + continuation, tokenizer) for continuation in _CONTINUATIONS]
    except InvalidRequestError as error:
        raise CompileError(f"{path} cannot begin a request: {error.message}") from None
    common = _in_common(requests)
    prompt = Prompt(path, common, requests[0])
    if not len(prompt.ids):
        raise CompileError(
            f"{path} has {len(common)} tokens before the caller's part, and only whole pages of {PAGE_TOKENS} are "
            f"stored."
        )
    if len(common) + LEAST_ROOM > context:
        raise CompileError(
            f"{path} has {len(common)} tokens, and of the context of {context} at least {LEAST_ROOM} must be left."
        )
    return prompt


def _in_common(requests: Sequence[TokenIds]) -> TokenIds:
    """What all begin with."""
    shortest = min(map(len, requests))
    same = np.all([np.equal(ids[:shortest], requests[0][:shortest]) for ids in requests], axis=0)
    return token_ids(requests[0][: int(np.append(same, False).argmin())])


def _completion(text: str, tokenizer: Tokenizer) -> TokenIds:
    prompt = validate(CompletionRequest, {"prompt": text}).prompt
    assert isinstance(prompt, str)
    return tokenizer.encode(prompt)


def _chats(path: Path, text: str, tokenizer: Tokenizer, template: ChatTemplate | None) -> list[TokenIds]:
    """The prompts of chats that continue the messages in `text` with a user's."""
    if template is None:
        raise CompileError(f"{path} holds chat messages, and the checkpoint has no chat template.")
    begins = _beginning(path, text)
    requests = [
        validate(ChatRequest, {**begins, "messages": [*begins["messages"], {"role": "user", "content": continuation}]})
        for continuation in _CONTINUATIONS
    ]
    requests.append(_on_another_day(requests[0]))
    return [tokenizer.encode(chat_text(request, template), add_special_tokens=False) for request in requests]


def _on_another_day(request: ChatRequest) -> ChatRequest:
    """The request with another date for the chat template to write, if it does."""
    clock = {"strftime_now": _ANOTHER_DAY.strftime}
    return structs.replace(request, chat_template_kwargs={**request.chat_template_kwargs, **clock})


def _beginning(path: Path, text: str) -> dict[str, Any]:
    """The fields of a chat request that the file gives."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CompileError(f"{path} is not JSON ({str(error).rstrip('.')}).") from None
    begins = {"messages": content} if isinstance(content, list) else content
    if not isinstance(begins, dict) or not isinstance(begins.get("messages"), list):
        raise CompileError(f'{path} is neither a list of chat messages nor an object with "messages".')
    if other := next((name for name in begins if name not in FIELDS), None):
        raise CompileError(f"{path} has a field {other[:40]!r}; the fields of a prompt are {', '.join(FIELDS)}.")
    return begins
