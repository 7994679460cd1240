"""Headings, notes and bars for a terminal."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDEST = 100  # columns


@dataclass(frozen=True, slots=True)
class Screen:
    """Writes for the terminal at hand: no wider than it is, styled only where it is one."""

    width: int
    styled: bool
    block: str

    @staticmethod
    def of_stdout() -> "Screen":
        styled = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
        utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        columns = shutil.get_terminal_size((WIDEST, 24)).columns
        return Screen(max(60, min(WIDEST, columns - 1)), styled, "█" if utf8 else "#")

    def heading(self, text: str) -> None:
        print(f"\n\033[1m{text}\033[0m" if self.styled else f"\n{text}")

    def aside(self, text: str) -> None:
        """Lesser text: a note, a request."""
        for line in textwrap.wrap(text, self.width - 2):
            print(f"  \033[2m{line}\033[0m" if self.styled else f"  {line}")

    def text(self, text: str) -> None:
        """A paragraph of foreign text, its control characters made harmless."""
        for paragraph in text.strip().splitlines():
            harmless = "".join(character if character.isprintable() else "\ufffd" for character in paragraph)
            print(textwrap.fill(harmless, self.width, initial_indent="    ", subsequent_indent="    "))

    def bars(self, rows: Sequence[tuple[str, float, str]]) -> None:
        """A row for each (label, milliseconds, note), with a bar of that length, the longest filling the rest."""
        labels = max(len(label) for label, _, _ in rows)
        notes = max(len(note) for _, _, note in rows)
        room = max(10, self.width - labels - notes - 19)
        longest = max(ms for _, ms, _ in rows) or 1.0
        for label, ms, note in rows:
            bar = self.block * round(room * ms / longest)
            print(f"  {label:<{labels}}  {ms:>9,.1f} ms  {f'{bar:<{room}} {note}' if note else bar}".rstrip())
