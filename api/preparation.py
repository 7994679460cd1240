"""A validated request to what its sequences need: prompts encoded (`asked.py`), parameters resolved.

Everything about a request that depends on the model is checked here (its name, context, vocabulary, chat template),
before anything is generated, so that a stream never begins for a request that cannot be served.
"""

import time
from collections.abc import Hashable
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from api.asked import Asked, of_chat, of_completion, too_long
from api.errors import InvalidRequestError, NotFoundError
from api.forms import Form, form_of
from api.messages import plain_text
from api.model import Model
from api.schema import ChatRequest, CompletionRequest
from engines.base import TokenIds
from generation.params import GenerationParams, SamplingParams

if TYPE_CHECKING:
    from api.reading import Reading
    from api.translated import TranslatedRequest


class Choice(Struct, frozen=True):
    """One choice to generate."""

    prompt: TokenIds
    echo: str
    """The prompt's text where it is to be repeated before the completion, else empty."""
    params: GenerationParams


class PreparedRequest(Struct, frozen=True):
    """A request that passed every check."""

    request: CompletionRequest | ChatRequest
    choices: tuple[Choice, ...]
    """In the order of their index: `n` for the first prompt, then for the next."""
    reading: "Reading | None"
    """What the texts of the choices may hold beside content, None for nothing."""
    scope: Hashable
    """Requests of an equal scope may use what one of them has read."""
    prompt_tokens: int
    max_tokens_cut_to: int | None
    """The most tokens a choice may have where that is fewer than were asked for."""
    received: float
    """`time.monotonic()` when the request arrived here; what passes until it runs is queueing."""
    translated: "TranslatedRequest | None" = None
    """What another API was asked for, where `request` is the chat that this became."""

    @property
    def calls_tools(self) -> bool:
        """Whether an answer may be a call."""
        return self.reading is not None and self.reading.style is not None


def prepare(
    request: CompletionRequest | ChatRequest,
    model: Model,
    max_tokens: int,
    max_choices: int,
    scope: Hashable,
    draft_tokens: int,
) -> PreparedRequest:
    """Check and encode. Raises InvalidRequestError or NotFoundError with one sentence for the caller.

    `max_tokens` is the most completion tokens that one choice may have, `max_choices` the most choices: prompts times
    `n`, `scope` who shares what the request has read, `draft_tokens` the most tokens of a draft where the request does
    not say.
    """
    received = time.monotonic()
    check_model(request.model, model)
    if "" in ([request.stop] if isinstance(request.stop, str) else request.stop):
        raise InvalidRequestError("'stop' must not hold an empty string.", param="stop")
    asked = of_chat(request, model) if isinstance(request, ChatRequest) else of_completion(request, model, max_choices)
    granted = _granted_tokens(asked, model, max_tokens)
    form = form_of(request, asked, model)
    params = _params(request, asked, model, granted, form)
    if model.engine.pool is not None:  # else a pass of another length would round otherwise
        wanted = request.prompt_lookup_num_tokens
        most = draft_tokens if wanted is None else wanted
        params = replace(params, most_drafted=most, prediction=_prediction(request, model))
    seed = params.sampling.seed
    seeds = [None if seed is None else (seed + choice) % 2**64 for choice in range(request.n)]
    choices = [
        Choice(
            prompt=ids,
            echo=text if asked.echo else "",
            params=replace(params, sampling=replace(params.sampling, seed=seed_of_choice)),
        )
        for text, ids in asked.prompts
        for seed_of_choice in seeds
    ]
    return PreparedRequest(
        request,
        tuple(choices),
        reading=form.reading,
        scope=scope,
        prompt_tokens=sum(len(ids) for _, ids in asked.prompts),
        max_tokens_cut_to=granted if asked.max_tokens is not None and asked.max_tokens > granted else None,
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


def _granted_tokens(asked: Asked, model: Model, cap: int) -> int:
    """The most tokens a choice gets: no more than the server allows or than the longest prompt leaves."""
    longest = max(len(ids) for _, ids in asked.prompts)
    room = model.engine.context_length - longest
    if room < (1 if asked.max_tokens is None else min(asked.max_tokens, 1)):
        raise too_long(model, longest, asked.param)
    return min(asked.default_max_tokens if asked.max_tokens is None else asked.max_tokens, room, cap)


def _params(
    request: CompletionRequest | ChatRequest, asked: Asked, model: Model, max_tokens: int, form: Form
) -> GenerationParams:
    if request.min_tokens > max_tokens:
        raise InvalidRequestError(f"'min_tokens' is more than the {max_tokens} tokens allowed.", param="min_tokens")
    return GenerationParams(
        max_tokens=max_tokens,
        min_tokens=request.min_tokens,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop),
        eos_ids=frozenset() if request.ignore_eos else model.eos_ids,
        logprobs=asked.logprobs,
        prompt_logprobs=asked.echo and asked.logprobs is not None,
        sampling=_sampling(request, model),
        grammar=form.grammar,
        shown=form.shown,
    )


def _prediction(request: CompletionRequest | ChatRequest, model: Model) -> TokenIds | None:
    """The ids of the text that the caller expects."""
    if request.prediction is None:
        return None
    text, most = plain_text(request.prediction.content), model.engine.context_length
    if not model.tokenizer.exceeds(text, most):
        ids = model.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) <= most:
            return ids
    raise InvalidRequestError(
        f"'prediction' is longer than the {most} tokens that this model's context holds; "
        f"send what the answer is expected to begin with.",
        param="prediction",
    )


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
