"""The tools that a chat offers, and the grammar that its answer then follows: text, calls, or both.

Imported with the first chat that has tools.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from api.call_styles import CallStyle
from api.errors import InvalidRequestError
from api.schema import ChatRequest, Function, NamedTool
from api.shapes import OWN_KEYWORD
from generation.constraint import AS_JSON, Grammar
from generation.grammar_reader import split_at

NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


class Offer(Struct, frozen=True):
    """The tools of a chat that may call them."""

    functions: tuple[Function, ...]
    """All of them, as the prompt shows them."""
    callable: tuple[Function, ...]
    """Those that may be called."""
    required: bool
    """Whether the answer has to be a call."""
    parallel: bool
    """Whether it may be several."""
    param: str
    """The parameter that holds them."""

    def as_objects(self) -> list[dict[str, Any]]:
        """As chat templates take them: OpenAI's objects."""
        return [{"type": "function", "function": _plain(function)} for function in self.functions]


def offer_of(request: ChatRequest) -> Offer | None:
    """What a chat offers, None where nothing can be called. InvalidRequestError where it contradicts itself."""
    if request.tools and request.functions:
        raise InvalidRequestError("Give 'tools' or 'functions', not both.", param="functions")
    param, choice_param = ("functions", "function_call") if request.functions else ("tools", "tool_choice")
    functions = request.functions or [tool.function for tool in request.tools]
    choice: Any = request.function_call if request.functions else request.tool_choice
    if not functions:
        if choice in ("auto", "none"):
            return None
        raise InvalidRequestError("'tool_choice' asks for a call; it needs 'tools'.", param="tool_choice")
    names = [function.name for function in functions]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequestError(
            f"'{param}' holds {twice!r} twice.", param=param, unquoted=f"'{param}' holds one function twice."
        )
    if choice == "none":
        return None
    called = list(functions)
    if not isinstance(choice, str):
        wanted = choice.function.name if isinstance(choice, NamedTool) else choice.name
        called = [function for function in functions if function.name == wanted]
        if not called:
            raise InvalidRequestError(
                f"'{choice_param}' names {wanted[:64]!r}, which is none of '{param}'.",
                param=choice_param,
                unquoted=f"'{choice_param}' names what is none of '{param}'.",
            )
    several = request.parallel_tool_calls and param == "tools" and isinstance(choice, str)
    return Offer(tuple(functions), tuple(called), choice != "auto", several, param)


def call_grammar(
    offer: Offer,
    style: CallStyle,
    thoughts: tuple[str, str] | None,
    *,
    thinking: bool,
    schema: str | None,
    marks: Mapping[str, int],
) -> Grammar:
    """The grammar of an answer that may, or has to, call what `offer` has.

    `thoughts` are what a thought before it begins and ends with, None where it cannot begin with one, and `thinking` is
    whether the prompt ends within one. `schema` is what an answer that calls nothing has to be, None for any text.
    `marks` are the ids of what of `style` and `thoughts` are special tokens. InvalidRequestError for parameters that
    describe no object.
    """

    def literal(text: str) -> str:
        pieces = split_at(marks, text) if text else []
        return " ".join(f"<[{marks[p]}]>" if p in marks else json.dumps(p, ensure_ascii=False) for p in pieces)

    numbers = range(len(offer.callable))
    head = style.opening + style.before
    several = offer.parallel and style.separator is not None
    more = f"({literal((style.separator or '') + style.before)} call)* " if several else ""
    more += literal(style.closing)
    rules = {"call": " | ".join(f"call_{i}" for i in numbers)}
    for i, function in enumerate(offer.callable):
        rules[f"call_{i}"] = f"{literal(function.name + style.between)} arguments_{i} {literal(style.after)}"
        rules[f"arguments_{i}"] = f"%json {_arguments(function, offer.param)}"
    free = not offer.required and schema is None
    if not free:
        rules["body"] = f"{literal(head)} call {more}"
        if not offer.required:
            rules["body"] += f" | %json {_followed(json.loads(schema or '{}'))}"
    elif style.mark in marks:
        rules["body"] = f"TEXT {literal(head)} call {more} | ANY"
    elif style.mark:
        rules["marked[lazy]"] = f"TEXT {literal(style.mark)}"
        rules["body"] = f"marked {literal(head[len(style.mark) :])} call {more} | ANY"
    else:
        for i, function in enumerate(offer.callable):
            rules[f"marked_{i}[lazy]"] = f"LINES {literal(f'{style.before}{function.name}' + chr(34))}"
            rules[f"first_{i}"] = f"marked_{i} {literal(style.between[1:])} arguments_{i} {literal(style.after)}"
        rules["body"] = f"({' | '.join(f'first_{i}' for i in numbers)}) {more} | ANY"
    rules |= _beginning(thoughts, thinking, free, literal, marks)
    text = "\n".join(f"{name}: {rule}" for name, rule in rules.items())
    return Grammar("lark", text, tuple(marks.items()))


def _beginning(
    thoughts: tuple[str, str] | None,
    thinking: bool,
    free: bool,
    literal: Callable[[str], str],
    marks: Mapping[str, int],
) -> dict[str, str]:
    """The rules of what stands before the body, and of the text in it."""
    text, lines = "/(?s:.*)/", "/((?s:.*)\\n)?/"
    rules = {"start": "body", "ANY": text, "TEXT": text, "LINES": lines}
    if thoughts is None:
        return rules
    begin, end = thoughts
    blanks = "" if free else "BLANKS"
    lazy = "" if end in marks else "[lazy]"
    rules["BLANKS"] = "/[ \\t\\n]{0,4}/"
    if thinking:
        rules[f"thought{lazy}"] = f"ANY {literal(end)}"
        rules["start"] = f"thought {blanks} body"
    elif begin in marks:
        rules[f"thought{lazy}"] = f"ANY {literal(end)}"
        rules["start"] = f"({literal(begin)} thought {blanks})? body"
        if free:
            rules["start"] += f" | {literal(begin)} ANY"
    else:
        pattern = f"/\\s{{0,4}}{re.escape(begin).replace('/', chr(92) + '/')}(?s:.*)/"
        rules["THOUGHT"] = pattern
        rules[f"thought{lazy}"] = f"THOUGHT {literal(end)}"
        rules["start"] = f"(thought {blanks})? body"
        rules["TEXT"] += f" & ~{pattern}"
        rules["LINES"] += f" & ~{pattern}"
    if free and thinking:
        rules["start"] += " | ANY"
    return rules


def _arguments(function: Function, param: str) -> str:
    """The schema of a function's arguments, for `%json`."""
    schema = NO_ARGUMENTS if function.parameters is None else {"type": "object", **function.parameters}
    fault = None
    if OWN_KEYWORD in schema:
        fault = f"use '{OWN_KEYWORD}'"
    elif schema["type"] != "object":
        fault = "must describe an object"
    if fault is not None:
        raise InvalidRequestError(
            f"The parameters of {function.name!r} in '{param}' {fault}.",
            param=param,
            unquoted=f"The parameters of a function in '{param}' {fault}.",
        )
    # What cannot be followed is left alone, unless `strict` says otherwise.
    return _followed(schema) if function.strict else _followed(schema, lenient=True, coerce_one_of=True)


def _followed(schema: Mapping[str, Any], **options: bool) -> str:
    return json.dumps({**schema, OWN_KEYWORD: {**AS_JSON, **options}}, ensure_ascii=False)


def _plain(function: Function) -> dict[str, Any]:
    parameters = NO_ARGUMENTS if function.parameters is None else function.parameters
    described = {"name": function.name, "description": function.description, "parameters": parameters}
    return {name: value for name, value in described.items() if value is not None}
