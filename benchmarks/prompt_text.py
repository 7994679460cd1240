"""A text of as many tokens as asked for; of two such texts the shorter one is how the longer one begins."""

import random
import string
from pathlib import Path

from generation.tokenizer import Tokenizer


def prompt_text(directory: Path, tokens: int) -> str:
    """Invented words, about `tokens` tokens of them to the tokenizer in `directory`: joins at its end may differ."""
    draw = random.Random(0)
    words = ("".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 8))) for _ in range(tokens))
    tokenizer = Tokenizer(directory)
    return tokenizer.decode(tokenizer.encode(" ".join(words))[:tokens].tolist())
