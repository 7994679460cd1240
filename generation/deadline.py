"""By when an answer must have left."""

import math


class Deadline:
    """The `time.monotonic()` instant by which an answer must have left. Another thread may move it nearer."""

    def __init__(self, at: float = math.inf) -> None:
        self.at = at

    def limit(self, at: float) -> None:
        """Not later than `at`."""
        self.at = min(self.at, at)
