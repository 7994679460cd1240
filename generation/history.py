"""What penalties need to know of one sequence."""

from array import array
from collections.abc import Sequence


class History:
    """Which tokens occurred in one sequence, and how often in its completion: arrays, for numpy and for native code."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._known = set(prompt)
        self._places: dict[int, int] = {}
        self.seen = array("q", self._known)
        """Distinct tokens of prompt and completion."""
        self.made = array("q")
        """Distinct tokens of the completion."""
        self.counts = array("f")
        """How often each of `made` occurred in the completion."""

    def add(self, token: int) -> None:
        """Note one generated token."""
        if token not in self._known:
            self._known.add(token)
            self.seen.append(token)
        place = self._places.setdefault(token, len(self.made))
        if place == len(self.made):
            self.made.append(token)
            self.counts.append(0)
        self.counts[place] += 1
