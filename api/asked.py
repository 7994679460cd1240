"""What a request asks of the model, in terms that a chat and a completion share. All that differs before the answer.

A chat's messages become one prompt by the checkpoint's template; a completion has prompts of its own.
"""

import uuid
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from api.chat import ChatTemplate
from api.errors import InvalidRequestError
from api.messages import plain_messages
from api.model import Model
from api.schema import ChatRequest, CompletionRequest
from engines.base import TokenIds, token_ids

if TYPE_CHECKING:
    from api.tools import Offer

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default `max_tokens` of a completion."""


class Asked(Struct, frozen=True):
    """Prompts and limits of a request of either kind."""

    prompts: list[tuple[str, TokenIds]]
    """Text and ids of each; the text may be empty where nobody asks for it."""
    param: str
    """The parameter that holds them."""
    max_tokens: int | None
    """The most tokens of a choice, None for `default_max_tokens`."""
    default_max_tokens: int
    logprobs: int | None
    """None for none, else how many of the likeliest alternatives to report beside each token."""
    echo: bool
    """Whether the prompt is repeated before the completion."""
    offer: "Offer | None" = None
    """The tools that the answer may call."""


def of_chat(request: ChatRequest, model: Model) -> Asked:
    """Raises InvalidRequestError with one sentence for the caller."""
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequestError("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    text = chat_text(request, template_of(model))
    newer = request.max_completion_tokens  # OpenAI's newer name of the two counts
    return Asked(
        prompts=[(text, _encode(model, text, param="messages", add_special_tokens=False))],
        param="messages",
        max_tokens=request.max_tokens if newer is None else newer,
        default_max_tokens=model.engine.context_length,
        logprobs=request.top_logprobs if request.logprobs else None,
        echo=False,
        offer=_offer(request),
    )


def of_completion(request: CompletionRequest, model: Model, max_choices: int) -> Asked:
    """The same, and for more than `max_choices` prompts times `n`."""
    if request.max_tokens == 0 and not request.echo:
        raise InvalidRequestError("'max_tokens' must be at least 1 unless 'echo' is true.", param="max_tokens")
    return Asked(
        prompts=_completion_prompts(request, model, max_choices),
        param="prompt",
        max_tokens=request.max_tokens,
        default_max_tokens=DEFAULT_COMPLETION_TOKENS,
        logprobs=request.logprobs,
        echo=request.echo,
    )


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


def template_of(model: Model) -> ChatTemplate:
    """The model's chat template. InvalidRequestError where it has none."""
    if model.chat_template is None:
        raise InvalidRequestError(
            f"The model {model.name!r} has no chat template; use /v1/completions with a prompt.",
            param="messages",
        )
    return model.chat_template


def chat_text(request: ChatRequest, template: ChatTemplate) -> str:
    """The prompt that the request makes. InvalidRequestError where the template refuses it."""
    offer = _offer(request)
    if reserved := template.reserved & request.chat_template_kwargs.keys():
        raise InvalidRequestError(
            f"'chat_template_kwargs' must not hold {min(reserved)!r}.", param="chat_template_kwargs"
        )
    effort = {} if request.reasoning_effort is None else {"reasoning_effort": request.reasoning_effort}
    messages = plain_messages(request.messages)
    tools: list[dict[str, Any]] = []
    if offer is not None or any(message.keys() & {"tool_calls", "tool_call_id"} for message in messages):
        from api.tool_messages import with_tools

        messages, tools = with_tools(messages, offer, template.source)
    variables = effort | request.chat_template_kwargs
    if request.continue_final_message:
        return _continued(request, template, messages, variables, tools)
    opened = request.add_generation_prompt is not False
    return template.render(messages, variables, tools=tools, add_generation_prompt=opened)


def _continued(
    request: ChatRequest,
    template: ChatTemplate,
    messages: list[dict[str, Any]],
    variables: dict[str, Any],
    tools: list[dict[str, Any]],
) -> str:
    """The prompt that ends where the last message does, for the assistant to go on with it."""
    if request.add_generation_prompt:
        raise InvalidRequestError(
            "'add_generation_prompt' and 'continue_final_message' exclude each other.", param="add_generation_prompt"
        )
    if messages[-1]["role"] != "assistant":
        raise InvalidRequestError(
            "'continue_final_message' needs a last message of the assistant.", param="continue_final_message"
        )
    if request.messages[-1].tool_calls or request.messages[-1].function_call is not None:
        raise InvalidRequestError(
            "The last message calls a tool, so it cannot be continued; send the call's result after it.",
            param="messages",
        )
    end = uuid.uuid4().hex  # what the template writes after the message comes after it
    *others, last = messages
    marked = [*others, last | {"content": last["content"] + end}]
    text = template.render(marked, variables, tools=tools, add_generation_prompt=False)
    before, found, _ = text.rpartition(end)
    if not found:
        raise InvalidRequestError(
            "The model's chat template leaves the last message out; it cannot be continued.", param="messages"
        )
    return before


def _offer(request: ChatRequest) -> "Offer | None":
    if not request.tools and not request.functions and request.tool_choice in ("auto", "none"):
        return None
    from api.tools import offer_of  # most chats have no tools: none of them waits for it

    return offer_of(request)


def _encode(model: Model, text: str, *, param: str, add_special_tokens: bool = True) -> TokenIds:
    if model.tokenizer.exceeds(text, model.engine.context_length):
        raise too_long(model, f"more than {model.engine.context_length}", param)
    ids = model.tokenizer.encode(text, add_special_tokens=add_special_tokens)
    if not len(ids):
        raise InvalidRequestError(f"'{param}' is empty; send at least one token of text.", param=param)
    return ids


def too_long(model: Model, length: int | str, param: str) -> InvalidRequestError:
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
        raise too_long(model, len(ids), "prompt")
    wrong = next((token for token in ids if not 0 <= token < size), None)
    if wrong is not None:
        raise InvalidRequestError(
            f"'prompt' holds the token id {wrong}; ids go from 0 to {size - 1}.",
            param="prompt",
            unquoted=f"'prompt' holds a token id beyond 0 to {size - 1}.",
        )
    return token_ids(ids)
