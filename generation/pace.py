"""What forward passes cost here, measured as they happen, and whether one more ends in time.

One object per loaded model, for all requests: a later one knows what the earlier ones took. Two numbers: seconds of a
pass that only decodes, and seconds per token of a prompt. Each is the slowest recent one. Later passes and refused
requests let it fade, so that one hiccup neither surprises the next request nor cuts answers for ever.
"""

import math

ANSWER_SECONDS = 0.2
"""Kept free before a deadline for building and sending the answer."""
CAUTION = 2.0
"""A pass is expected to take at most this many times the slowest recent one of its kind."""
FADING = 0.9
"""How much of a slow pass's memory is left after each later one."""
FORGETTING = 0.5
"""How much of it is left after each request that was refused because of it."""
MEASURED_ROWS = 16
"""Passes that read fewer prompt tokens than this say little about the cost of each."""


class Pace:
    """Expected seconds of forward passes."""

    def __init__(self, first_pass: float = 0.0) -> None:
        """`first_pass` is what the warm-up took for one token: no later single token is expected to take longer."""
        self.step = first_pass
        """Seconds of a pass that reads no prompt."""
        self.row: float | None = None
        """Seconds per prompt token, None until a prompt was read."""
        self._fastest_step = self._fastest_row = math.inf

    def observe(self, prompt_rows: int, seconds: float) -> None:
        """A pass took `seconds`, with `prompt_rows` tokens of prompts in it."""
        if prompt_rows == 0:
            self.step = max(seconds, FADING * self.step)
            self._fastest_step = min(self._fastest_step, seconds)
        elif prompt_rows >= MEASURED_ROWS:
            self.row = max(seconds / prompt_rows, FADING * (self.row or 0.0))
            self._fastest_row = min(self._fastest_row, seconds / prompt_rows)

    def refused(self) -> None:
        """A request was answered without a pass because of these costs, so no pass can show that they have gone down.

        They fade faster than by passes, never below the fastest one seen: a request that is tried in vain is cut short,
        one that is refused in vain has nothing.
        """
        self.step = min(self.step, max(self._fastest_step, FORGETTING * self.step))
        if self.row is not None:
            self.row = max(self._fastest_row, FORGETTING * self.row)

    def decodes_by(self, deadline: float, now: float, cost: float = 1.0) -> bool:
        """Whether one more pass without prompts, of `cost` such passes, ends before `deadline` with time to answer."""
        return now + CAUTION * cost * self.step <= deadline - ANSWER_SECONDS

    def reads_by(self, deadline: float, now: float, rows: int, passes: int) -> bool:
        """Whether `rows` tokens of prompts can be read in `passes` passes before `deadline` with time to answer.

        Yes while nothing is known of the cost and there is time at all: then `rows_by` keeps the first pass short.
        """
        left = deadline - ANSWER_SECONDS - now
        return left > rows * (self.row or 0.0) * self._caution + passes * self.step

    def rows_by(self, deadline: float, now: float) -> int | None:
        """Prompt tokens that one pass may read to end before `deadline`, None for any number."""
        if deadline == math.inf:
            return None
        left = deadline - ANSWER_SECONDS - now - CAUTION * self.step
        row = self.step if self.row is None else self.row * self._caution
        return None if row == 0.0 else max(0, int(left / row))

    @property
    def _caution(self) -> float:
        return math.sqrt(CAUTION)  # a prompt averages over many tokens what a single pass may suffer at once
