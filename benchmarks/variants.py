"""What is measured side by side: named model directories, each with the settings it runs under."""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.checkpoints import model_directory
from benchmarks.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """One contender: a checkpoint (transformers engine) or an artifact (compiled engine), and environment variables."""

    name: str
    directory: Path
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    image: str = ""
    """A container image that holds its model; `directory` then means nothing."""

    @property
    def engine(self) -> str:
        """The engine its directory asks for, `container` for an image."""
        if self.image:
            return "container"
        return "compiled" if (self.directory / "manifest.json").is_file() else "transformers"


def add_variant_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models to measure."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME=DIRECTORY[,VARIABLE=VALUE...]",
        help="a checkpoint or artifact to measure, with environment variables for it; repeatable, interleaved. "
        "DIRECTORY may also be SmolLM2-135M, Qwen2.5-0.5B or Qwen2.5-1.5B, random weights of that shape, or such a "
        "name or a checkpoint with :int8, :int4 or :none after it, compiled on the spot; :int8+1000 has read a prompt "
        "of 1000 tokens then. "
        "Default: transformers=SmolLM2-135M",
    )


def parse_variants(texts: Sequence[str] | None) -> list[Variant]:
    """The variants asked for; refuses names given twice and directories that hold no model."""
    variants = []
    for text in texts or ["transformers=SmolLM2-135M"]:
        name, separator, rest = text.partition("=")
        where, *assignments = rest.split(",")
        if not (name and separator and where) or not all("=" in each for each in assignments):
            raise InputError(f"--model {text!r} is not NAME=DIRECTORY[,VARIABLE=VALUE...].")
        directory = model_directory(where)
        variants.append(Variant(name, directory.resolve(), dict(each.split("=", 1) for each in assignments)))
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise InputError(f"--model names must differ: {', '.join(names)}.")
    return variants


def described(variants: Sequence[Variant]) -> dict[str, dict[str, str]]:
    """What a results file says of each, by name: its engine, its model and the variables it ran under."""
    return {v.name: {"engine": v.engine, "model": v.image or v.directory.name, **v.environment} for v in variants}


def interleaved(items: Sequence[T], rounds: int, seed: int = 0) -> Iterator[tuple[int, T]]:
    """Every item once a round, in a new order each round, so that drift of the machine hits all alike."""
    draw = random.Random(seed)
    for i in range(rounds):
        order = list(items)
        draw.shuffle(order)
        yield from ((i, item) for item in order)
