"""Many sequences, one engine: which of them run, and what each forward pass makes of them.

Not thread-safe and starts no thread: Lambda's handler drives it for one request, the server's engine thread for all.

Shape learned from vLLM's and nano-vllm's schedulers: chunked prefill, and preemption by reading again.
"""

import time
from bisect import insort
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from engines.base import PAGE_TOKENS, Engine, OutOfPagesError, Step
from engines.rows import forward_each
from generation.drafting import pass_cost
from generation.pace import Pace
from generation.planner import Entry, Planner
from generation.prefix_cache import PrefixCache
from generation.sequence import Piece, Sequence
from generation.shared_prompt import SharedPrompt

if TYPE_CHECKING:
    from engines.rows import Rows

WAITING_LOOK_SECONDS = 0.05
"""How often the waiting are looked at for deadlines while nobody can begin."""


class Outcome(Struct, frozen=True):
    """What one pass made of one sequence: a piece of its completion, or the error that ended it."""

    sequence: Sequence
    result: Piece | Exception


class Pass(Struct, frozen=True):
    """What the latest forward pass did, for those who watch."""

    sequences: int
    prompt_rows: int
    """Tokens that were read, of prompts and of what grammars force."""
    made: int
    """Tokens of completions that became final."""
    seconds: float


class Scheduler:
    """The sequences of one engine."""

    def __init__(self, engine: Engine, pace: Pace, most_running: int, prefixes: PrefixCache | None = None) -> None:
        """At most `most_running` sequences share a pass; the others wait. `pace` learns from every pass.

        What sequences have read goes to `prefixes` and is found there by later ones; None keeps nothing.
        """
        self.engine = engine
        self.prefixes = PrefixCache(engine, most=0) if prefixes is None else prefixes
        self.latest: Pass | None = None
        """What the latest `step` did, None where it made no pass."""
        self._pace = pace
        self._planner = Planner(engine, pace, self.prefixes)
        self._most_running = min(most_running, engine.max_rows)
        self._waiting: list[Entry] = []
        self._running: list[Entry] = []
        self._arrivals = 0
        self._admitted_at = 0.0
        self._made = 0
        self._short_of_pages = False
        """Since a sequence gave its pages back, until another one ends."""

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._running or self._waiting)

    def add(self, sequence: Sequence, shared: SharedPrompt | None = None) -> None:
        """Take a sequence; `shared` where others continue the same prompt."""
        self._arrivals += 1
        self._waiting.append(Entry(self._arrivals, sequence, shared))

    def cancel(self, sequence: Sequence) -> None:
        """Drop a sequence, whose pages are free at once. Harmless for one that is not here."""
        for entries in (self._running, self._waiting):
            for entry in entries:
                if entry.sequence is sequence:
                    entries.remove(entry)
                    self._drop(entry)
                    return

    def drive(self) -> Iterator[Outcome]:
        """Pass after pass until nothing is left to do. Closing the iterator drops what is left."""
        try:
            while self.busy:
                yield from self.step()
        finally:
            for entry in (*self._running, *self._waiting):
                self._drop(entry)
            self._running, self._waiting = [], []

    def step(self) -> list[Outcome]:
        """One forward pass, or none. What became of the sequences, in the order of their arrival.

        An error that one sequence meets, whatever it is, ends that one and is its outcome.
        """
        outcomes: list[Outcome] = []
        self.latest, self._made = None, 0
        now = time.monotonic()
        if self._waiting:
            self._admit(now, outcomes)
        drafts = True
        while True:
            steps, late, failed = self._planner.plan(self._running, now, drafts=drafts)
            for entry in late:
                with self._failing_alone(entry, outcomes):
                    self._finish(entry, entry.sequence.end("deadline"), outcomes)
            for entry, error in failed:
                self._finish(entry, error, outcomes)
            if outcomes or not steps:
                return outcomes  # what is known already need not wait for a pass
            try:
                self._run(steps, now, outcomes)
                return outcomes
            except OutOfPagesError as out_of_pages:
                if drafts:
                    drafts = False  # nobody gives pages back for a guess
                else:
                    self._make_room(steps, out_of_pages, outcomes)

    def _admit(self, now: float, outcomes: list[Outcome]) -> None:
        """Let waiting sequences run, first come first served, as far as places and pages go."""
        full = len(self._running) >= self._most_running or (self._short_of_pages and bool(self._running))
        if full and now < self._admitted_at + WAITING_LOOK_SECONDS:
            return
        self._admitted_at = now
        waiting, self._waiting = self._waiting, []
        places = 0 if full else self._most_running - len(self._running)
        unread = sum(entry.sequence.unread for entry in self._running)
        for entry in waiting:
            sequence, shared = entry.sequence, entry.shared
            with self._failing_alone(entry, outcomes):
                if sequence.wants_nothing:
                    self._finish(entry, sequence.end("length"), outcomes)
                elif not self._planner.has_time(sequence, now, unread):
                    if entry.is_new and now < sequence.deadline.at and not self._planner.has_time(sequence, now, 0):
                        sequence.begun(now)  # its prompt is too long for its time, nobody else at fault: it was served
                        self._pace.refused()
                    self._finish(entry, sequence.end("deadline"), outcomes)
                elif sequence.unread + 1 > self.engine.total_tokens:
                    raise OutOfPagesError(f"{sequence.unread} tokens never fit into {self.engine.total_tokens}")
                elif places <= 0:
                    self._waiting.append(entry)
                elif shared is not None and shared.reader is not None:
                    places -= 1  # kept for it until its prompt is read
                    self._waiting.append(entry)
                elif shared is not None and shared.is_read:
                    places -= 1
                    self._begin_forked(entry, shared, now, outcomes)
                elif self._begin(entry, now):
                    places -= 1
                    unread += sequence.unread
                else:
                    places = 0
                    self._waiting.append(entry)
            entry.is_new = False

    def _begin(self, entry: Entry, now: float) -> bool:
        """Let a sequence run, from where what is kept of its beginning ends. Whether there are pages for it."""
        sequence = entry.sequence
        cache = self.prefixes.find(sequence.findable, sequence.scope)
        wanted = len(sequence.ids) - cache.length + PAGE_TOKENS
        if self._running and not self._has_pages(wanted):
            cache.close()
            return False
        sequence.begin_with(cache)
        sequence.begun(now)
        if entry.shared is not None:
            entry.shared.reader = sequence
        insort(self._running, entry)
        return True

    def _has_pages(self, tokens: int) -> bool:
        """Whether so many tokens find room, in pages that are free or would be if they were no longer kept."""
        lacking = tokens - self.engine.free_tokens
        return lacking <= 0 or lacking <= self.prefixes.evictable * PAGE_TOKENS

    def _begin_forked(self, entry: Entry, shared: SharedPrompt, now: float, outcomes: list[Outcome]) -> None:
        """Begin where another sequence's prompt ended: the first token needs no pass."""
        row = shared.fork_for(entry.sequence)
        entry.shared = None
        entry.sequence.begun(now)
        insort(self._running, entry)
        self._accept(entry, row, now, outcomes)

    def _run(self, planned: list[tuple[Entry, Step]], now: float, outcomes: list[Outcome]) -> None:
        steps = [step for _, step in planned]
        known = [len(step.ids) - entry.sequence.drafted for entry, step in planned]
        prompt_rows = sum(count for count in known if count > 1)
        results = forward_each(self.engine, steps)
        after = time.monotonic()
        rows, fed = sum(known), sum(len(step.ids) for step in steps)
        cost = pass_cost(fed, self.engine.dtype) / pass_cost(rows, self.engine.dtype) if fed > rows else 1.0
        self._pace.observe(prompt_rows, (after - now) / cost)
        for (entry, _), result in zip(planned, results, strict=True):
            if isinstance(result, Exception):
                self._finish(entry, result, outcomes)
                continue
            try:
                self._accept(entry, result, after, outcomes)
            except Exception as error:
                self._finish(entry, error, outcomes)
        self.latest = Pass(len(steps), prompt_rows, self._made, after - now)

    def _accept(self, entry: Entry, rows: "Rows", now: float, outcomes: list[Outcome]) -> None:
        sequence = entry.sequence
        if entry.shared is not None and sequence.unread == 0:
            shared, entry.shared = entry.shared, None
            shared.keep(sequence, rows[-1:])
        if sequence.unread == 0 and sequence.completion_tokens == 0:
            self._keep(sequence)
        before = sequence.completion_tokens
        piece = sequence.accept(rows)
        if piece is None:
            return
        sequence.made(now)
        self._made += sequence.completion_tokens - before
        if piece.finish_reason is None:
            outcomes.append(Outcome(sequence, piece))
        else:
            self._finish(entry, piece, outcomes)

    @contextmanager
    def _failing_alone(self, entry: Entry, outcomes: list[Outcome]) -> Iterator[None]:
        """Have an error in the block, whatever it is, end `entry` and nobody else."""
        try:
            yield
        except Exception as error:
            self._finish(entry, error, outcomes)

    def _finish(self, entry: Entry, result: Piece | Exception, outcomes: list[Outcome]) -> None:
        if entry in self._running:
            self._running.remove(entry)
        self._let_go(entry, keep=not isinstance(result, Exception))
        outcomes.append(Outcome(entry.sequence, result))

    def _keep(self, sequence: Sequence) -> None:
        """Have others find what a sequence has read; where there is no memory for that, they read it themselves."""
        assert sequence.cache is not None
        with suppress(MemoryError):
            self.prefixes.keep(sequence.ids, sequence.cache, sequence.scope)

    def _drop(self, entry: Entry) -> None:
        """Let go of a sequence that nobody waits for, so that nobody is told if what it has read cannot be kept."""
        with suppress(Exception):
            self._let_go(entry)

    def _let_go(self, entry: Entry, *, keep: bool = True) -> None:
        """Give back what a sequence holds that will not run again; what it has read is kept where that is to be."""
        shared, entry.shared = entry.shared, None
        if shared is not None:
            if shared.reader is entry.sequence:
                shared.reader = None
            shared.forget_one()
        self._short_of_pages = False
        if entry.sequence.cache is not None:
            try:
                if keep:
                    self._keep(entry.sequence)
            finally:
                entry.sequence.cache.close()
                entry.sequence.cache = None

    def _make_room(self, planned: list[tuple[Entry, Step]], error: OutOfPagesError, outcomes: list[Outcome]) -> None:
        """Have pages given back: kept ones, else the youngest sequence's. A last one that finds no room alone fails."""
        if self.prefixes.evict(sum(-(-len(step.ids) // PAGE_TOKENS) + 1 for _, step in planned)):
            return
        kept = [entry.shared for entry in self._waiting if entry.shared is not None and entry.shared.is_read]
        if kept:
            for shared in kept:
                shared.release()
            return
        youngest = self._running[-1]
        if len(self._running) == 1:
            self._finish(youngest, error, outcomes)
            return
        with self._failing_alone(youngest, outcomes):
            self._keep(youngest.sequence)
            youngest.sequence.make_room()
            self._running.pop()
            if youngest.shared is not None:
                youngest.shared.reader = None
            insort(self._waiting, youngest)
            self._short_of_pages = True
