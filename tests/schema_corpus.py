"""Schemas as people ask for, of this project's own making: plain ones, each keyword, and what nobody supports."""

from typing import Any

Schema = dict[str, Any]


def closed(**properties: Any) -> Schema:
    """An object of exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def texts(most: int = 12, **more: Any) -> Schema:
    return {"type": "string", "maxLength": most, **more}


WHOLE = {"type": "integer", "minimum": 0, "maximum": 99}
SCHEMAS: dict[str, Schema] = {
    "a sentiment": closed(sentiment={"enum": ["positive", "negative", "neutral"]}),
    "a person": closed(name=texts(), age=WHOLE, email=texts(30, format="email")),
    "a label with a score": closed(label=texts(), score={"type": "number", "minimum": 0, "maximum": 1}),
    "tags": closed(tags={"type": "array", "items": texts(6), "minItems": 1, "maxItems": 4}),
    "an address within a person": closed(name=texts(), address=closed(street=texts(), city=texts(), zip=WHOLE)),
    "optional properties": {"type": "object", "properties": {"a": WHOLE, "b": WHOLE}, "additionalProperties": False},
    "properties in no order of letters": closed(z=WHOLE, a={"type": "boolean"}, m={"type": "null"}),
    "a nullable text": closed(note={"type": ["string", "null"], "maxLength": 9}),
    "pydantic's optional": closed(note={"anyOf": [texts(), {"type": "null"}], "default": None, "title": "Note"}),
    "pydantic's nested models": {
        "$defs": {"Item": {**closed(name=texts(), price={"type": "number", "minimum": 0}), "title": "Item"}},
        "title": "Order",
        **closed(items={"type": "array", "items": {"$ref": "#/$defs/Item"}, "maxItems": 3}),
    },
    "a tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": closed(value=WHOLE, children={"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2})
        },
    },
    "definitions by their older name": {"definitions": {"n": WHOLE}, **closed(n={"$ref": "#/definitions/n"})},
    "a tagged union": closed(
        shape={
            "anyOf": [
                closed(kind={"const": "circle"}, radius=WHOLE),
                closed(kind={"const": "square"}, side=WHOLE),
            ]
        }
    ),
    "one of kinds that exclude each other": closed(x={"oneOf": [{"type": "boolean"}, WHOLE]}),
    "all of": {"allOf": [{"type": "object", "properties": {"a": WHOLE}, "required": ["a"]}, closed(a={}, b=WHOLE)]},
    "a constant": closed(version={"const": "1.0"}, extra={"const": {"a": [1, None, True]}}),
    "an enumeration of kinds": closed(x={"enum": ["a", 1, None, True, "é日🦊", '"\\\n']}),
    "names that need escapes": closed(**{'a "b"': WHOLE, "c\\d": WHOLE, "é日🦊": WHOLE, "": WHOLE}),
    "a boolean": {"type": "boolean"},
    "an integer": {"type": "integer", "minimum": -5, "maximum": 1500},
    "an open interval": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    "a date": closed(day={"type": "string", "format": "date"}),
    "a moment": closed(at={"type": "string", "format": "date-time"}),
    "an identifier": closed(id={"type": "string", "format": "uuid"}),
    "an address of the internet": closed(ip={"type": "string", "format": "ipv4"}),
    "a pattern": closed(plate={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
    "a pattern within a text": closed(code={"type": "string", "pattern": "[0-9]{2}", "maxLength": 8}),
    "lengths of a text": closed(name={"type": "string", "minLength": 3, "maxLength": 5}),
    "a pair": {"type": "array", "prefixItems": [WHOLE, {"type": "boolean"}], "items": False, "minItems": 2},
    "a matrix": {
        "type": "array",
        "items": {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2},
        "maxItems": 3,
    },
    "a map": {"type": "object", "additionalProperties": WHOLE, "maxProperties": 2},
    "names by a pattern": {"type": "object", "patternProperties": {"^x-": WHOLE}, "additionalProperties": False},
    "anything at all": closed(anything={}),
    "an unknown word": closed(n={**WHOLE, "x-order": 3, "deprecated": True}),
    "not": closed(x={"not": {"type": "string"}}),
    "unique items": closed(x={"type": "array", "items": WHOLE, "uniqueItems": True}),
    "contains": closed(x={"type": "array", "contains": WHOLE}),
    "if": {"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}},
    "dependencies": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "names of properties": {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}},
    "a far reference": closed(x={"$ref": "http://example.com/x.json"}),
    "an unknown format": closed(x={"type": "string", "format": "idn-email"}),
    "overlapping alternatives": closed(x={"oneOf": [{"type": "integer"}, {"type": "number"}]}),
}
UNSUPPORTED = {
    "not": "'not'",
    "unique items": "'uniqueItems'",
    "contains": "'contains'",
    "if": "'if'",
    "dependencies": "'dependentRequired'",
    "names of properties": "'propertyNames'",
    "a far reference": "example.com",
    "an unknown format": "idn-email",
    "overlapping alternatives": "'oneOf'",
}
"""Those that are refused, and what is said of them."""
