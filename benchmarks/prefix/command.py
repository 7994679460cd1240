"""`python -m benchmarks prefix`: requests that begin as earlier ones did, with prefix reuse and without."""

import argparse
import contextlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.break_even.prices import load_prices
from benchmarks.checkpoints import SHAPES, checkpoint
from benchmarks.errors import InputError, NotInstalledError
from benchmarks.peers.contenders import PEERS, interpreter, prepare
from benchmarks.peers.session import PeerFailedError, Session
from benchmarks.prefix import starts
from benchmarks.results import Recorder
from benchmarks.variants import Variant, described, interleaved, parse_variants
from engines.machine import usable_vcpus
from tools.emulator import Emulator, EmulatorError

WHAT = (
    "One environment with PREFIX_CACHE as it is by default and one with 0, the whole handler under the emulator. Every "
    "request has new tokens behind a beginning that all share; the first request of each kind is not counted. A peer "
    "reads through pipes and is given the beginning again, uncounted, before each request that it may reuse it for. "
    "Starts: new processes that read through pipes, with a prompt that was read before they began."
)
PLAIN_IDS = range(10, 250)
"""Token ids that prompts are drawn from: ordinary ones in any vocabulary."""
LONGEST_S = 900
KEEPS = "keep_prompt"
"""The flag of a peer's worker that has it reuse what it has read."""
REUSING = ("llama.cpp", "OpenVINO")
"""Peers whose workers know it."""


@dataclass(frozen=True)
class Kind:
    """What a request asks for, in tokens."""

    name: str
    shared: int
    """At the beginning, the same in every request."""
    new: int
    output: int

    def ids(self, seed: int) -> list[int]:
        """The prompt."""
        shared, own = random.Random(0), random.Random(f"{self.name} {seed}")
        return [shared.choice(PLAIN_IDS) for _ in range(self.shared)] + [own.choice(PLAIN_IDS) for _ in range(self.new)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--model", action="append", metavar="NAME=DIRECTORY", help="an artifact; default compiled=SmolLM2-135M:int8")
    add(
        "--baked",
        default="compiled=SmolLM2-135M:int8+1000",
        metavar="NAME=DIRECTORY",
        help="the artifact of the starts",
    )
    add("--checkpoint", default="SmolLM2-135M", help="what peers are given; a directory or a shape")
    add("--precision", default="int8", choices=("float32", "int8"), help="of peers, default int8")
    add("--python", action="append", default=[], metavar="PEER=PATH", help="the interpreter of a peer's environment")
    add("--runs", type=int, default=20, help="requests of each kind, default 20")
    add("--shared", type=int, default=1000, help="tokens of the beginning, default 1000")
    add("--new", type=int, default=20, help="tokens behind it, and of the short prompt, default 20")
    add("--question", type=int, default=50, help="tokens behind it in the typical request, default 50")
    add("--answer", type=int, default=60, help="tokens of the typical answer, default 60")
    add("--memory", type=int, default=3538, help="memory of the function, MB; default 3538, which has two vCPUs")
    add("--region", default="us-east-1", help="whose prices count, default us-east-1")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="prefix", help="name of the results file, default prefix")


def kinds(options: argparse.Namespace) -> list[Kind]:
    """The requests; refuses what none can be."""
    if not all("=" in text for text in options.python):
        raise InputError("--python takes PEER=PATH.")
    for name in ("runs", "shared", "new", "question", "answer"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} {getattr(options, name)}: at least one is needed.")
    if not 128 <= options.memory <= 10_240:
        raise InputError(f"--memory {options.memory}: Lambda gives 128 to 10240 MB.")
    if options.checkpoint not in SHAPES:
        checkpoint(options.checkpoint)
    return [
        Kind("short", 0, options.new, 1),
        Kind("seen", options.shared, options.new, 1),
        Kind("typical", options.shared, options.question, options.answer),
    ]


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every round; returns the results file's path."""
    wanted, prices = kinds(options), load_prices(options.region, "x86_64")
    (baked,) = parse_variants([options.baked])
    starts.read_prompt(baked)
    variants = parse_variants(options.model or ["compiled=SmolLM2-135M:int8"])
    settings: dict[str, Any] = {
        "models": described(variants),
        **{name: getattr(options, name) for name in ("runs", "shared", "new", "question", "answer", "memory")},
        "prices": {"region": options.region, **{name: prices[name] for name in ("request", "gb_second")}},
    }
    recorder = Recorder(options.out / f"{options.name}.json", "prefix", WHAT, settings)
    recorder.data = {"samples": [], "peers": [], "starts": [], "skipped": [], "failed": {}}
    with contextlib.ExitStack() as stack, Progress() as progress:
        environments = _environments(stack, variants, wanted, options.memory, recorder)
        peers = _peers(stack, options, recorder)
        requests = [(who, kind) for who in environments for kind in wanted]
        task = progress.add_task("requests", total=options.runs * len(requests))
        for i, ((variant, reuses), kind) in interleaved(requests, options.runs):
            progress.advance(task)
            _call(environments[variant, reuses], variant, reuses, kind, i, recorder)
        for i, (name, kind) in interleaved([(name, kind) for name in peers for kind in wanted[:2]], options.runs):
            _call_peer(name, peers[name], kind, i, recorder)
    starts.measure(options, baked, recorder)
    recorder.save(complete=True)
    return recorder.path


def _environments(
    stack: contextlib.ExitStack, variants: list[Variant], wanted: list[Kind], memory: int, recorder: Recorder
) -> dict[tuple[Variant, bool], Emulator]:
    """For each variant one environment that reuses and one that does not, every kind of request made once in each."""
    ready = {}
    for variant in variants:
        for reuses in (True, False):
            env = {"MODEL_DIR": str(variant.directory), "HF_HUB_OFFLINE": "1", **variant.environment}
            env |= {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory), "AWS_LAMBDA_FUNCTION_TIMEOUT": str(LONGEST_S)}
            try:
                emulator = stack.enter_context(Emulator(env if reuses else env | {"PREFIX_CACHE": "0"}))
                for kind in wanted:
                    payload = emulator.invoke(_event(kind, -1), timeout=LONGEST_S).payload
                    if not (isinstance(payload, dict) and "timings" in payload):
                        raise EmulatorError(f"{variant.name} does not answer {kind}: {str(payload)[:300]}")
                ready[variant, reuses] = emulator
            except EmulatorError as error:
                recorder.data["failed"][variant.name] = str(error)
    return ready


def _event(kind: Kind, seed: int) -> dict[str, Any]:
    return {"prompt": kind.ids(seed), "max_tokens": kind.output, "temperature": 0, "ignore_eos": True}


def _call(emulator: Emulator, variant: Variant, reuses: bool, kind: Kind, i: int, recorder: Recorder) -> None:
    """One counted request."""
    try:
        reply = emulator.invoke(_event(kind, i), timeout=LONGEST_S)
        timings = reply.payload["timings"]
    except (EmulatorError, KeyError, TypeError) as error:
        recorder.data["failed"][variant.name] = f"{type(error).__name__}: {error}"
        return
    recorder.data["samples"].append(
        {
            "variant": variant.name,
            "reuses": reuses,
            "kind": kind.name,
            "round": i,
            "cached_tokens": timings["cached_tokens"],
            "first_token_s": timings["time_to_first_token_ms"] / 1000,
            "call_s": reply.seconds,
        }
    )
    recorder.save(complete=False)


def _peers(stack: contextlib.ExitStack, options: argparse.Namespace, recorder: Recorder) -> dict[str, Session]:
    """Those that are installed, loaded."""
    overrides = dict(text.split("=", 1) for text in options.python)
    sessions = {}
    for peer in PEERS:
        if peer.name not in REUSING:
            continue
        try:
            python = interpreter(peer, overrides)
            contender = prepare(peer, options.precision, checkpoint(options.checkpoint), python)
            sessions[peer.name] = stack.enter_context(Session(contender.command(usable_vcpus(), [KEEPS])))
        except NotInstalledError as error:
            recorder.data["skipped"].append(str(error))
        except PeerFailedError as error:
            recorder.data["failed"][peer.name] = str(error)
    return sessions


def _call_peer(name: str, session: Session, kind: Kind, i: int, recorder: Recorder) -> None:
    """One counted request. llama.cpp has one cache, so what the request begins with is read before, uncounted."""
    if name in recorder.data["failed"]:
        return
    try:
        session.generate(kind.ids(-1 - i), 1)
        reply = session.generate(kind.ids(i), 1)
    except PeerFailedError as error:
        recorder.data["failed"][name] = str(error)
        return
    recorder.data["peers"].append({"peer": name, "kind": kind.name, "round": i, "first_token_s": reply["first_s"]})
    recorder.save(complete=False)
