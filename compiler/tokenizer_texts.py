"""Texts that two tokenizers must agree on before one may stand for the other: hostile ones, and all of a vocabulary."""

import random
from collections.abc import Iterator, Sequence

from compiler.character_classes import ASSIGNED

_SPACES = [*" \n\r\t\v\f", "\r\n", *"\x1c\x85\xa0\u1680\u2003\u2028\u3000"]
_SPACES += ["\u180e", "\u200b", "\ufeff"]  # which some take for spaces
_LINES = [
    "'S 's 't 'T 're 'RE 'Re 've 'vE 'm 'M 'll 'lL 'd 'D 'ſ 'ſt don't I'M we'LL ' '' ''s '1 'é a's 1's .'s -- ... !?",
    "x1 12 123 1234 12345 1.5 1,000 ½ ٣٤ 一二三 Ⅷ ² ৪ a1b2 1a 𝟘𝟙 _ __init__ a_b “x” 1e-9 0x1F #! @a %s {} [] def f(x):",
    "the The THE fox naïve café ﬁ ß ẞ İ ı ǆ Σς 日本語 한국어 עברית العربية हिन्दी ไทย Ελλάδα кот 🦊 🇺🇳 ❤️",
    "cafe\u0301 \u1112\u1161\u11ab 👩\u200d👧 a\u0327\u0301 a\u0301\u0327 \u0344 \u212b \u1e9b\u0323 \u0301 >\u0338",
    "\0 \x7f \x01 \ue000 \ufffe \ufffd \U0010ffff \u200d \u2581 \u2581\u2581 <0x41> <|x|> </s> <s> &amp; \\u00e9 C:\\x",
    'http://x.y/z?a=b&c=%20 "a":[1,2] i++;} ** \u0378 \u08cf\u0301',
]
_WORDS = [word for line in _LINES for word in line.split()]
_LONG = [
    "a",
    " ",
    "\n",
    "1",
    "!",
    "é",
    "日",
    "\u0301",
    "ab",
    "a1",
    " a",
    "\n ",
    " \n",
    "'s",
    "\r",
    "abcdefgh ",
    "0\u0660",
]
LONG = 6_000
"""Characters of a long text."""


def texts(vocabulary: Sequence[str], added: Sequence[str]) -> Iterator[str]:
    """The texts, always the same ones. `vocabulary` are texts of tokens, of which `added` are found as they stand."""
    draw = random.Random(0)
    yield ""
    yield from _characters(draw)
    yield from _white_space()
    yield from (text * (LONG // len(text)) + end for text in _LONG for end in ("", "b"))
    yield "".join(draw.choices("abcdefghij", k=10 * LONG))
    yield "".join(draw.choices([*_WORDS, *_SPACES], k=LONG // 4))
    yield from (" ".join(word + other for other in _WORDS) for word in _WORDS)
    yield from _mixed(draw, [*_WORDS, *_SPACES, *" \n'asdt1."], 1_500, 30)
    yield from _mixed(draw, [*vocabulary, " ", "\n"] if vocabulary else [""], 1_500, 20)
    shuffled = draw.sample(vocabulary, len(vocabulary))
    for between in ("", "\n"):
        yield from (between.join(shuffled[begin : begin + 100]) for begin in range(0, len(shuffled), 100))
    yield from _added(draw, added)


def _characters(draw: random.Random) -> Iterator[str]:
    """All that are assigned or could be, some of the others; and many beside what changes how words are split."""
    points = [point for span in ASSIGNED for point in span]
    yield from ("".join(map(chr, points[begin : begin + 64])) for begin in range(0, len(points), 64))
    others = draw.sample(range(0x40000, 0xE0000), 2_000) + draw.sample(range(0xF0000, 0x110000), 2_000)
    yield from ("".join(map(chr, others[begin : begin + 64])) for begin in range(0, len(others), 64))
    for point in [*range(0x300), *draw.sample(points, 3_000)]:
        if not 0xD800 <= point < 0xE000:
            c = chr(point)
            yield f"a{c}b {c}1{c} {c}{c}\n{c}'{c}s  {c}"


def _white_space() -> Iterator[str]:
    for space in _SPACES:
        for times in (1, 2, 3, 4, 16, 65):
            for end in ("", "x", " x", "1", "!", "\n", "\n\n", "\nx", "é"):
                yield space * times + end
                yield f"x{space * times}{end}\n"
        for other in _SPACES:
            yield f"{space}{other}x{other}{space}{space}{other}!{space * 2}{other}1"


def _mixed(draw: random.Random, parts: Sequence[str], count: int, most: int) -> Iterator[str]:
    for _ in range(count):
        yield "".join(draw.choices(parts, k=draw.randint(1, most)))


def _added(draw: random.Random, added: Sequence[str]) -> Iterator[str]:
    """Each added token whole, cut and doubled, and among others and what is nearly one."""
    for token in added:
        yield f"{token}a {token} {token}{token}\n{token[:-1]}{token} 1{token[1:]}{token[:-1]}x'{token}s\u0301"
    if added:
        parts = [*added, *(token[:-1] for token in added), *(token[1:] for token in added)]
        yield from _mixed(draw, [*parts, *_WORDS, *_SPACES], 1_000, 12)
