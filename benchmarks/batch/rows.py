"""What a pass of so many rows costs: one token appended to each of so many caches, at every level this CPU runs."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from benchmarks.errors import InputError
from benchmarks.results import Recorder
from benchmarks.variants import Variant

COUNTS = (1, 2, 4, 8, 16, 32)
CONTEXT = 128
PASSES = 12


def measure(_: argparse.Namespace, __: Path, variants: Sequence[Variant], recorder: Recorder) -> None:
    """Fill `recorder.data["rows"]`: seconds of a pass per variant, level, thread count and number of rows."""
    with Progress() as progress:
        task = progress.add_task("rows", total=len(variants))
        for variant in variants:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.batch.rows", str(variant.directory)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise InputError(f"{variant.name} cannot be measured: {done.stderr.strip().splitlines()[-1][:300]}")
            recorder.data["rows"] += [
                {"variant": variant.name, **json.loads(line)} for line in done.stdout.splitlines()
            ]
            progress.advance(task)


def main(directory: Path) -> None:
    """Print a JSON line per level, thread count and number of rows, all counts in turns."""
    import time

    import numpy as np

    from engines import artifact, compiled_engine, cpu_levels
    from engines.base import Step

    draw = np.random.default_rng(0)
    flags, levels = cpu_levels.cpu_flags(), artifact.read(directory).levels
    for level in [name for name in levels if cpu_levels.LEVEL_FLAGS[name] <= flags]:
        for threads in range(1, len(os.sched_getaffinity(0)) + 1):
            engine = compiled_engine.load(directory, threads=threads, level=level)
            caches = [engine.new_cache() for _ in range(max(COUNTS))]
            for cache in caches:
                engine.forward([Step(draw.integers(1, engine.vocab_size, CONTEXT), cache)])
            took: dict[int, list[float]] = {count: [] for count in COUNTS}
            for number in range(PASSES + 2):
                for count in COUNTS:
                    ids = draw.integers(1, engine.vocab_size, (count, 1))
                    steps = [Step(row, cache) for row, cache in zip(ids, caches, strict=False)]
                    begun = time.perf_counter()
                    engine.forward(steps)
                    if number >= 2:
                        took[count].append(time.perf_counter() - begun)
                    for cache in caches[:count]:
                        cache.truncate(CONTEXT)
            for count, times in took.items():
                print(json.dumps({"level": level, "threads": threads, "rows": count, "pass_s": times}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
