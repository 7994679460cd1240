"""`make compare`: the cold start with transformers and with the model compiled, side by side, for a person to see.

Compiles the checkpoint that MODEL_DIR names (the demo) to int8 unless that was done before, then starts the function
with either in turns, under Lambda's runtime client and emulator. What it shows is what the function answered.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from engines.artifact import MANIFEST, read
from engines.errors import LoadError
from tools.emulator import ROOT, Emulator, EmulatorError
from tools.run_demo import PHASES, DemoError, body_of, invoke
from tools.screen import Screen

STARTS = 3
"""Cold starts of each engine."""
LATER = 3
"""Invocations after each cold start."""
EVENT = "direct"


def main() -> int:
    """Compare; 0 when both engines answered."""
    sys.stdout.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    try:
        checkpoint = Path(os.environ.get("MODEL_DIR", ROOT / "models" / "demo"))
        compare(Screen.of_stdout(), checkpoint, compiled(checkpoint))
    except (DemoError, EmulatorError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def compiled(checkpoint: Path) -> Path:
    """The artifact of a checkpoint, compiled unless it is there. Raises DemoError."""
    if (checkpoint / "manifest.json").is_file():
        raise DemoError(f"{checkpoint} is compiled already; set MODEL_DIR to the checkpoint it was.")
    artifact = ROOT / "build" / f"{checkpoint.resolve().name}-int8"
    if not _is_of(artifact, checkpoint):
        print(f"Compiling {checkpoint.name} into build/{artifact.name} (once; about a minute) ...")
        command = [sys.executable, "-m", "compiler", str(checkpoint), str(artifact), "--quantize", "int8"]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise DemoError("The model was not compiled; the lines above say why.")
    return artifact


def _is_of(artifact: Path, checkpoint: Path) -> bool:
    """Whether an artifact is there that this version reads and that was compiled from just this checkpoint."""
    from compiler.package import checkpoint_digest  # imports torch

    try:
        read(artifact)
        digest = checkpoint_digest(checkpoint)
    except (LoadError, OSError):
        return False
    return bool(json.loads((artifact / MANIFEST).read_bytes())["model"]["sha256"] == digest)


def compare(screen: Screen, checkpoint: Path, artifact: Path) -> None:
    """Start both in turns and show the medians. Raises DemoError or EmulatorError."""
    engines = {"transformers": checkpoint, "compiled int8": artifact}
    event = json.loads((ROOT / "events" / f"{EVENT}.json").read_bytes())
    print(f"\nStarting the function {STARTS} times with each engine, in turns ...")
    rounds = [{name: _start(event, directory) for name, directory in engines.items()} for _ in range(STARTS)]
    medians = {
        name: {figure: statistics.median(each[name][figure] for each in rounds) for figure in rounds[0][name]}
        for name in engines
    }
    screen.heading(f"Cold start of {checkpoint.resolve().name}, both engines on one scale (medians of {STARTS})")
    rows = {**PHASES, "total_ms": "until ready"}
    screen.bars(
        [
            (f"{name:<13} {label}", medians[name][phase], "")
            for name in engines
            for phase, label in rows.items()
            if phase in medians[name]
        ]
    )
    screen.heading(f"First and later invocations of the same request (events/{EVENT}.json)")
    screen.bars(
        [(f"{name:<13} {which}", medians[name][f"{which}_ms"], "") for which in ("first", "later") for name in engines]
    )
    slow, fast = medians.values()
    screen.aside(
        f"Compiled, the function is ready {slow['total_ms'] / fast['total_ms']:.1f} times as fast, and a later answer "
        f"comes {slow['later_ms'] / fast['later_ms']:.1f} times as fast."
    )


def _start(event: Any, directory: Path) -> dict[str, float]:
    """Milliseconds of one cold start's phases, of its `first` answer and of `later` ones."""
    with Emulator({"MODEL_DIR": str(directory)}) as emulator:
        first = invoke(emulator, EVENT, event)
        later = [invoke(emulator, EVENT, event).seconds for _ in range(LATER)]
    phases = body_of(first.payload)["timings"]["init"]
    return {**phases, "first_ms": 1000 * first.seconds, "later_ms": 1000 * statistics.median(later)}


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
