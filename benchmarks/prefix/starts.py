"""A prompt that was read before the process began: from the process's start to the first token behind the prompt.

Ours has it in the artifact, llama.cpp in a file with the state of a sequence, as its server saves and restores a slot.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from benchmarks.checkpoints import checkpoint
from benchmarks.errors import InputError, NotInstalledError
from benchmarks.peers.contenders import PEERS, interpreter, ours, prepare
from benchmarks.peers.session import PeerFailedError, Session
from benchmarks.results import Recorder
from benchmarks.variants import Variant, interleaved
from engines import artifact
from engines.cpu_levels import choose_level, cpu_flags
from engines.machine import usable_vcpus
from engines.prompts import file_name

RESTORES = "llama.cpp"
PLAIN_IDS = range(10, 250)


def read_prompt(variant: Variant) -> list[int]:
    """The prompt that the artifact of the starts has read. Raises InputError where it is none, or has read none."""
    if variant.engine != "compiled":
        raise InputError(f"--baked {variant.name}: an artifact is needed, and {variant.directory.name} is none.")
    prompts = artifact.read(variant.directory).prompts
    if not prompts:
        raise InputError(f"--baked {variant.name}: its artifact has read no prompt.")
    return prompts[0]


def measure(options: argparse.Namespace, variant: Variant, recorder: Recorder) -> None:
    """Fill `recorder.data["starts"]`: seconds of each round, behind a short prompt and behind the one that was read.

    The first start of each kind is not counted.
    """
    read, threads = read_prompt(variant), usable_vcpus()
    pages = variant.directory / file_name(choose_level(artifact.read(variant.directory).prompt_levels, cpu_flags()))
    files = {variant.name: pages.stat().st_size}
    recorder.settings["read"] = {"tokens": len(read), "file_bytes": files}
    own = ours(variant).command(threads, [])
    commands: dict[tuple[str, str], Sequence[str]] = {(variant.name, "short"): own, (variant.name, "read"): own}
    with tempfile.TemporaryDirectory() as folder, Progress() as progress:
        state = Path(folder, "state")
        try:
            peer = _restoring(options, threads)
            with Session([*peer, f"save_state={state}"]) as session:
                session.generate(read, 1)
            files[RESTORES] = state.stat().st_size
            commands |= {(RESTORES, "short"): peer, (RESTORES, "read"): [*peer, f"load_state={state}"]}
        except NotInstalledError as error:
            recorder.data["skipped"].append(str(error))
        except PeerFailedError as error:
            recorder.data["failed"][f"{RESTORES}, restored"] = str(error)
        task = progress.add_task("process starts", total=len(commands) * (options.runs + 1))
        for i, (who, kind) in interleaved(list(commands), options.runs + 1):
            progress.advance(task)
            draw = random.Random(f"{kind} {i}")
            ids = [*(read if kind == "read" else ()), *draw.choices(PLAIN_IDS, k=options.new)]
            begun = time.perf_counter()
            try:
                with Session(commands[who, kind]) as session:
                    session.generate(ids, 1)
                    seconds = time.perf_counter() - begun
            except PeerFailedError as error:
                recorder.data["failed"][f"{who}, {kind}"] = str(error)
                continue
            if i:
                recorder.data["starts"].append({"who": who, "kind": kind, "round": i, "first_token_s": seconds})
            recorder.save(complete=False)


def _restoring(options: argparse.Namespace, threads: int) -> list[str]:
    """How to start llama.cpp. Raises NotInstalledError or PeerFailedError."""
    (peer,) = (peer for peer in PEERS if peer.name == RESTORES)
    python = interpreter(peer, dict(text.split("=", 1) for text in options.python))
    return prepare(peer, options.precision, checkpoint(options.checkpoint), python).command(threads, [])
