"""What importing the handler costs: the modules it loads beside the engine's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from settings import ROOT

ALLOWED = {
    "api",
    "aws",
    "aws_lambda_powertools",
    "botocore",  # the bare package, which Powertools' user agent looks at; see NEVER
    "engines",
    "generation",
    "handler",
    "model_loader",
    "msgspec",
    "numpy",
    "settings",
    "startup",
    "tokenizers",
}
"""Every top-level module outside the standard library that a cold start may load before the engine's."""
NEVER = {
    "asyncio",
    "botocore.session",
    "http.client",
    "http.server",
    "multiprocessing",
    "ssl",
    "unittest",
    "xml",
}
"""Parts of the standard library and of what is allowed above which cost a start and serve no request."""

SCRIPT = """
import json, sys, types
import numpy as np

class Engine:
    name, dtype, device = "stub", "float32", "cpu"
    vocab_size, context_length, max_rows = 320, 640, 512
    pool, prefixes, total_tokens = None, (), 0
    def new_cache(self): return None
    def forward(self, steps): return [np.zeros((step.last, 320), dtype=np.float32) for step in steps]

stub = types.ModuleType("engines.transformers_engine")
stub.load = lambda *args, **settings: Engine()
sys.modules[stub.__name__] = stub
import handler
print(json.dumps(sorted(sys.modules)))
"""
"""The handler over an engine that needs nothing but numpy."""


@pytest.fixture(scope="module")
def modules(llama_directory: Path) -> set[str]:
    """All modules in a fresh process that has imported the handler."""
    env = {**os.environ, "MODEL_DIR": str(llama_directory)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_only_allowed_modules_are_loaded(modules: set[str]) -> None:
    top = {name.partition(".")[0] for name in modules if not name.startswith("_")}
    own = {name for name in top if name not in sys.stdlib_module_names}
    assert own - {"sitecustomize", "usercustomize"} <= ALLOWED


def test_the_list_holds_nothing_that_is_no_longer_loaded(modules: set[str]) -> None:
    assert modules >= ALLOWED


def test_nothing_costly_is_loaded(modules: set[str]) -> None:
    assert not modules & NEVER


def test_the_runtime_client_loads_nothing_costly_before_the_handler() -> None:
    code = "import aws.runtime, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & (NEVER | {"api", "dataclasses", "msgspec", "numpy", "settings", "socket"})
