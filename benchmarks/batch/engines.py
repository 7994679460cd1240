"""So many prompts given at once to each engine: tokens a second of all, and the wait for each sequence's first."""

import argparse
import contextlib
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.errors import NotInstalledError
from benchmarks.peers.contenders import PEERS, Contender, interpreter, ours, prepare
from benchmarks.peers.session import PeerFailedError, Session
from benchmarks.results import Recorder
from benchmarks.variants import Variant, interleaved
from engines import artifact

PLAIN_IDS = range(10, 250)
MANY = 16
LONG = 1000
ANSWER = 256
"""For the memory of many long sequences: so many, with prompts of so many tokens and answers of so many: the first ones
still run when the last prompt is read (at 128 of its tokens a pass), so that all are there at once."""


def measure(options: argparse.Namespace, source: Path, variants: Sequence[Variant], recorder: Recorder) -> None:
    """Fill `recorder.data` with `samples` (every round's times) and `memory` (what many long sequences add)."""
    data = recorder.data
    contenders = [*(ours(variant) for variant in variants), *_peers(options, source, recorder)]
    threads = len(os.sched_getaffinity(0))
    data["ours"] = [ours(variant).label for variant in variants]
    with contextlib.ExitStack() as stack, Progress() as progress:
        sessions: dict[Contender, Session] = {}
        for contender in contenders:
            flags = ("together", *_tuned(contender))
            try:
                session = stack.enter_context(Session(contender.command(threads, flags)))
                session.together(_prompts(2, options.prompt, -1), 2)
            except PeerFailedError as error:
                data["failed"][contender.label] = str(error)
                continue
            sessions[contender] = session
        kinds = [(contender, count) for contender in sessions for count in options.sequences]
        task = progress.add_task("sequences at once", total=len(kinds) * options.calls)
        for i, (contender, count) in interleaved(kinds, options.calls):
            progress.advance(task)
            if contender.label in data["failed"]:
                continue
            try:
                reply = sessions[contender].together(_prompts(count, options.prompt, i), options.tokens)
            except PeerFailedError as error:
                data["failed"][contender.label] = str(error)
                continue
            data["samples"].append({"contender": contender.label, "round": i, "sequences": count, **reply})
            recorder.save(complete=False)
    for variant in variants:
        try:
            data["memory"].append(_memory(variant, threads))
        except PeerFailedError as error:
            data["failed"].setdefault(ours(variant).label, str(error))


def _memory(variant: Variant, threads: int) -> dict[str, Any]:
    """What many long sequences add to a process. Raises PeerFailedError."""
    model = artifact.read(variant.directory)
    length = min(LONG, model.context_length - ANSWER)
    with Session(ours(variant).command(threads, ("together",))) as session:
        session.together(_prompts(1, min(512, length), 0), 2)  # from here on a pass needs no more memory of its own
        before = session.resident()
        session.together(_prompts(MANY, length, 0), ANSWER)
        return {
            "variant": variant.name,
            "sequences": MANY,
            "tokens": length + ANSWER,
            "added_bytes": session.resident().private_bytes - before.private_bytes,
            "cache_bytes": MANY * (length + ANSWER) * model.cache_elements * model.cache_element_bytes,
        }


def _peers(options: argparse.Namespace, source: Path, recorder: Recorder) -> list[Contender]:
    found = []
    overrides = dict(text.split("=", 1) for text in options.python)
    for peer in PEERS:
        if not peer.together or (options.only and not any(text in peer.name for text in options.only)):
            continue
        try:
            python = interpreter(peer, overrides)
        except NotInstalledError as error:
            recorder.data["skipped"].append(str(error))
            continue
        for precision in peer.precisions:
            if precision == "float32":
                continue
            try:
                found.append(prepare(peer, precision, source, python))
            except PeerFailedError as error:
                recorder.data["failed"][f"{peer.name} {precision}"] = str(error)
    return found


def _tuned(contender: Contender) -> tuple[str, ...]:
    """The flags that `peers` finds fastest for one sequence on the machines measured so far."""
    return contender.flags[-1]


def _prompts(count: int, length: int, seed: int) -> list[list[int]]:
    """Token ids, the same for every contender; no two rounds share a beginning."""
    draw = random.Random(seed * 1000 + count)
    return [[draw.choice(PLAIN_IDS) for _ in range(length)] for _ in range(count)]
