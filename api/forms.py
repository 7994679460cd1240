"""The form of an answer: the grammar that it follows, and how its text is read."""

from typing import TYPE_CHECKING

from msgspec import Struct

from api.asked import Asked
from api.chat import ChatTemplate
from api.errors import InvalidRequestError
from api.model import Model
from api.schema import ChatRequest, CompletionRequest
from api.shapes import compiled, compiled_shape, shape_of
from generation.constraint import CompiledGrammar
from generation.tokenizer import Tokenizer

if TYPE_CHECKING:
    from api.reading import Reading
    from api.tools import Offer


class Form(Struct, frozen=True):
    """What the answers of a request look like."""

    grammar: CompiledGrammar | None = None
    reading: "Reading | None" = None
    """None for text that is nothing but content."""
    shown: frozenset[int] = frozenset()
    """Special tokens that the text has by name."""


def form_of(request: CompletionRequest | ChatRequest, asked: Asked, model: Model) -> Form:
    """InvalidRequestError for a form that cannot be followed."""
    shape = compiled_shape(request, model.grammars)
    template = model.chat_template
    if isinstance(request, CompletionRequest) or template is None:
        return Form(shape)
    if asked.offer is not None:
        return _calling(request, asked.offer, asked.prompts[0][0], template, model)
    if shape is not None or template.thoughts is None:
        return Form(shape)  # what is in shape has no thoughts
    from api.reading import Reading

    thinking = _thinks(asked.prompts[0][0], template.thoughts)
    marks = _special(model.tokenizer, template.thoughts)
    return Form(None, Reading(None, (), template.thoughts, thinking), frozenset(marks.values()))


def _calling(request: ChatRequest, offer: "Offer", prompt: str, template: ChatTemplate, model: Model) -> Form:
    from api.call_styles import call_style
    from api.reading import Reading
    from api.tools import call_grammar

    style, thoughts = call_style(template.source), template.thoughts
    if thoughts is not None and prompt.rstrip().endswith(thoughts[1]):
        thoughts = None  # it was told not to think
    thinking = thoughts is not None and _thinks(prompt, thoughts)
    marks = _special(model.tokenizer, (*sorted(style.marks), *(thoughts or ())))
    grammar = call_grammar(offer, style, thoughts, thinking=thinking, schema=_schema(request, offer), marks=marks)
    names = tuple(function.name for function in offer.callable)
    return Form(
        compiled(offer.param, grammar, model.grammars),
        Reading(style, names, thoughts, thinking),
        frozenset(marks.values()),
    )


def _schema(request: ChatRequest, offer: "Offer") -> str | None:
    """What an answer without a call has to be, as a JSON schema."""
    if offer.required or (shape := shape_of(request)) is None:
        return None
    param, grammar = shape
    if grammar.kind != "json_schema":
        raise InvalidRequestError(
            f"'{param}' does not go with '{offer.param}'; leave one of them out, or ask for JSON.", param=param
        )
    return grammar.text


def _thinks(prompt: str, thoughts: tuple[str, str]) -> bool:
    """Whether a prompt ends where a thought has just begun."""
    return prompt.rstrip().endswith(thoughts[0])


def _special(tokenizer: Tokenizer, texts: tuple[str, ...]) -> dict[str, int]:
    """Those of `texts` that are special tokens, with their ids."""
    return {text: token for text in texts if (token := tokenizer.special_id(text)) is not None}
