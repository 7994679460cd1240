"""Whether a tokenizer's tables give what the tokenizers library gives, for that very tokenizer: tried out.

Seconds for 150,000 tokens. It encodes and decodes the texts of `compiler/tokenizer_texts.py`, every token by itself and
tokens in no order, through the functions that serve requests.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from tokenizers import Tokenizer

from compiler.tokenizer_texts import texts
from generation.mapped_codec import MappedCodec
from generation.vocabulary import spelling

_BEYOND = (0, 1, 1_000, 2**31)
"""Ids that there are not: so far beyond the number of tokens."""
_TOGETHER = 1_000
"""Texts that the library encodes in one call, and memory holds the ids of."""
_WITH_SPECIAL = 50
"""Every so many texts are encoded with special tokens too."""


def difference(tokenizer: Tokenizer, mapped: MappedCodec) -> str | None:
    """What the two differ in, as the end of a sentence; None where no difference was found."""
    names = tokenizer.get_vocab(with_added_tokens=True)
    if not _names_agree(tokenizer, mapped, names):
        return "its tables name or spell a token otherwise than the library"
    whole = tokenizer.decode_batch([[token] for token in names.values()], skip_special_tokens=False)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    tried = list(texts([text for text in whole if "\ufffd" not in text], added))
    rows = [*_rows(sorted(names.values()))]
    for begin in range(0, len(tried), _TOGETHER):
        some = tried[begin : begin + _TOGETHER]
        encoded = [encoding.ids for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False)]
        for text, ids in zip(some, encoded, strict=True):
            if mapped.encode(text, add_special_tokens=False).tolist() != ids:
                return "its tables encode a text otherwise than the library"
        rows += encoded[::4]
    for text in tried[::_WITH_SPECIAL]:
        if mapped.encode(text, add_special_tokens=True).tolist() != tokenizer.encode(text).ids:
            return "its tables encode a text with special tokens otherwise than the library"
    for skip in (True, False):
        decoded = tokenizer.decode_batch(rows, skip_special_tokens=skip)
        if any(mapped.decode(r, skip_special_tokens=skip) != text for r, text in zip(rows, decoded, strict=True)):
            return "its tables decode ids otherwise than the library"
    return None


def _names_agree(tokenizer: Tokenizer, mapped: MappedCodec, names: Mapping[str, int]) -> bool:
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    spell = spelling(tokenizer)
    return (
        spell is not None
        and mapped.largest == max(names.values())
        and mapped.longest == max(map(len, names))
        and all(mapped.token_id(name) == token == tokenizer.token_to_id(name) for name, token in names.items())
        and all(mapped.token_id(name[:-1]) == tokenizer.token_to_id(name[:-1]) for name in names)
        and all(mapped.token_bytes(token) == spell(tokenizer.id_to_token(token) or "") for token in names.values())
        and all(mapped.is_special(token) is (token in special) for token in range(mapped.largest + 2))
    )


def _rows(ids: Sequence[int]) -> Iterator[list[int]]:
    """Ids to decode beside those of texts: each alone, all in no order, and some that there are not."""
    draw = random.Random(1)
    yield from ([token] for token in ids)
    for length in (2, 7, 50):
        shuffled = draw.sample(ids, len(ids))
        yield from (shuffled[begin : begin + length] for begin in range(0, len(ids), length))
    beyond = [ids[-1] + more for more in _BEYOND]
    yield from (draw.choices([*ids[:600], *ids[-20:], *beyond], k=12) for _ in range(2_000))
