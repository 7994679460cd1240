"""Reads a text that is there already by a grammar, and says where it may end.

Knows texts, not the tokens that a model spelled them with: those that `split_at` finds are spelled as one token each.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from generation.grammar_library import LLMatcher, LLTokenizer


def split_at(marks: Iterable[str], text: str) -> list[str]:
    """`text` in pieces, each of `marks` one of its own."""
    any_mark = "|".join(map(re.escape, marks))
    return [piece for piece in re.split(f"({any_mark})", text) if piece] if any_mark else [text]


class Reader:
    """Reads one text piece by piece, whatever its tokens were, and says whether it may end there."""

    def __init__(self, matcher: "LLMatcher", tokenizer: "LLTokenizer", marks: Mapping[str, int]) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._marks = marks
        self._beginning = ""
        """The end of what was read, where a mark may begin: not in the matcher yet."""
        self._follows = True

    def may_end_after(self, more: str) -> bool:
        """Read `more`. Whether all that was read is a whole text of the grammar."""
        pieces = split_at(self._marks, self._beginning + more)
        self._beginning = "" if not pieces or pieces[-1] in self._marks else self._begun_mark(pieces[-1])
        if self._beginning:
            pieces[-1] = pieces[-1].removesuffix(self._beginning)
        self._follows = self._follows and self._take(self._matcher, pieces)
        if not self._follows:
            return False
        if not self._beginning:
            return self._matcher.is_accepting()
        ahead = self._matcher.deep_copy()
        return self._take(ahead, [self._beginning]) and ahead.is_accepting()

    def _take(self, matcher: "LLMatcher", pieces: list[str]) -> bool:
        """Whether `matcher` could take them all."""
        ids: list[int] = []
        for piece in pieces:
            ids += [self._marks[piece]] if piece in self._marks else self._tokenizer.tokenize_str(piece)
        return matcher.try_consume_tokens(ids) == len(ids)

    def _begun_mark(self, text: str) -> str:
        """The longest end of `text` that is the beginning of a mark."""
        longest = max(map(len, self._marks), default=1) - 1
        ends = (text[-length:] for length in range(min(longest, len(text)), 0, -1))
        return next((end for end in ends if any(mark.startswith(end) for mark in self._marks)), "")
