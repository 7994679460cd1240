"""What importing the handler and a first plain request cost: the modules they load beside the engine's own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compiler import tokenizer
from engines.cpu_levels import levels_here
from settings import ROOT
from tests.checkpoints import VOCAB

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
    "settings",
    "startup",
}
"""Every top-level module outside the standard library that a cold start may load before the engine's."""
NEVER = {
    "_hashlib",  # OpenSSL
    "asyncio",
    "botocore.session",
    "dataclasses",  # each frozen one takes a millisecond to make, a msgspec.Struct a fortieth of that
    "http.client",
    "http.server",
    "multiprocessing",
    "numpy",
    "ssl",
    "unicodedata",
    "unittest",
    "xml",
}
"""Parts of the standard library and of what is allowed above which cost a start and serve no request."""

SCRIPT = """
import json, sys, types
from engines.native_rows import NativeRows

class Sampler:
    finite = staticmethod(lambda *of: 1)
    pick = staticmethod(lambda *of: 5)

class Cache:
    length, pages = 0, []
    def close(self): pass

class Engine:
    name, dtype, device = "stub", "float32", "cpu"
    vocab_size, context_length, max_rows = 320, 640, 512
    pool, prefixes, total_tokens, free_tokens = None, (), 640, 640
    def new_cache(self): return Cache()
    def forward_natively(self, steps):
        for step in steps:
            step.cache.length += len(step.ids)
        return [NativeRows(Sampler, bytearray(4 * 320 * step.last), 0, step.last, 320) for step in steps]

class Context:
    function_name = invoked_function_arn = aws_request_id = "of a test"
    memory_limit_in_mb = 1024
    def get_remaining_time_in_millis(self): return 60_000

stub = types.ModuleType("engines.transformers_engine")
stub.load = lambda *args, **settings: Engine()
sys.modules[stub.__name__] = stub
import handler
assert handler.lambda_handler({"prompt": "x", "max_tokens": 3}, Context())["usage"]["completion_tokens"] == 3
print(json.dumps(sorted(sys.modules)))
"""
"""The handler with its first answer, over an engine whose logits are in native memory as the compiled one's are."""


@pytest.fixture(scope="module")
def modules(llama_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """All modules in a fresh process that has imported the handler and answered, with the tokenizer of an artifact."""
    directory = shutil.copytree(llama_directory, tmp_path_factory.mktemp("model") / "model")
    assert tokenizer.store(llama_directory, directory, levels_here()[0], VOCAB) is None
    env = {**os.environ, "MODEL_DIR": str(directory)}
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


def test_the_compiled_engine_loads_nothing_costly() -> None:
    code = "import engines.compiled_engine, json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(json.loads(done.stdout)) & NEVER
