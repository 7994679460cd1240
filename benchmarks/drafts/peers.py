"""Prompt lookup in other engines: the same answers with it and without, from one checkpoint that says them."""

import os
from typing import Any

from benchmarks.checkpoints import model_directory
from benchmarks.drafts.copying import copying_checkpoint, written
from benchmarks.drafts.texts import TASKS
from benchmarks.peers.contenders import Contender, ours, prepare_each
from benchmarks.peers.session import Session
from benchmarks.variants import Variant

FLAGS: dict[str, tuple[str, ...]] = {"llama.cpp": ("no_extra_buffers",), "OpenVINO": ("f32",)}
"""Peers that look up drafts in the prompt, and the flags that decode fastest here (`python -m benchmarks peers`)."""
PRECISION = "int8"
TEXTS = written({name: task for name, task in TASKS.items() if task.prediction is None})
"""A prediction is a parameter of ours alone."""


def contenders(shape: str, overrides: dict[str, str]) -> tuple[list[Contender], list[str]]:
    """Ours and those that can take part, and for each other one a sentence that says why not."""
    source = copying_checkpoint(shape, TEXTS).resolve()
    artifact = Variant(f"compiled {PRECISION}", model_directory(f"{source}:{PRECISION}").resolve())
    found, missing = prepare_each(FLAGS, PRECISION, source, overrides)
    return [ours(artifact), *found], missing


def measure(contender: Contender, calls: int) -> list[dict[str, Any]]:
    """All answers with lookup and without, each in a process of its own, and whether they are those of the checkpoint.

    Raises PeerFailedError.
    """
    threads = len(os.sched_getaffinity(0))
    answers = []
    for how in ("drafts", "plain"):
        with Session(contender.command(threads, (how, *FLAGS.get(contender.name, ())))) as session:
            for name, (prompt, answer) in TEXTS.items():
                session.generate(prompt, len(answer))
                for call in range(calls):
                    said = session.generate(prompt, len(answer))
                    answers.append(
                        {
                            "task": name,
                            "drafts": how == "drafts",
                            "call": call,
                            "tokens": len(answer),
                            "decode_s": said["decode_s"],
                            "right": said["ids"] == answer,
                        }
                    )
    return answers
