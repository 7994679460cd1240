"""JSON to the requests of `schema.py`, or one sentence about its first fault.

Strict, and refusing what it does not know, so that no parameter is silently ignored; `null` means not given.
"""

import json
import math
import re
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import ValidationError, convert, inspect

from api.errors import InvalidRequestError, must_be
from api.schema import (
    MAX_STOPS,
    PROMPT,
    Function,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Prediction,
    ResponseFormat,
    StreamOptions,
    Strict,
    StructuredOutputs,
    TextPart,
    Tool,
    ToolCall,
)

SHOWN_INPUT = 40
"""Characters of an offending value that an error message repeats."""
Request = TypeVar("Request", bound=Strict)

OBJECTS: dict[str, type[Strict]] = {
    "stream_options": StreamOptions,
    "response_format": ResponseFormat,
    "json_schema": JsonSchemaFormat,
    "structured_outputs": StructuredOutputs,
    "prediction": Prediction,
    "tool_choice": NamedTool,
}
"""The fields that hold an object, and of which kind."""
LISTS: dict[str, type[Strict]] = {
    "messages": Message,
    "content": TextPart,
    "functions": Function,
    "tool_calls": ToolCall,
    "tools": Tool,
}
"""The fields that hold a list of objects."""
SHAPES = {
    "prompt": PROMPT,
    "stop": f"a string or a list of up to {MAX_STOPS} strings",
    "content": "a string or a list of text parts",
    "logit_bias": "an object of up to 1024 token ids, each with a number between -100 and 100",
    "chat_template_kwargs": "an object of strings, numbers, true and false",
    "modalities": "a list of nothing but 'text'",
    "annotations": "a list",
    "arguments": "a JSON object, as a string or as itself",
    "tool_choice": "'none', 'auto', 'required' or an object that names a function",
    "choice": "a list of at least one string",
    "tokens": "a list of token ids",
}
"""What to say of fields, whatever is wrong within them, that are more than one value."""
_Field = tuple[type[Strict], str, str]
"""A field's owner, name and path."""
PRIVATE = (
    *("prompt", "messages", "cache_salt", "content", "tokens", "prediction", "tools", "functions"),
    *("input", "instructions", "system"),
)
"""Fields whose values no message repeats: the runtime client logs the message of a direct invocation's error."""


def parse_json(body: bytes, name: str = "The body") -> Any:
    """A JSON value. InvalidRequestError for anything that is not strictly JSON in UTF-8; `name` begins its sentence."""

    def no_such_number(constant: str) -> NoReturn:
        raise InvalidRequestError(f"{name} is not valid JSON: {constant} is not a JSON number.")

    def finite(text: str) -> float:
        number = float(text)
        if math.isinf(number):
            raise InvalidRequestError(f"{name} holds a number too large to read.")
        return number

    try:
        return json.loads(body.decode("utf-8"), parse_constant=no_such_number, parse_float=finite)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{name} is not valid UTF-8 (byte {error.start}); send JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"{name} is not valid JSON: {error.msg} at {where}.") from None
    except RecursionError:
        raise InvalidRequestError(f"{name} is nested too deeply.") from None
    except ValueError:
        raise InvalidRequestError(f"{name} holds a number too long to read.") from None


def validate(kind: type[Request], body: Any) -> Request:
    """The request, or an InvalidRequestError with one sentence about its first fault."""
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    _check_text(body)
    unknown: list[_Field] = []
    given = _given(kind, body, "", unknown)
    try:
        request = convert(given, kind)
    except ValidationError as error:
        raise _refusal(kind, given, str(error)) from None
    if unknown:
        raise _not_a_parameter(*unknown[0])
    return request


def _check_text(body: dict[str, Any]) -> None:
    """InvalidRequestError where a name or a string, however deep, is no text: then no answer or log could repeat it."""
    try:
        try:
            msgspec.json.encode(body)
        except OverflowError:  # an integer of more than 64 bits
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequestError("The body holds half of a surrogate pair; send valid Unicode.") from None
    except RecursionError:
        raise InvalidRequestError("The body is nested too deeply.") from None


def _given(kind: type[Strict], value: Any, prefix: str, unknown: list[_Field]) -> Any:
    """`value` without the nulls of its objects and without what `kind` has no field for, which goes to `unknown`.

    It goes as deep as `kind` does, however deep the body is.
    """
    if not isinstance(value, dict):
        return value
    given = {}
    for name, part in value.items():
        if part is None:
            continue
        path = prefix + name[:SHOWN_INPUT]
        if name not in kind.__struct_fields__:
            unknown.append((kind, name[:SHOWN_INPUT], path))
            continue
        held = kind.inner.get(name) or OBJECTS.get(name) or LISTS.get(name)
        if held is not None and isinstance(part, list):
            part = [_given(held, item, f"{path}[{index}].", unknown) for index, item in enumerate(part)]
        elif held is not None:
            part = _given(held, part, f"{path}.", unknown)
        given[name] = part
    return given


def _not_a_parameter(kind: type[Strict], name: str, path: str) -> InvalidRequestError:
    import difflib  # not before it is needed: no start should wait for it

    close = difflib.get_close_matches(name, kind.__struct_fields__, n=1)
    advice = f"did you mean '{close[0]}'?" if close else "leave it out."
    return InvalidRequestError(
        f"'{path}' is not a parameter this server supports; {advice}",
        param=path,
        code="unknown_parameter",
        unquoted=f"A field of the request is not a parameter this server supports; {advice}",
    )


def _refusal(kind: type[Strict], given: dict[str, Any], fault: str) -> InvalidRequestError:
    """The error for what msgspec found, like "Expected `str`, got `int` - at `$.messages[0].content`"."""
    at = re.search(r" - at `\$\.([^`]*)`$", fault)
    path = at[1] if at else ""
    if missing := re.match(r"Object missing required field `(\w+)`", fault):
        path = f"{path}.{missing[1]}" if path else missing[1]
        return InvalidRequestError(f"'{path}' is required.", param=path)
    steps = re.findall(r"\w+", path)
    for field, shape in {**SHAPES, **kind.shapes}.items():
        if field in steps:
            return must_be(shape, path[: path.index(field) + len(field)])
    value: Any = given
    wanted: inspect.Type = inspect.type_info(kind)
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
        wanted = _part(wanted, step, value)
    shown = ""
    if isinstance(value, (str, int, float)) and (not path.startswith(PRIVATE) or path.endswith((".role", ".type"))):
        shown = ", not " + (repr(value[:SHOWN_INPUT]) if isinstance(value, str) else json.dumps(value)[:SHOWN_INPUT])
    return must_be(_words(wanted), path, shown)


def _part(whole: "inspect.Type", step: str, value: Any) -> "inspect.Type":
    """The type of an object's field or of a list's items; of several the one that `value` is meant to have."""
    if isinstance(whole, inspect.ListType):
        return whole.item_type
    assert isinstance(whole, inspect.StructType)
    part = next(field.type for field in whole.fields if field.name == step)
    while isinstance(part, (inspect.Metadata, inspect.UnionType)):
        part = part.type if isinstance(part, inspect.Metadata) else _meant(part.types, value)
    return part


def _meant(types: "tuple[inspect.Type, ...]", value: Any) -> "inspect.Type":
    """The first of several types, but for lists and objects the one that has such."""
    bare = [kind.type if isinstance(kind, inspect.Metadata) else kind for kind in types]
    if isinstance(value, list):
        return next((kind for kind in bare if isinstance(kind, inspect.ListType)), bare[0])
    if isinstance(value, dict):
        return next((kind for kind in bare if isinstance(kind, inspect.StructType)), bare[0])
    return bare[0]


def _words(wanted: "inspect.Type") -> str:
    """What a value of a type is called."""
    match wanted:
        case inspect.IntType() | inspect.FloatType():
            number = "an integer" if isinstance(wanted, inspect.IntType) else "a number"
            if wanted.le is None:
                return f"{number} of at least {wanted.ge}"
            low, high = (f"between {wanted.ge}", "and") if wanted.gt is None else (f"above {wanted.gt}", "and at most")
            return f"{number} {low} {high} {wanted.le}"
        case inspect.StrType(max_length=int(most)):
            return f"a string of at most {most} characters"
        case inspect.StrType(pattern=str()):
            return "a name of up to 128 letters, digits, '_', '.' and '-'"
        case inspect.LiteralType(values):
            *others, last = map(repr, values)
            return f"{', '.join(others)} or {last}" if others else last
        case inspect.ListType(min_length=1):
            return "a list of at least one object"
        case inspect.ListType(max_length=int(most)):
            items = "strings" if isinstance(wanted.item_type, inspect.StrType) else "objects"
            return f"a list of at most {most} {items}"
        case inspect.ListType():
            return "a list of objects"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return "a string"
    return "an object"
