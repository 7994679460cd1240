"""Prompts that were read when the artifact was compiled: where the pages of their KV caches lie in a file.

There is a file for each level whose code read them, since levels round differently: a header of HEADER_BYTES with a
stamp that ties it to the rest of the artifact, then pages one behind the other. Prompts with the same beginning share
its pages. Used by the compiler, which writes such a file, and by the engine, which maps it.
"""

from collections.abc import Sequence

from engines.base import PAGE_TOKENS

HEADER_BYTES = 4096
"""A page of the machine's memory, so that the KV cache's pages begin at one."""


def file_name(level: str) -> str:
    """The file with the pages that the code of `level` made."""
    return f"prompts-{level}.bin"


def header(stamp: str) -> bytes:
    """The beginning of a file of pages."""
    return stamp.encode().ljust(HEADER_BYTES, b"\0")


def page_numbers(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """For each prompt of whole pages, the places of its pages in the file, which are in the order of appearance."""
    numbers: dict[tuple[int, ...], int] = {}
    rows = []
    for prompt in prompts:
        row: list[int] = []
        for begin in range(0, len(prompt), PAGE_TOKENS):
            page = (row[-1] if row else -1, *prompt[begin : begin + PAGE_TOKENS])
            row.append(numbers.setdefault(page, len(numbers)))
        rows.append(row)
    return rows
