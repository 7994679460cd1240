"""A validated request to what its sequences need: prompts rendered and encoded, parameters resolved.

Everything about a request that depends on the model is checked here (its name, context, vocabulary, chat template),
before anything is generated, so that a stream never begins for a request that cannot be served.
"""

import time
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from api.chat import ChatTemplate
from api.errors import InvalidRequestError, NotFoundError
from api.model import Model
from api.schema import ChatRequest, CompletionRequest, Message
from api.shapes import compiled_shape
from engines.base import TokenIds
from generation.params import GenerationParams
from generation.sampling import SamplingParams

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default `max_tokens` of a completion."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice to generate."""

    prompt: TokenIds
    echo: str
    """The prompt's text where it is to be repeated before the completion, else empty."""
    params: GenerationParams


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that passed every check."""

    request: CompletionRequest | ChatRequest
    choices: tuple[Choice, ...]
    """In the order of their index: `n` for the first prompt, then for the next."""
    scope: Hashable
    """Requests of an equal scope may use what one of them has read."""
    prompt_tokens: int
    max_tokens_cut_to: int | None
    """The most tokens a choice may have where that is fewer than were asked for."""
    received: float
    """`time.monotonic()` when the request arrived here; what passes until it runs is queueing."""


def prepare(
    request: CompletionRequest | ChatRequest, model: Model, max_tokens: int, max_choices: int, scope: Hashable
) -> PreparedRequest:
    """Check and encode. Raises InvalidRequestError or NotFoundError with one sentence for the caller.

    `max_tokens` is the most completion tokens that one choice may have, `max_choices` the most choices: prompts times
    `n`, `scope` who shares what the request has read.
    """
    received = time.monotonic()
    check_model(request.model, model)
    _check_combinations(request)
    if isinstance(request, ChatRequest):
        prompts, echo = [_chat_prompt(request, model)], False
    else:
        prompts, echo = _completion_prompts(request, model, max_choices), request.echo
    asked = _asked_tokens(request)
    granted = _granted_tokens(request, model, max_tokens, longest=max(len(ids) for _, ids in prompts))
    params = _params(request, model, granted)
    seed = params.sampling.seed
    choices = [
        Choice(
            prompt=ids,
            echo=text if echo else "",
            params=replace(params, sampling=replace(params.sampling, seed=None if seed is None else seed + choice)),
        )
        for text, ids in prompts
        for choice in range(request.n)
    ]
    return PreparedRequest(
        request,
        tuple(choices),
        scope=scope,
        prompt_tokens=sum(len(ids) for _, ids in prompts),
        max_tokens_cut_to=granted if asked is not None and asked > granted else None,
        received=received,
    )


def check_model(name: str | None, model: Model) -> None:
    """NotFoundError unless `name` is the served model's; None means whichever is served."""
    if name is not None and name != model.name:
        raise NotFoundError(
            f"The model {name[:100]!r} does not exist here; this server serves {model.name!r}.",
            param="model",
            code="model_not_found",
            unquoted=f"That model does not exist here; this server serves {model.name!r}.",
        )


def _check_combinations(request: CompletionRequest | ChatRequest) -> None:
    """Parameters that are right one by one and wrong together."""
    if "" in ([request.stop] if isinstance(request.stop, str) else request.stop):
        raise InvalidRequestError("'stop' must not hold an empty string.", param="stop")
    if isinstance(request, ChatRequest):
        if request.top_logprobs and not request.logprobs:
            raise InvalidRequestError("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    elif request.max_tokens == 0 and not request.echo:
        raise InvalidRequestError("'max_tokens' must be at least 1 unless 'echo' is true.", param="max_tokens")


def _completion_prompts(request: CompletionRequest, model: Model, max_choices: int) -> list[tuple[str, TokenIds]]:
    """Text and ids of each prompt."""
    given: list[Any] = request.prompt if isinstance(request.prompt, list) else [request.prompt]
    if given and isinstance(given[0], int):
        given = [given]
    if len(given) * request.n > max_choices:
        raise InvalidRequestError(
            f"{len(given)} prompts with 'n' {request.n} make {len(given) * request.n} choices; "
            f"one request may ask for {max_choices}.",
            param="prompt",
        )
    if not given or not all(given):
        raise InvalidRequestError("'prompt' is empty; send at least one token of text.", param="prompt")
    encoded = []
    for prompt in given:
        if isinstance(prompt, str):
            encoded.append((prompt, _encode(model, prompt, param="prompt")))
        else:
            ids = _checked_ids(model, prompt)
            encoded.append((model.tokenizer.decode(prompt) if request.echo else "", ids))
    return encoded


def _chat_prompt(request: ChatRequest, model: Model) -> tuple[str, TokenIds]:
    if model.chat_template is None:
        raise InvalidRequestError(
            f"The model {model.name!r} has no chat template; use /v1/completions with a prompt.",
            param="messages",
        )
    text = chat_text(request, model.chat_template)
    return text, _encode(model, text, param="messages", add_special_tokens=False)


def chat_text(request: ChatRequest, template: ChatTemplate) -> str:
    """The prompt that the request makes. InvalidRequestError where the template refuses it."""
    if reserved := template.reserved & request.chat_template_kwargs.keys():
        raise InvalidRequestError(
            f"'chat_template_kwargs' must not hold {min(reserved)!r}.", param="chat_template_kwargs"
        )
    effort = {} if request.reasoning_effort is None else {"reasoning_effort": request.reasoning_effort}
    messages = [_plain(message) for message in request.messages]
    return template.render(messages, effort | request.chat_template_kwargs)


def _plain(message: Message) -> dict[str, Any]:
    """A message as chat templates know it: plain text, and OpenAI's `developer` by its older name."""
    content = message.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    plain = {"role": "system" if message.role == "developer" else message.role, "content": text}
    optional = {"name": message.name, "reasoning_content": message.reasoning_content}
    return plain | {name: value for name, value in optional.items() if value is not None}


def _encode(model: Model, text: str, *, param: str, add_special_tokens: bool = True) -> TokenIds:
    if model.tokenizer.exceeds(text, model.engine.context_length):
        raise _too_long(model, f"more than {model.engine.context_length}", param)
    ids = model.tokenizer.encode(text, add_special_tokens=add_special_tokens)
    if not len(ids):
        raise InvalidRequestError(f"'{param}' is empty; send at least one token of text.", param=param)
    return ids


def _too_long(model: Model, length: int | str, param: str) -> InvalidRequestError:
    """The refusal of a prompt of `length` tokens, which leaves no room for a completion."""
    context = model.engine.context_length
    return InvalidRequestError(
        f"The prompt is {length} tokens long; this model's context holds {context}, "
        f"so at most {context - 1} fit with one token of completion.",
        param=param,
        code="context_length_exceeded",
    )


def _checked_ids(model: Model, ids: list[int]) -> TokenIds:
    size = model.engine.vocab_size
    if len(ids) > model.engine.context_length:
        raise _too_long(model, len(ids), "prompt")
    wrong = next((token for token in ids if not 0 <= token < size), None)
    if wrong is not None:
        raise InvalidRequestError(
            f"'prompt' holds the token id {wrong}; ids go from 0 to {size - 1}.",
            param="prompt",
            unquoted=f"'prompt' holds a token id beyond 0 to {size - 1}.",
        )
    return np.array(ids, dtype=np.int64)


def _params(request: CompletionRequest | ChatRequest, model: Model, max_tokens: int) -> GenerationParams:
    if request.min_tokens > max_tokens:
        raise InvalidRequestError(f"'min_tokens' is more than the {max_tokens} tokens allowed.", param="min_tokens")
    if isinstance(request, ChatRequest):
        logprobs, prompt_logprobs = request.top_logprobs if request.logprobs else None, False
    else:
        logprobs, prompt_logprobs = request.logprobs, request.echo and request.logprobs is not None
    return GenerationParams(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop),
        eos_ids=frozenset() if request.ignore_eos else model.eos_ids,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        sampling=_sampling(request, model),
        grammar=compiled_shape(request, model.grammars),
    )


def _asked_tokens(request: CompletionRequest | ChatRequest) -> int | None:
    """The most tokens the request asks for; of a chat's two names the newer one counts."""
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        return request.max_completion_tokens
    return request.max_tokens


def _granted_tokens(request: CompletionRequest | ChatRequest, model: Model, cap: int, longest: int) -> int:
    """The most tokens a choice gets: no more than the server allows or than prompts of up to `longest` tokens leave."""
    context = model.engine.context_length
    asked = _asked_tokens(request)
    room = context - longest
    if room < (1 if asked is None else min(asked, 1)):
        raise _too_long(model, longest, "messages" if isinstance(request, ChatRequest) else "prompt")
    if asked is None:
        asked = context if isinstance(request, ChatRequest) else DEFAULT_COMPLETION_TOKENS
    return min(asked, room, cap)


def _sampling(request: CompletionRequest | ChatRequest, model: Model) -> SamplingParams:
    """The request's word, else the checkpoint's generation config, else leave the distribution alone."""
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    asked = {name: getattr(request, name) for name in names}
    chosen = dict(model.sampling_defaults) | {name: value for name, value in asked.items() if value is not None}
    chosen["top_k"] = max(0, chosen.get("top_k", 0))
    return SamplingParams(
        **chosen,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=_logit_bias(request.logit_bias, model.engine.vocab_size),
        seed=request.seed,
    )


def _logit_bias(bias: dict[str, float], vocab_size: int) -> dict[int, float]:
    for token in bias:
        if not (token.isascii() and token.isdecimal() and len(token) < 10 and int(token) < vocab_size):
            raise InvalidRequestError(
                f"'logit_bias' names {token[:40]!r}; its keys are token ids from 0 to {vocab_size - 1}.",
                param="logit_bias",
                unquoted=f"'logit_bias' has a key that is no token id from 0 to {vocab_size - 1}.",
            )
    return {int(token): value for token, value in bias.items()}
