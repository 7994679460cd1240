"""The function over the deterministic engine: starts without loading a network, and a test decides when it computes.

`python -m tests.gated_function handler.lambda_handler` takes the place of `python -m aws.runtime ...`. Where the pipe
that GATE names exists, each forward pass first takes a byte from it: `.` to compute, `!` to fail, `m` to lack memory.
"""

import os
import runpy
from pathlib import Path

import model_loader
from api.model import Model
from settings import Settings
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer

GATE = os.environ.get("GATE", "")


class Engine(DeterministicEngine):
    """For the demo model's tokenizer."""

    vocab_size = 1536


def wait_at_gate() -> None:
    """One forward pass's permission."""
    if not os.path.exists(GATE):
        return
    with open(GATE, "rb", buffering=0) as gate:
        order = gate.read(1)
    if order == b"!":
        raise ZeroDivisionError("a secret of the inside")
    if order == b"m":
        raise MemoryError


def get_model(settings: Settings) -> Model:
    """In the place of `model_loader.get_model`."""
    return deterministic_model(read_tokenizer(Path(settings.model_dir)), Engine(before_forward=wait_at_gate))


if __name__ == "__main__":
    setattr(model_loader, "get_model", get_model)  # noqa: B010 (another than the module's own)
    runpy.run_module("aws.runtime", run_name="__main__", alter_sys=True)
