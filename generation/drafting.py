"""Drafts: tokens that are likely to come next, guessed from text that is there, so that one forward pass tries several.

Prompt lookup: where the latest tokens stood before, what followed them there may follow again. A lookup takes constant
time and the text's memory in proportion to its length: pairs of tokens are found by a dictionary, earlier places of a
pair by a chain, as LZ77 coders find matches. How often guesses come true is counted whether they were tried or not.
"""

from collections.abc import Sequence

from engines.base import TokenIds

MOST_DRAFTED = 31
"""Tokens of one draft: with the one before them, rows of one forward pass."""
MOST_ROWS = 32
"""Drafts never make a pass longer than this; from 48 rows on int4 weights are rounded otherwise."""
LONG = 8
"""Tokens of a match; a longer one promises no more."""
PLACES = 4
"""Earlier places of a pair that are looked at for the longest match."""
CHANCES = {2: 0.3, 3: 0.5, 4: 0.8}
"""How likely a guess is at first, by the bit length of its match: 2 or 3 tokens, 4 to 7, LONG."""
LEARNING = 0.125
"""How much one more guess that came true or not counts against all before it."""
LEAST_CHANCE = 0.1
"""A draft ends before a token that is less likely: its row would cost more than it brings."""
ROW_COSTS = {"int4": (0.2, 0.38)}
"""What another row adds to a pass of one: the first FEW_ROWS, and those beyond. By the engine's dtype."""
OTHER_ROW_COSTS = (0.15, 0.25)
"""Both lie between what `python -m benchmarks batch` found for one thread and for two, on a CPU with AVX2 alone."""
FEW_ROWS = 4

_START = -1
"""Stands before each text; no token."""


class Drafter:
    """What the text of one sequence lets expect."""

    def __init__(self, prompt: TokenIds, prediction: TokenIds | None = None) -> None:
        """`prediction [P]` is what the caller expects after `prompt [S]`: the first guess."""
        self._text = [_START]
        self._before = [0, 0]
        """Per place of the text: where else the two tokens before it stood before, 0 for nowhere."""
        self._latest: dict[int, int] = {}
        """The latest place behind each two tokens."""
        self._chances = dict(CHANCES)
        self._place = self._match = 0
        """Where the guess begins, 0 for none, and how many tokens before it are the latest ones."""
        if prediction is not None:
            self._read(prediction)
            self._note(_START)
        self._read(prompt)
        if prediction is None:
            self._look_up()
        else:
            self._place, self._match = 1, LONG

    def add(self, token: int) -> None:
        """`token` has come."""
        came_true = False
        if self._place:
            kind = self._match.bit_length()
            came_true = self._text[self._place] == token
            self._chances[kind] += LEARNING * (came_true - self._chances[kind])
        self._note(token)
        if came_true and self._text[self._place + 1] != _START:
            self._place += 1
            self._match = min(self._match + 1, LONG)
        else:
            self._look_up()

    def draft(self, most: int) -> tuple[list[int], list[float]]:
        """Up to `most` tokens that may come next, and how likely each is to come with all before it."""
        chances: list[float] = []
        chance, match = 1.0, self._match
        while self._place and len(chances) < most:
            chance *= self._chances[match.bit_length()]
            if chance < LEAST_CHANCE:
                break
            chances.append(chance)
            match = min(match + 1, LONG)
        tokens = self._text[self._place : self._place + len(chances)]
        if _START in tokens:
            tokens = tokens[: tokens.index(_START)]
            return tokens, chances[: len(tokens)]
        while len(tokens) < len(chances):  # it runs into itself: a text that repeats itself
            tokens += tokens[: len(chances) - len(tokens)]
        return tokens, chances

    def _read(self, ids: TokenIds) -> None:
        for token in ids.tolist():
            self._note(token)

    def _note(self, token: int) -> None:
        """Append `token` to the text."""
        pair = self._text[-1] << 32 | token
        self._text.append(token)
        self._before.append(self._latest.get(pair, 0))
        self._latest[pair] = len(self._text)

    def _look_up(self) -> None:
        """Guess what followed the longest match of the latest tokens, the latest one of equals."""
        text, end = self._text, len(self._text)
        self._place = self._match = 0
        place = self._before[end]
        for _ in range(PLACES):
            if not place:
                return
            match = 2
            while match < LONG and text[place - 1 - match] == text[end - 1 - match] != _START:
                match += 1
            if match > self._match:
                self._place, self._match = place, match
            place = self._before[place]


def pass_cost(rows: int, dtype: str) -> float:
    """What a pass of `rows` rows takes, in passes of one row."""
    few, more = ROW_COSTS.get(dtype, OTHER_ROW_COSTS)
    return 1 + few * (min(rows, FEW_ROWS) - 1) + more * max(0, rows - FEW_ROWS)


def shared_out(rows: int, chances: Sequence[Sequence[float]], dtype: str) -> list[int]:
    """How many tokens of each sequence's draft to try in a pass that has `rows` rows without them.

    `chances` are those of the drafts' tokens. The likeliest token gets the next row for as long as a pass is expected
    to make more tokens for its cost with it than without.
    """
    lengths = [0] * len(chances)
    made, cost = float(len(chances)), pass_cost(rows, dtype)
    while rows < MOST_ROWS:
        rows += 1
        best, chance = -1, 0.0
        for number, likely in enumerate(chances):
            if lengths[number] < len(likely) and likely[lengths[number]] > chance:
                best, chance = number, likely[lengths[number]]
        higher = pass_cost(rows, dtype)
        if (made + chance) * cost <= made * higher:
            break
        lengths[best] += 1
        made, cost = made + chance, higher
    return lengths
