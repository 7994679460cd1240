"""The shape that a request asks its answer to have, as a grammar.

OpenAI's name for it is `response_format`, vLLM's `structured_outputs`.
"""

import json
from typing import Any

from api.errors import InvalidRequestError
from api.schema import ChatRequest, CompletionRequest
from generation.constraint import CompiledGrammar, Grammar, GrammarError, Grammars

ANY_OBJECT = {"type": "object"}
OWN_KEYWORD = "x-guidance"
"""llguidance reads its own options from it."""


def compiled_shape(request: CompletionRequest | ChatRequest, grammars: Grammars) -> CompiledGrammar | None:
    """What the answer must follow, None for any text. InvalidRequestError for what cannot be followed."""
    asked = shape_of(request)
    return None if asked is None else compiled(*asked, grammars)


def compiled(param: str, grammar: Grammar, grammars: Grammars) -> CompiledGrammar:
    """`grammar`, which `param` asks for. InvalidRequestError where it cannot be followed."""
    try:
        return grammars.compiled(grammar)
    except GrammarError as error:
        raise InvalidRequestError(
            f"'{param}' cannot be followed: {error}.", param=param, unquoted=f"'{param}' cannot be followed."
        ) from None


def shape_of(request: CompletionRequest | ChatRequest) -> tuple[str, Grammar] | None:
    """The parameter that asks for a shape, and its grammar; None for any text."""
    form, outputs = request.response_format, request.structured_outputs
    if form is not None and form.type != "text":
        if outputs is not None:
            raise InvalidRequestError(
                "Give 'response_format' or 'structured_outputs', not both.", param="structured_outputs"
            )
        if form.type == "json_object":
            return "response_format", _schema(ANY_OBJECT, "response_format")
        if form.json_schema is None:
            raise InvalidRequestError("'response_format.json_schema' is required.", param="response_format.json_schema")
        param = "response_format.json_schema.schema"
        return param, _schema(form.json_schema.schema, param)
    if outputs is None:
        return None
    given = [name for name in outputs.__struct_fields__ if getattr(outputs, name) not in (None, False)]
    if len(given) != 1:
        names = ", ".join(map(repr, outputs.__struct_fields__))
        raise InvalidRequestError(f"'structured_outputs' must hold one of {names}.", param="structured_outputs")
    param = f"structured_outputs.{given[0]}"
    if outputs.json is not None:
        return param, _schema(outputs.json, param)
    if outputs.json_object:
        return param, _schema(ANY_OBJECT, param)
    if outputs.regex is not None:
        return param, Grammar("regex", outputs.regex)
    if outputs.choice is not None:
        return param, Grammar("choice", json.dumps(outputs.choice))
    assert outputs.grammar is not None
    return param, Grammar("lark", outputs.grammar)


def _schema(schema: dict[str, Any], param: str) -> Grammar:
    if OWN_KEYWORD in schema:
        raise InvalidRequestError(f"'{param}' cannot be followed: it uses '{OWN_KEYWORD}'.", param=param)
    return Grammar("json_schema", json.dumps(schema, ensure_ascii=False))
