"""Stop strings: cut the text before the first one, also when it arrives in pieces.

Knows text only. Text that could be the beginning of a stop string is held back until it is known not to be.
"""

from collections.abc import Callable


class StopMatcher:
    """Filters one completion's text as it arrives; belongs to one request."""

    def __init__(self, stops: tuple[str, ...], may_end: Callable[[str], bool] | None = None) -> None:
        """`may_end` says of the text before a stop string whether it may be the whole text; None is always.

        It is given what of that text it was not given before.
        """
        self._stops = stops
        self._may_end = may_end
        self._untold = ""
        """What was released and not given to `may_end`."""
        self._told = 0
        """Characters of `_held` that were given to it."""
        self._held = ""
        self._passed = 0
        """Characters of `_held` at which no stop string that counts begins."""
        self.met: str | None = None
        """The stop string that has been found; nothing after it counts."""

    def add(self, text: str) -> str:
        """What of the text so far is certain to belong to the answer, and was not returned before."""
        self._held += text
        while found := [(at, stop) for stop in self._stops if (at := self._held.find(stop, self._passed)) >= 0]:
            first, stop = min(found)
            if self._ends_at(first):
                self.met = stop
                return self._release(first)
            self._passed = first + 1
        return self._release(len(self._held) - self._possible_start())

    def skip(self, text: str) -> str:
        """`text`, which is not to be searched: what `add` returned and what it will return have it between them."""
        return self._release(len(self._held)) + self._noted(text)

    def flush(self) -> str:
        """What was held back, once no more text will come."""
        return self._release(len(self._held))

    def _ends_at(self, first: int) -> bool:
        if self._may_end is None:
            return True
        untold = self._untold + self._held[self._told : first]
        self._untold, self._told = "", first
        return self._may_end(untold)

    def _release(self, end: int) -> str:
        released, self._held = self._held[:end], self._held[end:]
        self._passed = max(0, self._passed - end)
        self._noted(released[self._told :])
        self._told = max(0, self._told - end)
        return released

    def _noted(self, released: str) -> str:
        if self._may_end is not None:
            self._untold += released
        return released

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
