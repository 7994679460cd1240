"""Other engines' answers in shape: one fresh process of a peer, asked as our own worker asks itself."""

import json
import os
import random
from pathlib import Path
from typing import Any

from benchmarks.peers.contenders import Contender, prepare_each
from benchmarks.peers.session import Session
from benchmarks.shapes.texts import SCHEMA
from benchmarks.warm.command import PLAIN_IDS

FLAGS = {"llama.cpp": ("no_extra_buffers",), "OpenVINO": ("f32",)}
"""Peers that follow JSON schemas, and the flags that decode fastest here (`python -m benchmarks peers`)."""
PRECISION = "int8"


def contenders(source: Path, overrides: dict[str, str]) -> tuple[list[Contender], list[str]]:
    """Those that can take part, and for each other one a sentence that says why not."""
    return prepare_each(FLAGS, PRECISION, source, overrides)


def measure(contender: Contender, calls: int, tokens: int, prompt: int, seed: int) -> dict[str, Any]:
    """What one fresh process says, as `worker.py` has it; a request's first token stands for its preparation.

    Raises PeerFailedError.
    """
    draw = random.Random(seed)
    ids = [draw.choice(PLAIN_IDS) for _ in range(prompt)]
    schema = json.dumps(SCHEMA)
    threads = len(os.sched_getaffinity(0))
    with Session(contender.command(threads, ("shaped", *FLAGS[contender.name]))) as session:
        for _ in range(2):
            free = session.shaped(ids, tokens, None)
        firsts = [session.shaped(ids, 10 * tokens, schema)["first_s"] for _ in range(2)]
        answers = []
        for _ in range(calls):
            for kind, wanted, most in (("free", None, tokens), ("shaped", schema, 10 * tokens)):
                said = session.shaped(ids, most, wanted)
                answers.append({"kind": kind, "tokens": len(said["ids"]), "decode_s": said["decode_s"]})
    return {"free_first_s": free["first_s"], "first_s": firsts[0], "again_s": firsts[1], "answers": answers}
