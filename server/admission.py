"""Who is let in, who is turned away, and by when every answer must have left. Belongs to one event loop."""

import math
from collections.abc import Callable
from types import TracebackType

from api.errors import ApiError, RateLimitError, ServiceUnavailableError
from generation.deadline import Deadline

BUSY = "Too many requests are waiting here already; try again later."
DRAINING = "The server is shutting down; send the request again."
LONGEST_RETRY = 60
"""Seconds: the most that a client is told to wait."""
RECENT = 0.2
"""Weight of the latest request in the mean of how long they take."""


class Admission:
    """Counts the requests that wait or run: at most `running` and `waiting` together.

    `watch` is told their number whenever it changes.
    """

    def __init__(self, running: int, waiting: int, watch: Callable[[int], None] = lambda admitted: None) -> None:
        self._running = running
        self._waiting = waiting
        self._watch = watch
        self._tickets: set[Ticket] = set()
        self._latest = math.inf
        self._mean_seconds = 1.0

    @property
    def admitted(self) -> int:
        """Requests that wait or run."""
        return len(self._tickets)

    def enter(self, deadline: Deadline) -> "Ticket":
        """Let in a request that must be answered by `deadline`. RateLimitError where too many are in."""
        if self.admitted >= self._running + self._waiting:
            raise self.refusal()
        deadline.limit(self._latest)
        ticket = Ticket(self, deadline)
        self._tickets.add(ticket)
        self._watch(self.admitted)
        return ticket

    def left(self, ticket: "Ticket", seconds: float | None) -> None:
        """The request is out, after `seconds` of work, None if it never ran. Calling it twice is harmless."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._watch(self.admitted)
            if seconds is not None:
                self._mean_seconds += RECENT * (seconds - self._mean_seconds)

    def drain(self, until: float) -> None:
        """No answer, under way or to come, may take longer than to this `time.monotonic()` instant."""
        self._latest = until
        for ticket in self._tickets:
            ticket.deadline.limit(until)

    def refusal(self) -> ApiError:
        """Why a request is not served now, and when to try again."""
        if self._latest < math.inf:
            return ServiceUnavailableError(DRAINING, code="shutting_down")
        expected = math.ceil(self.admitted * self._mean_seconds / self._running)
        return RateLimitError(BUSY, retry_after=max(1, min(LONGEST_RETRY, expected)))


class Ticket:
    """One admitted request's. A context manager for the time until somebody else answers for it: `hand_over`."""

    def __init__(self, admission: Admission, deadline: Deadline) -> None:
        self.deadline = deadline
        self._admission = admission
        self._handed_over = False

    def hand_over(self) -> Callable[[float | None], None]:
        """What to call, with the seconds of work or None, when the request is out; leaving the block no longer does."""
        self._handed_over = True
        return lambda seconds: self._admission.left(self, seconds)

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._handed_over:
            self._admission.left(self, None)
