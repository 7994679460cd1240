"""The model and the tokenizer, loaded once per process, each phase timed.

`get_model` fills the module's one global on its first call and gives the same object ever after, to any thread. The
Lambda handler and the FastAPI application both call it; benchmarks and tools call `load_model`, which loads each time.
"""

from startup import process_clock

# isort: split
import importlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace

from api.chat import load_chat_template
from api.model import Model, generation_defaults
from engines.base import Engine, Step, token_ids
from engines.errors import LoadError
from engines.machine import usable_vcpus
from engines.rows import are_finite, forward
from generation.constraint import Grammars
from generation.tokenizer import Tokenizer, read_json
from settings import Settings

FETCHED = Path("/tmp/models")
"""Where models from S3 are put: the one place a function may write."""

_model: Model | None = None
_lock = threading.Lock()


def get_model(settings: Settings | None = None) -> Model:
    """The process's model, loaded by the first caller; everyone else waits for it and gets the same object.

    `settings` count in the first call only; None reads the environment. Raises LoadError, and then holds nothing: the
    next call tries again.
    """
    global _model
    if _model is None:
        with _lock:
            if _model is None:
                _model = _load_timed_from_process_start(settings or Settings.from_env())
    return _model


def _load_timed_from_process_start(settings: Settings) -> Model:
    before = {
        "start_ms": 1000 * process_clock.AGE_AT_IMPORT,
        "app_imports_ms": _since(process_clock.IMPORTED_AT),
    }
    model = load_model(settings)
    ready = {"total_ms": before["start_ms"] + _since(process_clock.IMPORTED_AT)}
    return replace(model, load_ms={name: round(ms, 1) for name, ms in {**before, **model.load_ms, **ready}.items()})


def load_model(settings: Settings) -> Model:
    """Load a model, each time it is called: what `get_model` does once. Raises LoadError.

    One thing after the other: the tokenizers library keeps the interpreter's lock while it reads, and a network that
    computes on every core beside it waits for it at each step. What does overlap is the disk: see `read_ahead.py`.
    """
    phases: dict[str, float] = {}
    directory = _find(settings.model_dir, phases)
    threads = settings.threads or usable_vcpus()
    # torch's OpenMP reads these once, as torch is imported. Threads that spin while they wait take a core from the one
    # that they wait for, wherever something else runs too; docs/engine-notes.md has figures.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    engine = _load_engine(settings, directory, threads, phases)
    with _timed(phases, "tokenizer_ms"):
        tokenizer = Tokenizer(directory)
    if not _is_compiled(directory):  # an artifact's was checked by the compiler
        tokenizer.require_ids_below(engine.vocab_size)
    with _timed(phases, "warm_up_ms"):
        _warm_up(directory, engine)
    eos_ids, sampling_defaults = generation_defaults(directory, tokenizer, engine.vocab_size)
    return Model(
        name=settings.model_name or directory.resolve().name,
        revision=_revision(directory),
        created=int(directory.stat().st_mtime),
        engine=engine,
        tokenizer=tokenizer,
        chat_template=load_chat_template(directory, tokenizer.special_tokens),
        eos_ids=eos_ids,
        grammars=Grammars(tokenizer, engine.vocab_size, eos_ids),
        sampling_defaults=sampling_defaults,
        load_ms=phases,
    )


def _find(model_dir: str, phases: dict[str, float]) -> Path:
    """The directory to load from; a model in S3 is fetched to one first."""
    if model_dir.startswith("s3://"):
        with _timed(phases, "fetch_ms"):
            from aws import s3_model  # imports boto3, for this alone

            return s3_model.fetch(model_dir, FETCHED)
    directory = Path(model_dir)
    if not directory.is_dir():
        raise LoadError(f"{directory} is not a directory; set MODEL_DIR to a checkpoint or a compiled artifact.")
    return directory


def _load_engine(settings: Settings, directory: Path, threads: int, phases: dict[str, float]) -> Engine:
    """The engine the directory asks for: compiled where it holds a manifest, else transformers."""
    compiled = _is_compiled(directory)
    with _timed(phases, "imports_ms"):
        module = importlib.import_module(f"engines.{'compiled' if compiled else 'transformers'}_engine")
    with _timed(phases, "weights_ms"):
        if compiled:
            engine: Engine = module.load(directory, threads=threads, verify=settings.verify_artifact)
        else:
            engine = module.load(directory, dtype=settings.dtype, device=settings.device, threads=threads)
    return engine


def _is_compiled(directory: Path) -> bool:
    return (directory / "manifest.json").is_file()


def _warm_up(directory: Path, engine: Engine) -> None:
    """One token through the network: what the libraries set up on first use, and proof that the weights are numbers."""
    (logits,) = forward(engine, [Step(token_ids([0]), engine.new_cache())])
    if not are_finite(logits):
        raise LoadError(f"The weights in {directory} give logits that are not finite; copy the checkpoint again.")


def _revision(directory: Path) -> str:
    """The checkpoint's commit as far as the directory tells: an artifact's manifest, or a hub snapshot's name."""
    if _is_compiled(directory):
        return str(read_json(directory / "manifest.json").get("revision", "unknown"))
    resolved = directory.resolve()
    return resolved.name if resolved.parent.name == "snapshots" else "unknown"


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    phases[name] = _since(started)


def _since(started: float) -> float:
    """Milliseconds from a `time.monotonic()` instant to now."""
    return 1000 * (time.monotonic() - started)
