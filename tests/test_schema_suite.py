"""The JSON Schema project's own cases: what is accepted is followed exactly, but for the gaps that are named here."""

import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from generation.constraint import CompiledGrammar, Grammar, GrammarError, Grammars
from tests.deterministic_engine import DeterministicEngine, read_tokenizer
from tests.schema_corpus import SCHEMAS
from tests.schema_suite import Case, SuiteMissingError, cases

pytestmark = pytest.mark.slow

DOCUMENTS = 20
"""Made for each accepted schema."""
MOST_TOKENS = 400
ANY_LEAP_SECOND = re.compile(r"leap second")
INVALID_BUT_POSSIBLE = {
    ("date: validation of date strings", "a invalid date string with 29 days in February (normal)"),
    ("date: validation of date strings", "2021 is not a leap year"),
}
"""Beside leap seconds in any minute."""
VALID_BUT_IMPOSSIBLE = {
    # Properties come in one order.
    ("allOf: allOf", "allOf"),
    ("allOf: allOf with base schema", "valid"),
    ("const: const with object", "same object with different property order is valid"),
    # Whole numbers are written without a fraction.
    ("const: const with 0 does not match other zero-like types", "float zero is valid"),
    ("const: const with 1 does not match true", "float one is valid"),
    ("const: const with -2.0 matches integer and float types", "float -2.0 is valid"),
    ("const: float and integers are equal up to 64-bit representation limits", "float is valid"),
    ("enum: enum with 0 does not match false", "float zero is valid"),
    ("enum: enum with [0] does not match [false]", "[0.0] is valid"),
    ("enum: enum with 1 does not match true", "float one is valid"),
    ("enum: enum with [1] does not match [true]", "[1.0] is valid"),
    ("type: integer type matches integers", "a float with zero fractional part is an integer"),
    # Rare forms.
    ("email: validation of e-mail addresses", "a quoted string with a space in the local part is valid"),
    ("email: validation of e-mail addresses", "a quoted string with a double dot in the local part is valid"),
    ("email: validation of e-mail addresses", "a quoted string with a @ in the local part is valid"),
    ("email: validation of e-mail addresses", "an IPv6-address-literal after the @ is valid"),
    ("ipv6: validation of IPv6 addresses", "mixed format with the ipv4 section as decimal octets"),
    ("ipv6: validation of IPv6 addresses", "mixed format with double colons between the sections"),
    ("ipv6: validation of IPv6 addresses", "mixed format with leading double colons (ipv4-mapped ipv6 address)"),
    ("ipv6: validation of IPv6 addresses", "a long valid ipv6"),
}


@pytest.fixture(scope="module")
def suite() -> list[Case]:
    """Its cases whose schema is an object, as a request's has to be."""
    try:
        return [case for case in cases() if isinstance(case.schema, dict)]
    except SuiteMissingError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def grammars(llama_directory: Path) -> Grammars:
    return Grammars(read_tokenizer(llama_directory), DeterministicEngine.vocab_size, [0])


@pytest.fixture(scope="module")
def accepted(suite: list[Case], grammars: Grammars) -> list[tuple[Case, CompiledGrammar]]:
    return [(case, grammar) for case in suite if (grammar := compiled(grammars, case.schema)) is not None]


def compiled(grammars: Grammars, schema: Any) -> CompiledGrammar | None:
    """The schema's grammar, None where it is refused."""
    try:
        return grammars.compiled(Grammar("json_schema", json.dumps(schema, ensure_ascii=False)))
    except GrammarError:
        return None


def test_documents_are_possible_where_they_are_valid_and_only_there(
    accepted: list[tuple[Case, CompiledGrammar]],
) -> None:
    wrong: dict[bool, set[tuple[str, str]]] = {True: set(), False: set()}
    for case, grammar in accepted:
        for document in case.documents:
            if grammar.reader().may_end_after(json.dumps(document.data, ensure_ascii=False)) != document.valid:
                wrong[document.valid].add((case.name, document.name))
    assert wrong[True] == VALID_BUT_IMPOSSIBLE
    assert {gap for gap in wrong[False] if not ANY_LEAP_SECOND.search(gap[1])} == INVALID_BUT_POSSIBLE


def test_documents_that_are_made_are_valid(accepted: list[tuple[Case, CompiledGrammar]], llama_directory: Path) -> None:
    tokenizer = read_tokenizer(llama_directory)
    closing = {int(token) for mark in '"]}' for token in tokenizer.encode(mark)}
    whole = 0
    for case, grammar in accepted:
        validator = jsonschema_rs.Draft202012Validator(case.schema)
        for seed in range(DOCUMENTS):
            ids = list(drawn(grammar, random.Random(seed), closing))
            text = tokenizer.decode(ids)
            if grammar.reader().may_end_after(text):
                whole += 1
                assert validator.is_valid(json.loads(text, parse_float=finite)), f"{case.name}: {text}"
    assert whole > DOCUMENTS * len(accepted) / 2


def finite(number: str) -> float:
    """A double, also for what is out of its range, which Python would read as infinite."""
    return max(-sys.float_info.max, min(float(number), sys.float_info.max))


def drawn(grammar: CompiledGrammar, rng: random.Random, closing: set[int]) -> Iterator[int]:
    """Tokens drawn among those possible, with a liking for those that end something; none after MOST_TOKENS."""
    constraint = grammar.begin()
    for _ in range(MOST_TOKENS):
        possible = constraint.allowed(may_end=True)
        tokens = [token for token in range(8 * len(possible)) if possible[token // 8] >> token % 8 & 1]
        ending = [token for token in tokens if token in closing or token in constraint.ends]
        token = rng.choice(ending if ending and rng.random() < 0.3 else tokens)
        if token in constraint.ends:
            return
        constraint.take(token)
        yield token
        if constraint.is_complete:
            return


def test_what_llguidance_accepts_by_itself_is_accepted(
    suite: list[Case],
    accepted: list[tuple[Case, CompiledGrammar]],
    grammars: Grammars,
    capsys: pytest.CaptureFixture[str],
) -> None:
    of_corpus = [name for name, schema in SCHEMAS.items() if compiled(grammars, schema)]
    own = [sum(map(llguidance_accepts, schemas)) for schemas in ([case.schema for case in suite], SCHEMAS.values())]
    assert [len(accepted), len(of_corpus)] == own
    with capsys.disabled():
        print(
            f" {len(accepted)} of {len(suite)} schemas of the suite and {len(of_corpus)} of {len(SCHEMAS)} of the"
            f" corpus are accepted; llguidance by itself: {own[0]} and {own[1]}",
            end="",
        )


def llguidance_accepts(schema: Any) -> bool:
    """Whether llguidance does with its own options and without bounds."""
    from llguidance import LLMatcher

    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    except ValueError:
        return False
    return LLMatcher.validate_grammar(grammar) == ""


def test_the_documents_name_every_keyword_that_is_refused(suite: list[Case], grammars: Grammars) -> None:
    page = (Path(__file__).parents[1] / "docs" / "server.md").read_text(encoding="utf-8")
    refused = set()
    for case in suite:
        try:
            grammars.compiled(Grammar("json_schema", json.dumps(case.schema, ensure_ascii=False)))
        except GrammarError as error:
            if named := re.fullmatch(r"it uses (.*), which is not supported", str(error)):
                refused |= set(re.findall(r"'([^']+)'", named[1]))
    assert len(refused) > 10
    assert {keyword for keyword in refused if f"`{keyword}`" not in page} == set()
