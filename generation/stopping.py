"""Stop strings: cut the text before the first one, also when it arrives in pieces.

Knows text only. Text that could be the beginning of a stop string is held back until it is known not to be.
"""


class StopMatcher:
    """Filters one completion's text as it arrives; belongs to one request."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False
        """A stop string has been found; nothing after it counts."""

    def add(self, text: str) -> str:
        """What of the text so far is certain to belong to the answer, and was not returned before."""
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._possible_start())

    def flush(self) -> str:
        """What was held back, once no more text will come."""
        return self._release(len(self._held))

    def _release(self, end: int) -> str:
        released, self._held = self._held[:end], self._held[end:]
        return released

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
