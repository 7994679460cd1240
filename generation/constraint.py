"""Grammars that a text must follow: compiled once, then followed by one matcher per text.

llguidance does the work, and is imported with the first grammar: no other request waits for it. Whatever a grammar
says, compiling it and each step of following it are bounded in time and memory.
"""

import ctypes
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from generation.tokenizer import Tokenizer

if TYPE_CHECKING:
    from generation.grammar_library import LLMatcher, LLTokenizer
    from generation.grammar_reader import Reader

MOST_CHARACTERS = 65_536
"""Of a grammar or a schema."""
MOST_KEPT = 32
"""Compiled grammars that are kept for requests to come."""
MOST_FORCED = 31
"""Tokens that are taken together without being drawn: with the one before them, rows of one forward pass."""
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 200_000,  # 4 ms, and how many expressions are ever made of it
    "step_lexer_fuel": 200_000,  # 15 ms
    "step_max_items": 50_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 200_000,
}
"""llguidance's bounds on what one grammar, and each step of following it, may take."""
SLICES = [r'[^"\\\x00-\x1F\x7F]{1,30}']
"""Tokens that a text in JSON can hold anywhere: llguidance looks at them once, not at every step. A second slice, of
the shorter ones, would save 50 microseconds of some steps, and take a fifth of the time before the first one.
"""
AS_JSON: Any = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "coerce_one_of": False,
    "lenient": False,
}
"""On one line, the way Python's `json.dumps` writes it, so that no model goes on with blanks for ever."""

Kind = Literal["json_schema", "regex", "choice", "lark"]


class GrammarError(Exception):
    """A grammar that cannot be followed. The message says why, for its author; it may quote the grammar."""


class Grammar(Struct, frozen=True):
    """What a text must look like."""

    kind: Kind
    text: str
    """A JSON schema, a regular expression (Rust's, for the whole text), a JSON list of texts, or a Lark grammar."""
    marks: tuple[tuple[str, int], ...] = ()
    """Special tokens in it, by name: the text has their names where they are."""


class Constraint:
    """One text under way. Belongs to one sequence."""

    def __init__(self, matcher: "LLMatcher", ends: frozenset[int], vocab_size: int) -> None:
        self.ends = ends
        """Tokens that end the text, where it may end."""
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._bits = (ctypes.c_uint32 * ((vocab_size + 31) // 32))()

    def allowed(self, *, may_end: bool) -> bytearray:
        """A bit for each token that can come next, the lowest first.

        Ends are among those unless `may_end`, or unless nothing else can come. GrammarError where that takes too much.
        """
        self._matcher.unsafe_compute_mask_ptr(ctypes.addressof(self._bits), ctypes.sizeof(self._bits))
        self._check()
        possible = bytearray(self._bits)[: (self._vocab_size + 7) // 8]
        possible[-1] &= 0xFF >> (-self._vocab_size % 8)
        if not may_end:
            going_on = possible.copy()
            for token in self.ends:
                going_on[token // 8] &= ~(1 << token % 8)
            possible = going_on if any(going_on) else possible
        return possible

    def take(self, token: int) -> None:
        """`token`, one of those that could come, has come."""
        self._matcher.consume_token(token)
        self._check()

    def take_forced(self, most: int) -> list[int]:
        """Up to `most` tokens that must come next, spelled as the tokenizer spells their text. They have come now."""
        forced = self._matcher.compute_ff_tokens()[: max(0, most)]
        taken = self._matcher.try_consume_tokens(forced)
        self._check()
        return forced[:taken]

    def possible(self, draft: list[int]) -> list[int]:
        """As much of the beginning of `draft` as could come."""
        ahead = self._matcher.deep_copy()  # which may run into its bounds where the text itself never does
        return draft[: ahead.validate_tokens(draft)]

    @property
    def is_complete(self) -> bool:
        """Whether nothing can come any more but the end."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(_reason(self._matcher.get_error()))


class CompiledGrammar:
    """A grammar over one vocabulary. Safe to share between threads."""

    def __init__(self, tokenizer: "LLTokenizer", matcher: "LLMatcher", marks: Mapping[str, int]) -> None:
        self._tokenizer = tokenizer
        self._matcher = matcher
        self._marks = marks

    def begin(self) -> Constraint:
        """The constraint on a text of which nothing is there yet."""
        return Constraint(self._matcher.deep_copy(), frozenset(self._tokenizer.eos_tokens), self._tokenizer.vocab_size)

    def reader(self) -> "Reader":
        """What reads a text of which nothing is there yet."""
        from generation.grammar_reader import Reader

        return Reader(self._matcher.deep_copy(), self._tokenizer, self._marks)


class Grammars:
    """The grammars that texts of one model follow. Safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: Iterable[int]) -> None:
        """Makes nothing yet: the vocabulary is read with the first grammar."""
        self._text_of = tokenizer
        self._vocab_size = vocab_size
        self._eos_ids = sorted(eos_ids)
        self._lock = threading.Lock()
        self._kept: OrderedDict[Grammar, CompiledGrammar] = OrderedDict()

    def compiled(self, grammar: Grammar) -> CompiledGrammar:
        """`grammar`, compiled now or before. GrammarError for one that cannot be followed."""
        with self._lock:
            if (kept := self._kept.get(grammar)) is not None:
                self._kept.move_to_end(grammar)
                return kept
            tokenizer = self._tokenizer
        compiled = _compile(grammar, tokenizer)
        with self._lock:
            self._kept[grammar] = compiled
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return compiled

    @cached_property
    def _tokenizer(self) -> "LLTokenizer":
        from generation.grammar_library import LLTokenizer

        vocabulary = self._text_of.vocabulary(self._vocab_size)
        if vocabulary is None:
            raise GrammarError("this model's tokenizer does not say which bytes its tokens stand for")
        if not self._eos_ids:
            raise GrammarError("this model has no token that ends a text")
        spelled = _Spelled(self._text_of, vocabulary.tokens, sorted(vocabulary.special | set(self._eos_ids)))
        spelled.made = LLTokenizer(spelled, eos_token=self._eos_ids, slices=SLICES)  # type: ignore[arg-type]
        return spelled.made


class _Spelled:
    """A tokenizer as llguidance wants one: the bytes of all tokens, and how a text is spelled with them."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, tokens: list[bytes], special: list[int]) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = special[0]  # llguidance is told which ones
        self.made: LLTokenizer | None = None
        self._tokenizer = tokenizer
        self._special = frozenset(special)

    def __call__(self, text: str) -> list[int]:
        """Ids whose bytes are those of `text`: the tokenizer's own where it has them.

        One that adds a space to the beginning, or changes a text first, spells another text. After a line break it adds
        none.
        """
        wanted = text.encode()
        for lead in ("", "\n"):
            ids: list[int] = self._tokenizer.encode(lead + text, add_special_tokens=False).tolist()
            size = sum(len(self.tokens[token]) for token in ids)
            begin = 0
            while size > len(wanted):
                size -= len(self.tokens[ids[begin]])
                begin += 1
            ids = ids[begin:]
            if self._special.isdisjoint(ids) and b"".join(self.tokens[token] for token in ids) == wanted:
                return ids
        assert self.made is not None
        return self.made.greedy_tokenize(text)


def _compile(grammar: Grammar, tokenizer: "LLTokenizer") -> CompiledGrammar:
    from generation.grammar_library import LLMatcher, LLParserLimits, regex_to_lark

    if len(grammar.text) > MOST_CHARACTERS:
        raise GrammarError(f"it has more than {MOST_CHARACTERS} characters")
    try:
        match grammar.kind:
            case "json_schema":
                rules = LLMatcher.grammar_from_json_schema(grammar.text, overrides=AS_JSON)
            case "regex":
                # As in JSON schemas, \d and \w are ASCII's. Without a text there is no expression in Lark.
                expression = f"/{regex_to_lark(grammar.text, use_ascii='dw')}/" if grammar.text else '""'
                rules = LLMatcher.grammar_from_lark(f"start: {expression}")
            case "choice":
                texts = (json.dumps(text, ensure_ascii=False) for text in json.loads(grammar.text))
                rules = LLMatcher.grammar_from_lark(f"start: {' | '.join(texts)}")
            case "lark":
                rules = LLMatcher.grammar_from_lark(grammar.text)
    except ValueError as error:
        raise GrammarError(_reason(str(error))) from None
    limits = LLParserLimits(**LIMITS, verbose_errors=False)
    matcher = LLMatcher(tokenizer, rules, log_level=0, limits=limits)
    if matcher.is_error():
        raise GrammarError(_reason(matcher.get_error()))
    compiled = CompiledGrammar(tokenizer, matcher, dict(grammar.marks))
    _try(compiled.begin())
    return compiled


def _tokens(bits: bytearray) -> Iterator[int]:
    """The tokens that have a bit."""
    for place, byte in enumerate(bits):
        if byte:
            yield from (8 * place + bit for bit in range(8) if byte >> bit & 1)


def _try(constraint: Constraint) -> None:
    """One step: what can be told to be impossible, or to take too much, is told before anything is generated."""
    going_on = next(
        (token for token in _tokens(constraint.allowed(may_end=True)) if token not in constraint.ends), None
    )
    if going_on is not None:
        constraint.take(going_on)
        constraint.take_forced(MOST_FORCED)


def _reason(error: str) -> str:
    """Why a grammar cannot be followed, in one line for its author."""
    if unsupported := re.search(r"Unimplemented keys: (\[.*\])", error):
        return f"it uses {' and '.join(map(repr, json.loads(unsupported[1])))}, which is not supported"
    if "oneOf constraints are not supported" in error:
        return "it uses 'oneOf' with alternatives that are not known to exclude each other, which is not supported"
    if wrong := re.search(r"regex parse error:.*^error: (.*?)$", error, re.DOTALL | re.MULTILINE):
        return f"the expression is wrong: {wrong[1]}"
    if error.startswith("NoExtension"):
        return "no text follows it"
    return error.strip().partition("\n")[0][:200]
