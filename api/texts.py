"""Texts to tokens and back, and messages to a prompt: what the model reads, without an answer from it.

The routes and fields are vLLM's (`prompt`, `messages`) and llama.cpp's (`content`); an answer has the names of both.
Imported with the first request for one of them.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from api.asked import chat_text, template_of
from api.errors import InvalidRequestError
from api.model import Model
from api.preparation import check_model
from api.response_types import Detokenized, RenderedPrompt, Tokenized
from api.schema import ChatRequest, Strict
from api.validation import validate


class TokenizeRequest(Strict, frozen=True):
    """`POST /tokenize` with a text: one of `prompt` and `content`."""

    shapes = {"prompt": "a string", "content": "a string"}  # noqa: RUF012 (as the base class declares it)
    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    add_special_tokens: Annotated[bool, Meta(description="Of `prompt`.")] = True
    add_special: Annotated[bool, Meta(description="Of `content`.")] = False
    return_token_strs: bool = False


class TokenizeChatRequest(ChatRequest, frozen=True, kw_only=True):
    """`POST /tokenize` with a chat's messages, and whatever else shapes its prompt."""

    add_special_tokens: Annotated[bool, Meta(description="Beside those that the chat template writes.")] = False
    return_token_strs: bool = False


class DetokenizeRequest(Strict, frozen=True):
    """`POST /detokenize`."""

    tokens: list[int]
    model: str | None = None


REQUESTS: Mapping[str, tuple[type[Strict], ...]] = {
    "/tokenize": (TokenizeRequest, TokenizeChatRequest),
    "/detokenize": (DetokenizeRequest,),
    "/apply-template": (ChatRequest,),
}
"""The routes, and what a body sent to one may be."""


def answer(path: str, body: Any, model: Model) -> Tokenized | Detokenized | RenderedPrompt:
    """What a JSON body sent to `path`, one of REQUESTS, asks for. Raises ApiError with one sentence for the caller."""
    if path == "/apply-template":
        return {"prompt": _prompt(validate(ChatRequest, body), model)}
    if path == "/detokenize":
        return _detokenized(validate(DetokenizeRequest, body), model)
    if isinstance(body, dict) and "messages" in body:
        chat = validate(TokenizeChatRequest, body)
        return _tokenized(_prompt(chat, model), chat.add_special_tokens, chat.return_token_strs, model)
    request = validate(TokenizeRequest, body)
    check_model(request.model, model)
    if (request.prompt is None) == (request.content is None):
        raise InvalidRequestError("Give one of 'prompt', 'content' and 'messages'.", param="prompt")
    if request.prompt is not None:
        return _tokenized(request.prompt, request.add_special_tokens, request.return_token_strs, model)
    assert request.content is not None
    return _tokenized(request.content, request.add_special, request.return_token_strs, model)


def _prompt(request: ChatRequest, model: Model) -> str:
    check_model(request.model, model)
    return chat_text(request, template_of(model))


def _tokenized(text: str, special: bool, named: bool, model: Model) -> Tokenized:
    ids = model.tokenizer.encode(text, add_special_tokens=special).tolist()
    return {
        "count": len(ids),
        "max_model_len": model.engine.context_length,
        "tokens": ids,
        "token_strs": [model.tokenizer.token_text(token) for token in ids] if named else None,
    }


def _detokenized(request: DetokenizeRequest, model: Model) -> Detokenized:
    check_model(request.model, model)
    size = model.engine.vocab_size
    if any(not 0 <= token < size for token in request.tokens):
        raise InvalidRequestError(f"'tokens' must be token ids from 0 to {size - 1}.", param="tokens")
    text = model.tokenizer.decode(request.tokens, skip_special_tokens=False)
    return {"prompt": text, "content": text}
