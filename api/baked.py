"""The prompts that an artifact has read already, as people are told of them: what a request must begin with."""

from collections.abc import Iterable

from api.response_types import BakedPrompt
from engines.base import TokenIds
from generation.tokenizer import Tokenizer

SHOWN = 40
"""Characters of a prompt's beginning, and of its end, that are shown."""


def baked_prompt(ids: TokenIds, tokenizer: Tokenizer) -> BakedPrompt:
    """One of them: its size, and how the text begins and ends, as the chat template writes it where it is a chat's."""
    text = tokenizer.decode(ids.tolist(), skip_special_tokens=False)
    return {"tokens": len(ids), "characters": len(text), "begins": text[:SHOWN], "ends": text[-SHOWN:]}


def baked_prompts(prefixes: Iterable[tuple[TokenIds, object]], tokenizer: Tokenizer) -> list[BakedPrompt]:
    """All those of an engine."""
    return [baked_prompt(ids, tokenizer) for ids, _ in prefixes]
