"""`python -m benchmarks peers`: tune each contender, compare what they say, then measure them interleaved."""

import argparse
import contextlib
import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from benchmarks.checkpoints import checkpoint
from benchmarks.errors import InputError, NotInstalledError
from benchmarks.peers.contenders import PEERS, Contender, interpreter, ours, prepare
from benchmarks.peers.session import PeerFailedError, Session
from benchmarks.results import Recorder
from benchmarks.variants import Variant, interleaved, parse_variants

WHAT = (
    "The same weights, prompts and number of tokens in each engine, greedy, one process each, spoken to through pipes: "
    "seconds from starting the process to its first token, to the first token of a warm request, and per later token. "
    "Each runs with the thread count and flags found fastest for it."
)
PLAIN_IDS = range(10, 250)
Settings = tuple[int, tuple[str, ...]]
"""Threads and flags."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--checkpoint", default="SmolLM2-135M", help="checkpoint directory, or a shape to make with random weights")
    add("--model", action="append", metavar="NAME=DIRECTORY", help="an artifact of ours made from it; repeatable")
    add("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter of a peer's environment")
    add("--only", action="append", help="measure only contenders whose name holds this; repeatable")
    add("--starts", type=int, default=10, help="cold starts of each, default 10")
    add("--calls", type=int, default=30, help="warm requests of each kind, default 30")
    add("--prompt", type=int, nargs="+", default=[18, 128, 512, 1500], help="prompt lengths, tokens")
    add("--tokens", type=int, default=32, help="tokens to generate, default 32")
    add("--threads", type=int, nargs="+", help="thread counts to try; default every count up to the CPUs")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="peers", help="name of the results file, default peers")


def _check(options: argparse.Namespace) -> dict[str, str]:
    """Refuse what cannot be meant; returns the interpreters given."""
    for name in ("starts", "calls", "tokens"):
        if getattr(options, name) < 2:
            raise InputError(f"--{name} {getattr(options, name)}: at least two are needed.")
    if min(options.prompt) < 1 or min(options.threads or [1]) < 1:
        raise InputError("--prompt and --threads take numbers of at least one.")
    pairs = [text.partition("=") for text in options.python]
    known = {peer.environment for peer in PEERS if peer.environment}
    if any(name not in known or not path for name, _, path in pairs):
        raise InputError(f"--python takes PEER=PATH with PEER one of {', '.join(sorted(known))}.")
    return {name: path for name, _, path in pairs}


class Run:
    """One run of the comparison: its contenders, and what is known of each so far."""

    def __init__(self, options: argparse.Namespace, recorder: Recorder) -> None:
        self.options = options
        self.recorder = recorder
        self.out = recorder.data
        self.out.update(skipped=[], failed={}, tuning=[], agreement={}, starts=[], samples=[], peak_memory_bytes={})
        self.best: dict[Contender, Settings] = {}

    def drop(self, contender: Contender, error: PeerFailedError) -> None:
        """Go on without a contender; what it has given so far stays."""
        self.out["failed"][contender.label] = str(error)
        self.best.pop(contender, None)

    def prompt(self, length: int, seed: int) -> list[int]:
        """Token ids, the same for every contender."""
        draw = random.Random(seed * 1000 + length)
        return [draw.choice(PLAIN_IDS) for _ in range(length)]

    def tune(self, contender: Contender, threads: Sequence[int]) -> None:
        """Try every thread count and set of flags on a few requests; keep the one that answers one soonest."""
        tried: dict[Settings, float] = {}
        error = PeerFailedError("no setting works")
        for settings in [(count, flags) for count in threads for flags in contender.flags]:
            try:
                with Session(contender.command(*settings)) as session:
                    session.generate(self.prompt(128, 0), 4)
                    replies = [session.generate(self.prompt(128, i), 24) for i in range(4)]
            except PeerFailedError as failure:
                error = failure
                continue
            first, later = (min(reply[part] for reply in replies) for part in ("first_s", "decode_s"))
            tried[settings] = first + later
            self.out["tuning"].append(
                {
                    "contender": contender.label,
                    "precision": contender.precision,
                    "threads": settings[0],
                    "flags": settings[1],
                    "per_token_s": later / 23,
                    "first_s": first,
                }
            )
        if tried:
            self.best[contender] = min(tried, key=tried.__getitem__)
        else:
            self.drop(contender, error)

    def compare(self) -> None:
        """How much of the reference's greedy text each contender reproduces; the reference is the first contender.

        The first tokens of many prompts say whether a conversion is right; whole texts part at the first near tie.
        """
        texts = {}
        for contender, settings in list(self.best.items()):
            try:
                with Session(contender.command(*settings)) as session:
                    texts[contender] = [session.generate(self.prompt(24, i), 8)["ids"] for i in range(16)]
            except PeerFailedError as error:
                self.drop(contender, error)
        reference = next(iter(texts.values()), [])
        for contender, ids in texts.items():
            same = [_common(a, b) for a, b in zip(reference, ids, strict=True)]
            self.out["agreement"][contender.label] = {
                "first_token": sum(n > 0 for n in same) / len(same),
                "text": sum(same) / (8 * len(same)),
            }

    def start(self, contender: Contender, i: int) -> None:
        """One cold start: a new process to its first token."""
        try:
            with Session(contender.command(*self.best[contender])) as session:
                session.generate(self.prompt(18, i), 1)
                seconds = time.perf_counter() - session.started
        except PeerFailedError as error:
            self.drop(contender, error)
            return
        self.out["starts"].append({"contender": contender.label, "round": i, "to_first_token_s": seconds})

    def warm(self, progress: Progress) -> None:
        """Requests of each length go round the contenders, all of which stay loaded."""
        lengths, calls = self.options.prompt, self.options.calls
        task = progress.add_task("warm requests", total=len(self.best) * len(lengths) * calls)
        with contextlib.ExitStack() as stack:
            sessions = {}
            for contender, settings in list(self.best.items()):
                try:
                    sessions[contender] = stack.enter_context(Session(contender.command(*settings)))
                    for length in lengths:  # the first request of each kind is not counted
                        sessions[contender].generate(self.prompt(length, 0), 2)
                except PeerFailedError as error:
                    self.drop(contender, error)
            for i, (contender, length) in interleaved([(c, n) for c in sessions for n in lengths], calls):
                progress.advance(task)
                if contender in self.best:
                    self._request(contender, sessions[contender], length, i)
            for contender in self.best:
                self.out["peak_memory_bytes"][contender.label] = sessions[contender].peak_memory

    def _request(self, contender: Contender, session: Session, length: int, i: int) -> None:
        try:
            reply = session.generate(self.prompt(length, i + 1), self.options.tokens)
        except PeerFailedError as error:
            self.drop(contender, error)
            return
        times = {name: reply[name] for name in ("load_s", "first_s", "decode_s")}
        sample = {
            "contender": contender.label,
            "round": i,
            "prompt_tokens": length,
            "tokens": len(reply["ids"]),
            **times,
        }
        self.out["samples"].append(sample)
        self.recorder.save(complete=False)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts share before they part."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _contenders(run: Run, source: Path, overrides: dict[str, str], variants: Sequence[Variant]) -> list[Contender]:
    """Everyone who can take part; the others are skipped or failed by name."""
    found = []
    for peer in PEERS:
        try:
            python = interpreter(peer, overrides)
        except NotInstalledError as error:
            run.out["skipped"].append(str(error))
            continue
        for precision in peer.precisions:
            try:
                found.append(prepare(peer, precision, source, python))
            except PeerFailedError as error:
                run.out["failed"][f"{peer.name} {precision}"] = str(error)
    found += [ours(variant) for variant in variants]
    wanted = run.options.only
    run.out["ours"] = [contender.label for contender in found if contender.worker.name == "engine_worker.py"]
    return [c for c in found if not wanted or any(text in c.label for text in wanted)]


def run(options: argparse.Namespace) -> Path:
    """Measure, saving as it goes; returns the results file's path."""
    overrides = _check(options)
    variants = parse_variants(options.model) if options.model else []
    source = checkpoint(options.checkpoint).resolve()
    cpus = len(os.sched_getaffinity(0))
    threads = options.threads or list(range(1, cpus + 1))
    settings = {"checkpoint": source.name, "tokens": options.tokens, "threads_tried": threads}
    recorder = Recorder(options.out / f"{options.name}.json", "peers", WHAT, settings)
    state = Run(options, recorder)
    contenders = _contenders(state, source, overrides, variants)
    if not contenders:
        raise InputError("no contender is left to measure; see --only and `make bench-peers`.")
    with Progress() as progress:
        task = progress.add_task("tuning", total=len(contenders))
        for contender in contenders:
            state.tune(contender, threads)
            recorder.save(complete=False)
            progress.advance(task)
        state.compare()
        task = progress.add_task("cold starts", total=len(state.best) * options.starts)
        for i, contender in interleaved(list(state.best), options.starts):
            if contender in state.best:
                state.start(contender, i)
            recorder.save(complete=False)
            progress.advance(task)
        state.warm(progress)
    recorder.data["settings_used"] = {
        c.label: {"threads": count, "flags": list(flags)} for c, (count, flags) in state.best.items()
    }
    recorder.save(complete=True)
    return recorder.path
