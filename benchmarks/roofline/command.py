"""`python -m benchmarks roofline`: the machine's bounds, the floor they set, and warm results beside it."""

import argparse
import importlib.util
import os
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.checkpoints import checkpoint
from benchmarks.errors import InputError
from benchmarks.results import Recorder, load_result
from benchmarks.stats import summarise
from benchmarks.warm.report import kinds, per_token

WHAT = (
    "Read bandwidth (a sum over 512 MB) and matrix throughput (1024 x 1024 products) of this machine through torch, "
    "and the milliseconds per token below which no engine can go that reads every weight once for each token."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add = parser.add_argument
    add("--model", action="append", help="checkpoint directory or shape; repeatable, default SmolLM2-135M")
    add("--warm", type=Path, help="a results file of `warm`, to say how near its engines come")
    add("--repeats", type=int, default=20, help="measurements of each bound, default 20")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")


def run(options: argparse.Namespace) -> Path:
    """Measure the bounds and save; returns the results file's path."""
    if options.repeats < 2:
        raise InputError(f"--repeats {options.repeats}: at least two are needed.")
    if importlib.util.find_spec("torch") is None:
        raise InputError("roofline measures through torch, which is not installed; pip install -r requirements.txt")
    warm = load_result(options.warm, "warm") if options.warm else None
    models = {Path(name).name: checkpoint(name) for name in options.model or ["SmolLM2-135M"]}
    from benchmarks.roofline import measure

    weights = {name: measure.weights_per_token(directory) for name, directory in models.items()}
    cpus = len(os.sched_getaffinity(0))
    recorder = Recorder(options.out / "roofline.json", "roofline", WHAT, {"repeats": options.repeats})
    bounds: list[dict[str, Any]] = []
    threads_tried = sorted({1, cpus})
    with Progress() as progress:
        dtypes = ("float32", "bfloat16", "int8")
        task = progress.add_task("bounds", total=len(threads_tried) * (1 + len(dtypes)))
        for threads in threads_tried:
            samples = measure.read_bandwidth(threads, options.repeats)
            bounds.append({"bound": "read", "threads": threads, "samples": samples})
            progress.advance(task)
            for dtype in dtypes:
                samples = measure.matrix_throughput(dtype, threads, options.repeats)
                bounds.append({"bound": f"matrix {dtype}", "threads": threads, "samples": samples})
                progress.advance(task)
    best = max(max(bound["samples"]) for bound in bounds if bound["bound"] == "read")
    rates = {dtype: max(max(b["samples"]) for b in bounds if b["bound"] == f"matrix {dtype}") for dtype in dtypes}
    floors = {}
    for name, (layers, head) in weights.items():
        per_dtype = {dtype: (layers * each + head * of_head) / best for dtype, (each, of_head) in measure.BYTES.items()}
        floors[name] = {"weights_per_token": layers + head, "head_weights": head, "floor_s": per_dtype}
    recorder.data = {
        "bounds": bounds,
        "best_read": best,
        "floors": floors,
        "engines": _engines(warm, floors),
        "prefills": prefills(warm, floors, rates),
    }
    recorder.save(complete=True)
    return recorder.path


def _floor_of(about: dict[str, Any], floors: dict[str, Any]) -> dict[str, Any] | None:
    """The floor of a measured model. An artifact made on the spot is named after its checkpoint and quantisation."""
    names = (model for model in floors if about["model"] in (model, f"{model}-{about.get('dtype')}"))
    return next((floors[name] for name in names), None)


def _engines(warm: dict[str, Any] | None, floors: dict[str, Any]) -> list[dict[str, Any]]:
    """For each engine of a warm run whose model has a floor: its fastest kind of request beside the floor."""
    found = []
    for name, about in (warm["settings"]["models"] if warm else {}).items():
        base = _floor_of(about, floors)
        floor = base["floor_s"].get(about.get("dtype")) if base else None
        medians = [
            summarise([per_token(sample) for sample in samples]).median
            for (variant, _, output, prompts), samples in kinds(warm or {}).items()
            if variant == name and prompts == 1 and output > 1
        ]
        if floor and medians:
            found.append({"variant": name, **about, "floor_s": floor, "per_token_s": min(medians)})
    return found


def prefills(warm: dict[str, Any] | None, floors: dict[str, Any], rates: dict[str, float]) -> list[dict[str, Any]]:
    """For each engine of a warm run and each prompt length: operations per second in the linear layers.

    `rates` are the machine's best for each precision, of which int8's is beside int4 too, since long prompts widen it.
    A prompt multiplies with every layer's weights once a token and with the head's once; attention is not counted.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for (name, prompt, _, prompts), samples in kinds(warm or {"samples": []}).items():
        about = (warm or {})["settings"]["models"][name]
        base = _floor_of(about, floors)
        rate = rates.get("int8" if about.get("dtype") == "int4" else about.get("dtype"))
        if not base or not rate or prompts > 1:
            continue
        layers = base["weights_per_token"] - base["head_weights"]
        work = 2.0 * (layers * prompt + base["head_weights"])
        seconds = summarise([float(sample["prefill_s"]) for sample in samples]).median
        each = {"variant": name, **about, "prompt_tokens": prompt, "prefill_s": seconds}
        each |= {"operations_per_s": work / seconds, "best_operations_per_s": rate}
        known = found.get((name, prompt))
        if known is None or seconds < known["prefill_s"]:
            found[name, prompt] = each
    return list(found.values())
