"""Fixtures that several test modules share: an environment of their own, and real models."""

import functools
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from msgspec.structs import fields

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["POWERTOOLS_METRICS_NAMESPACE"] = "CausalLM"
# Tests run side by side, on as few cores as there are: torch's second thread would spin where another test waits. So
# there is none in a test's processes, nor in a test that comes after one whose engine set it (pytest_runtest_setup).
os.environ["OMP_NUM_THREADS"] = "1"
# Every g++ of a test, in whatever process, is tests/bin/g++, which compiles nothing twice.
os.environ["PATH"] = f"{Path(__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
os.environ["COMPILATIONS"] = str(Path(__file__).parents[1] / "build" / "compilations" / version("torch"))

import torch

import model_loader
from api.model import Model
from settings import Settings
from tests.checkpoints import make_checkpoint


def pytest_runtest_setup(item: pytest.Item) -> None:
    """One thread of torch's. From SLOW_TESTS_UNTIL on (seconds since 1970), where it is set, no slow tests."""
    torch.set_num_threads(1)
    if "slow" in item.keywords and time.time() > float(os.environ.get("SLOW_TESTS_UNTIL", "inf")):
        pytest.skip("no time is left for slow tests")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test."""
    for name in (*(field.name.upper() for field in fields(Settings)), "AWS_LAMBDA_FUNCTION_MEMORY_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def llama_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama checkpoint."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-llama")


@pytest.fixture(scope="session")
def llama(llama_directory: Path) -> Model:
    """That checkpoint, loaded as the entry points load one."""
    return model_loader.load_model(Settings(model_dir=str(llama_directory)))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`compiled(checkpoint, quantize, levels)`: the artifact, compiled once a session for all who ask for the same."""
    from compiler.build import build  # imports what only compilers need

    @functools.cache
    def artifact(checkpoint: Path, quantize: str, levels: tuple[str, ...] | None = None) -> Path:
        target = tmp_path_factory.mktemp("artifacts") / f"{checkpoint.name}-{quantize}"
        build(checkpoint, target, quantize, levels=levels)
        return target

    return artifact


@pytest.fixture(scope="session")
def llama_artifact(llama_directory: Path, compiled: Callable[..., Path]) -> Path:
    """That checkpoint, compiled in float32 for every level of this machine's architecture."""
    return compiled(llama_directory, "none")
