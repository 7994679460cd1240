"""What the next forward pass feeds: which of the running sequences take part in it, and with how many tokens each.

Every pass decodes each running sequence that has its prompt read, and reads of the other prompts as many tokens as its
budget leaves, in the order in which they came.
"""

from typing import NamedTuple

from msgspec import Struct

from engines.base import PAGE_TOKENS, Engine, Step
from generation.drafting import pass_cost, shared_out
from generation.pace import Pace
from generation.prefix_cache import PrefixCache
from generation.sequence import Sequence
from generation.shared_prompt import SharedPrompt

PROMPT_ROWS_BESIDE_DECODING = 128
"""Prompt tokens read in a pass that also decodes: what the others' next tokens may have to wait for."""

WORTH_WAITING = 64
"""Tokens at the beginning of two prompts for which one lets the other read them; fewer cost less than a pass more."""


class Entry(Struct, eq=False):
    """A sequence in the scheduler."""

    number: int
    """In the order of arrival."""
    sequence: Sequence
    shared: SharedPrompt | None
    """Until it has begun."""
    is_new: bool = True
    """Nobody has looked yet whether it could run."""

    def __lt__(self, other: "Entry") -> bool:
        return self.number < other.number


class Plan(NamedTuple):
    """The next pass, the sequences whose time does not suffice for it, and those that met an error."""

    steps: list[tuple[Entry, Step]]
    late: list[Entry]
    failed: list[tuple[Entry, Exception]]


class Planner:
    """Plans passes over the running sequences of one scheduler. Ends none of them."""

    def __init__(self, engine: Engine, pace: Pace, prefixes: PrefixCache) -> None:
        self._engine = engine
        self._pace = pace
        self._prefixes = prefixes

    def has_time(self, sequence: Sequence, now: float, rows_before: int) -> bool:
        """Whether the tokens it has to read, behind `rows_before` of others, are read before its deadline."""
        if self._reads_by(sequence.deadline.at, now, rows_before + sequence.unread):
            return True
        if sequence.cache is not None:
            return False
        left = len(sequence.ids) - self._prefixes.count(sequence.findable, sequence.scope)
        return self._reads_by(sequence.deadline.at, now, rows_before + left)

    def plan(self, running: list[Entry], now: float, *, drafts: bool) -> Plan:
        """The next pass over `running`, in the order of arrival, with `drafts` or without."""
        decoding: list[Entry] = []
        readers: list[Entry] = []
        late: list[Entry] = []
        rows: int | None = None
        fed = 0
        for entry in running:
            sequence = entry.sequence
            if sequence.reads:
                readers.append(entry)
            elif not self._decodes_by(sequence, now):
                late.append(entry)
            elif not decoding or fed + sequence.unread <= self._engine.max_rows:  # else it waits for the next pass
                fed += min(sequence.unread, self._engine.max_rows)
                decoding.append(entry)
                rows = _least(rows, self._pace.rows_by(sequence.deadline.at, now))
        drafted = self._drafted(decoding, fed, now) if drafts and not readers else [0] * len(decoding)
        steps = [
            (entry, entry.sequence.next_step(self._engine.max_rows, count))
            for entry, count in zip(decoding, drafted, strict=True)
        ]
        fed += sum(drafted)
        failed: list[tuple[Entry, Exception]] = []
        if readers:
            budget = PROMPT_ROWS_BESIDE_DECODING if steps else self._engine.max_rows
            budget = min(budget, self._engine.max_rows - fed, budget if rows is None else rows)
            read, too_late, failed = self._plan_reading(readers, budget, now)
            steps += read
            late += too_late
        return Plan(steps, late, failed)

    def _plan_reading(self, readers: list[Entry], budget: int, now: float) -> Plan:
        """Spend `budget` rows on prompts, first come first served."""
        before = 0
        ahead: list[Sequence] = []
        plan = Plan([], [], [])
        for entry in readers:
            sequence = entry.sequence
            try:
                self._find_more(sequence)
                in_time = self.has_time(sequence, now, before)
            except Exception as error:
                plan.failed.append((entry, error))
                continue
            if not in_time:
                plan.late.append(entry)
                continue
            if self._prefixes.keeps and any(_reads_for(other, sequence) for other in ahead):
                continue
            ahead.append(sequence)
            before += sequence.unread
            limit = self._pace.rows_by(sequence.deadline.at, now)
            most = budget if limit is None else min(budget, max(limit, 1))
            if most > 0:
                step = sequence.next_step(most)
                plan.steps.append((entry, step))
                budget -= len(step.ids)
        return plan

    def _drafted(self, decoding: list[Entry], fed: int, now: float) -> list[int]:
        """How many tokens of its draft each of these tries in a pass of `fed` rows without them.

        None by a sequence whose prompt others share: they go on from its cache as it is when the prompt has been read.
        """
        chances = [entry.sequence.look_up() if entry.shared is None else [] for entry in decoding]
        if not any(chances):
            return [0] * len(decoding)
        dtype = self._engine.dtype
        counts = shared_out(fed, chances, dtype)
        rows = fed + sum(counts)
        cost = pass_cost(rows, dtype) / pass_cost(fed, dtype)
        soonest = min(entry.sequence.deadline.at for entry in decoding)
        if rows > self._engine.max_rows or not self._pace.decodes_by(soonest, now, cost):
            return [0] * len(decoding)
        return counts

    def _decodes_by(self, sequence: Sequence, now: float) -> bool:
        """Whether its latest tokens, the forced ones included, are fed before its deadline."""
        at, rows = sequence.deadline.at, sequence.unread
        return self._pace.decodes_by(at, now) and (rows == 1 or self._pace.reads_by(at, now, rows, passes=1))

    def _reads_by(self, deadline: float, now: float, rows: int) -> bool:
        passes = -(-rows // self._engine.max_rows)
        return self._pace.reads_by(deadline, now, rows, passes)

    def _find_more(self, sequence: Sequence) -> None:
        """Skip what others have read since the sequence began, or since its last pass."""
        assert sequence.cache is not None
        if self._prefixes.count(sequence.findable, sequence.scope) > sequence.cache.length:
            own, found = sequence.cache, self._prefixes.find(sequence.findable, sequence.scope)
            sequence.begin_with(found)
            own.close()


def _reads_for(one: Sequence, other: Sequence) -> bool:
    """Whether `one` reads so much of what the `other` begins with that the other had better find it."""
    assert other.cache is not None
    most = min(len(one.findable), len(other.findable))
    if one.scope != other.scope or most < other.cache.length + WORTH_WAITING:
        return False
    needed = -(-(other.cache.length + WORTH_WAITING) // PAGE_TOKENS) * PAGE_TOKENS
    return needed <= most and bool(one.ids[:needed] == other.ids[:needed])


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)
