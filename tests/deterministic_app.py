"""The production application around the deterministic engine: a server process that starts without loading a network.

SECONDS_PER_TOKEN says how long one forward pass takes, LOAD_WAITS_FOR names a file without which no load ends.
"""

import os
import time
from pathlib import Path

import app as production
from api.model import Model
from settings import Settings
from tests.deterministic_engine import DeterministicEngine, deterministic_model, read_tokenizer

PAUSE = float(os.environ.get("SECONDS_PER_TOKEN", "0"))


def get_model(settings: Settings) -> Model:
    """In the place of `model_loader.get_model`."""
    while not os.path.exists(os.environ.get("LOAD_WAITS_FOR", "/")):
        time.sleep(0.01)
    return deterministic_model(
        read_tokenizer(Path(settings.model_dir)), DeterministicEngine(before_forward=lambda: time.sleep(PAUSE))
    )


setattr(production, "get_model", get_model)  # noqa: B010 (what the module imported, it does not export)
app = production.app
