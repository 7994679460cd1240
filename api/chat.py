"""Messages to a prompt, with the checkpoint's own Jinja chat template in a sandbox.

The environment is the one transformers gives templates (immutable sandbox, loop controls, `raise_exception`,
`strftime_now`, `tojson`), so a template renders here as `AutoTokenizer.apply_chat_template` renders it; a test compares
them. Beyond that it has bounds on time and size. Jinja is imported when the first chat arrives: a completion does not
need it.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from api.errors import InvalidRequestError
from engines.errors import LoadError
from generation.tokenizer import read_json

if TYPE_CHECKING:
    from jinja2 import Template

WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What Python's operators raise in a template that was given a variable of another type than it expects."""


THOUGHTS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What thoughts begin and end with in the templates that know of them."""


class ChatTemplate:
    """A checkpoint's chat template. Immutable, safe to share between threads."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self.source = source
        self._special_tokens = dict(special_tokens)

    @cached_property
    def _template(self) -> "Template":
        from jinja2.ext import loopcontrols

        from api.template_bounds import BoundedEnvironment

        environment = BoundedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_tag()]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        return environment.from_string(self.source)

    def syntax_error(self) -> str | None:
        """What is wrong with the template's own text, None where it can be parsed."""
        from jinja2 import TemplateError

        try:
            _ = self._template
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            return f"{(error.message or type(error).__name__).rstrip('.')}" + (f", line {line}" if line else "")
        return None

    @cached_property
    def thoughts(self) -> tuple[str, str] | None:
        """What a thought before an answer begins and ends with, None where the template knows of none."""
        return next((marks for marks in THOUGHTS if all(mark in self.source for mark in marks)), None)

    @property
    def reserved(self) -> frozenset[str]:
        """Names of variables that no caller of `render` may give."""
        return frozenset({"messages", "tools", "xml_tools", "add_generation_prompt", *self._special_tokens})

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt that asks for the assistant's next turn, or only the messages, without `add_generation_prompt`.


        `variables` are for the template, none of them reserved.
        InvalidRequestError when the template refuses, or when it takes too long or makes too much of these messages.
        """
        from jinja2 import TemplateError

        from api.template_bounds import bounded, joined

        given = {**(variables or {}), **self._special_tokens}
        if tools:
            given |= {"tools": tools, "xml_tools": tools}  # the second is SmolLM3's name
        try:
            with bounded():
                return joined(
                    self._template.generate(**given, messages=messages, add_generation_prompt=add_generation_prompt)
                )
        except (TemplateError, RecursionError, MemoryError, *WRONG_VALUES) as error:
            if isinstance(error, WRONG_VALUES) and not variables and not tools:
                raise  # the template is at fault, not what the caller gave it
            raise InvalidRequestError(
                f"The model's chat template refuses these messages: {error}",
                param="messages",
                unquoted="The model's chat template refuses these messages.",
            ) from None


def load_chat_template(directory: Path, special_tokens: Mapping[str, str]) -> ChatTemplate | None:
    """The template in `chat_template.jinja` or `tokenizer_config.json`; None where the checkpoint has none.

    LoadError for one that cannot be read.
    """
    path = directory / "chat_template.jinja"
    if path.is_file():
        try:
            return ChatTemplate(path.read_text(encoding="utf-8"), special_tokens)
        except (OSError, UnicodeDecodeError) as error:
            raise LoadError(f"{path} cannot be read as UTF-8 ({error}); copy the checkpoint again.") from None
    config = directory / "tokenizer_config.json"
    template = read_json(config).get("chat_template") if config.is_file() else None
    if isinstance(template, list):
        named = (entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default")
        template = next((entry.get("template") for entry in named), None)
    return ChatTemplate(template, special_tokens) if isinstance(template, str) else None


def _tojson(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(format)


def _generation_tag() -> type:
    """Templates mark the assistant's turns with `{% generation %}` for training; here the tag renders its body."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012 (as the base class declares it)

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return GenerationTag
