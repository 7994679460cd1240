"""A Jinja environment in which no template can make a string without end, or run without end.

Jinja's sandbox stops a template from reaching out of it, not from computing: `{{ "x" * 10**10 }}`, loops within loops.
Here every turn of a loop, call, filter and operator first looks at the clock, and what they make is measured. One of
them, once begun, is not interrupted. Imported with the first chat: it imports Jinja.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_CHARACTERS = 16_000_000
"""Of a prompt, or of any string on the way to one: twice what the largest request makes of the usual templates."""
SECONDS = 5.0
"""Time for one prompt. A megabyte of messages takes the usual templates a tenth of it."""

_ends: ContextVar[float] = ContextVar("_ends", default=math.inf)


class BeyondBoundsError(TemplateError):
    """The template took too long or made too much."""


@contextmanager
def bounded() -> Iterator[None]:
    """In this block, and thread, what a `BoundedEnvironment`'s templates do ends after SECONDS."""
    token = _ends.set(time.monotonic() + SECONDS)
    try:
        yield
    finally:
        _ends.reset(token)


def check_time() -> None:
    """BeyondBoundsError once the time is over."""
    if time.monotonic() > _ends.get():
        raise BeyondBoundsError(f"it takes longer than {SECONDS:g} seconds")


def check_size(characters: float) -> None:
    """BeyondBoundsError where a string has, or would have, too many characters."""
    if characters > MOST_CHARACTERS:
        raise BeyondBoundsError(f"it makes more than {MOST_CHARACTERS} characters")


def joined(pieces: Iterable[str]) -> str:
    """The text that the pieces make, measured and timed as they come."""
    texts, characters = [], 0
    for piece in pieces:
        check_time()
        characters += len(piece)
        check_size(characters)
        texts.append(piece)
    return "".join(texts)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """For templates that run in `bounded()`. Takes the arguments of a Jinja environment."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})
    concat = staticmethod(joined)
    """What blocks, macros and filtered sections are put together with."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters = {name: _bounded_filter(function) for name, function in self.filters.items()}

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call in a template, and, by `tick`, every turn of a loop."""
        check_time()
        _check_numbers(*args, *kwargs.values())
        return _checked(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Every `*`, `**`, `+` and `%` in a template, before it is computed where its size is not a sum's."""
        check_time()
        if operator == "**" or (operator == "*" and (_is_sequence(left) or _is_sequence(right))):
            check_size(_size(left) * _size(right))
        return _checked(super().call_binop(context, operator, left, right))

    def tilde(self, *parts: Any) -> str:
        """What `~` makes."""
        return joined(map(str, parts))

    def tick(self) -> str:
        """Nothing, at the start of a loop's body: calling it is what looks at the clock."""
        return ""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.body.insert(0, nodes.ExprStmt(_call("tick", []), lineno=loop.lineno))
        _Concatenations().visit(tree)
        return tree


class _Concatenations(NodeTransformer):
    """`a ~ b` becomes a call of `tilde`."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (as the base class finds it)
        self.generic_visit(node)
        return _call("tilde", node.nodes).set_lineno(node.lineno)


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


def _bounded_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with its arguments and its result checked; what Jinja has noted on it stays."""

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        check_time()
        _check_numbers(*args, *kwargs.values())
        return _checked(function(*args, **kwargs))

    return checked


def _check_numbers(*arguments: Any) -> None:
    """A width, as of `"x".ljust(10**10)` or `"x"|indent(10**10)`, is the size of the result."""
    for value in arguments:
        if isinstance(value, int):
            check_size(value)


def _checked(value: Any) -> Any:
    if _is_sequence(value):
        check_size(len(value))
    return value


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (str, bytes, list, tuple))


def _size(operand: Any) -> float:
    """What an operand contributes to the size of a product or power: its length, or its own value."""
    if _is_sequence(operand):
        return len(operand)
    return abs(operand) if isinstance(operand, (int, float)) else 1
