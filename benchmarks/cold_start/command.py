"""`python -m benchmarks cold-start`: every variant under every condition, interleaved, into one results file."""

import argparse
from pathlib import Path
from typing import Any

from rich.progress import Progress

from benchmarks.cold_start.container import ContainerFailedError, image_bytes, require_docker, sizes_in
from benchmarks.cold_start.measure import (
    PROMPT,
    ColdStartFailedError,
    Condition,
    cold_start,
    files_opened,
    import_output,
)
from benchmarks.cold_start.observe import may_drop_page_cache, may_limit_cpu
from benchmarks.cold_start.remains import file_sizes, import_times
from benchmarks.errors import InputError, NotInstalledError
from benchmarks.prompt_text import prompt_text
from benchmarks.results import Recorder
from benchmarks.variants import Variant, add_variant_arguments, described, interleaved, parse_variants
from tools.emulator import EmulatorError

WHAT = (
    "Seconds from sending the first event to a freshly started environment until its one-token answer is back: a new "
    "process under awslambdaric and the runtime interface emulator each time, split into the phases the loader reports."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommand's parameters."""
    add_variant_arguments(parser)
    add = parser.add_argument
    add("--image", action="append", default=[], metavar="NAME=IMAGE", help="a container image to measure as well")
    add(
        "--prompt",
        action="append",
        default=[],
        metavar="NAME=TOKENS",
        help="ask the --model of that name with a prompt of about so many tokens, the first of which are those that "
        ":int8+1000 has read; repeatable. Default: one of a few",
    )
    add("--runs", type=int, default=15, help="cold starts of each kind, default 15")
    add("--memory-mb", type=int, action="append", help="limit CPU as Lambda does for this size; repeatable")
    add("--cache", choices=("warm", "cold", "both"), default="warm", help="page cache before each start, default warm")
    add("--out", type=Path, default=Path("benchmarks/results"), help="folder for the results file")
    add("--name", default="cold-start", help="name of the results file, default cold-start")


def _conditions(options: argparse.Namespace) -> list[Condition]:
    """The conditions asked for; refuses those this machine cannot make."""
    if options.runs < 1:
        raise InputError(f"--runs {options.runs}: at least one run is needed.")
    sizes: list[int | None] = options.memory_mb or [None]
    for size in sizes:
        if size is not None and not 128 <= size <= 10_240:
            raise InputError(f"--memory-mb {size}: Lambda gives 128 to 10240 MB.")
    if options.memory_mb and not may_limit_cpu():
        raise InputError("--memory-mb needs a writable CPU control group; run as root, or leave it out.")
    caches = ["warm", "cold"] if options.cache == "both" else [options.cache]
    if "cold" in caches and not may_drop_page_cache():
        raise InputError("a cold page cache needs the right to write /proc/sys/vm/drop_caches; use --cache warm.")
    return [Condition(size, cache) for size in sizes for cache in caches]


def _images(options: argparse.Namespace, skipped: list[str]) -> list[Variant]:
    """The images asked for, none of them where Docker does not answer."""
    pairs = [text.partition("=") for text in options.image]
    if any(not name or not image for name, _, image in pairs):
        raise InputError(f"--image takes NAME=IMAGE, not {', '.join(options.image)}.")
    try:
        if pairs:
            require_docker()
    except NotInstalledError as error:
        skipped.append(str(error))
        return []
    try:
        for _, _, image in pairs:
            image_bytes(image)
    except ContainerFailedError as error:
        raise InputError(f"--image: {error}.") from None
    return [Variant(name, Path(), image=image) for name, _, image in pairs]


def _prompts(options: argparse.Namespace, variants: list[Variant]) -> dict[str, str]:
    """What each variant is asked."""
    prompts = {variant.name: PROMPT for variant in variants}
    directories = {variant.name: variant.directory for variant in variants if not variant.image}
    for text in options.prompt:
        name, _, tokens = text.rpartition("=")
        if name not in directories or not tokens.isdecimal() or not int(tokens):
            raise InputError(f"--prompt takes NAME=TOKENS, with the name of a --model, not {text}.")
        prompts[name] = prompt_text(directories[name], int(tokens))
    return prompts


def run(options: argparse.Namespace) -> Path:
    """Measure, saving after every cold start; returns the results file's path."""
    skipped: list[str] = []
    conditions, images = _conditions(options), _images(options, skipped)
    variants = [*(parse_variants(options.model) if options.model or not images else []), *images]
    prompts = _prompts(options, variants)
    settings = {
        "models": described(variants),
        "runs": options.runs,
    }
    recorder = Recorder(options.out / f"{options.name}.json", "cold-start", WHAT, settings)
    samples: list[dict[str, Any]] = []
    recorder.data = {"samples": samples, "files_opened": {}, "remains": {}, "failed": {}, "skipped": skipped}
    recorder.data["image_bytes"] = {variant.name: image_bytes(variant.image) for variant in images}
    kinds = [(variant, condition) for variant in variants for condition in conditions]
    with Progress() as progress:
        task = progress.add_task("cold starts", total=len(kinds) * (options.runs + 1))
        works: list[tuple[Variant, Condition]] = []
        # Warm starts are all measured before the first cold one, which would empty the page cache of every model.
        for cache in dict.fromkeys(condition.cache for condition in conditions):
            here = [kind for kind in kinds if kind[1].cache == cache]
            # The first start of each kind fills the page cache and finds what cannot start at all; it is not counted.
            for variant, condition in here:
                _start(variant, condition, prompts, recorder, None)
                progress.advance(task)
            here = [kind for kind in here if kind[1].of(kind[0].name) not in recorder.data["failed"]]
            for i, (variant, condition) in interleaved(here, options.runs):
                _start(variant, condition, prompts, recorder, i)
                recorder.save(complete=False)
                progress.advance(task)
            works += here
        for variant in dict.fromkeys(variant for variant, _ in works):
            _trace(variant, prompts[variant.name], recorder)
    recorder.save(complete=True)
    return recorder.path


def _start(variant: Variant, condition: Condition, prompts: dict[str, str], recorder: Recorder, i: int | None) -> None:
    """One cold start into the samples, or the kind among the failed; `i` is None where it does not count."""
    try:
        measured = cold_start(variant, condition, prompts[variant.name])
    except ColdStartFailedError as error:
        recorder.data["failed"][condition.of(variant.name)] = str(error)
        return
    if i is not None:
        about = {"variant": variant.name, "memory_mb": condition.memory_mb, "cache": condition.cache, "round": i}
        recorder.data["samples"].append({**about, **measured})


def _trace(variant: Variant, prompt: str, recorder: Recorder) -> None:
    try:
        opened = files_opened(variant, prompt)
        recorder.data["files_opened"][variant.name] = len(opened)
        recorder.data["remains"][variant.name] = {
            "imports_ms": import_times(import_output(variant, prompt)),
            "files": sizes_in(variant.image, opened) if variant.image else file_sizes(opened, variant.directory),
        }
    except NotInstalledError as error:
        recorder.data["skipped"].append(str(error))
    except (ColdStartFailedError, ContainerFailedError, EmulatorError) as error:
        recorder.data["failed"][f"{variant.name}, traced"] = str(error)
