"""The whole compilation, top to bottom: load, export, pack and rewrite, generate C++, compile, package."""

import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tqdm import tqdm  # type: ignore[import-untyped]

from compiler import (
    calibrate,
    calibration_text,
    codegen,
    export,
    package,
    prompt_files,
    prompt_pages,
    resources,
    sensitivity,
    templates,
    tokenizer,
)
from compiler.calibration_text import CalibrationText
from compiler.errors import CannotCalibrateError, CompileError, UnsupportedModelError, refusing
from compiler.ops import Kind
from compiler.pack import BITS, Quantised, pack_stacked
from compiler.rewrite import PackedWeights, rewrite
from engines.artifact import FORMAT, WEIGHTS, stamp
from engines.cpu_levels import levels_here

QUANTIZATIONS = {
    # name: (linears, vocabulary-sized matrices, bytes per cache element). The embedding and the head get six bits in
    # int4 models: they are where four cost most accuracy, and eight buy none.
    "none": (Kind.FLOAT32, Kind.FLOAT32, 4),
    "int8": (Kind.INT8, Kind.INT8, 2),
    "int4": (Kind.INT4, Kind.INT6, 2),
}
DTYPES = {"none": "float32", "int8": "int8", "int4": "int4"}


@dataclass(frozen=True)
class Built:
    """What a compilation took, and the text that it calibrated on, if it did."""

    seconds: float
    text: CalibrationText | None


def _context_length(model: transformers.PreTrainedModel, wanted: int | None) -> int:
    most = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 0)
    if wanted is None:
        wanted = most or 2048
    if wanted < 1 or (most and wanted > most):
        raise CompileError(f"--context-length must lie between 1 and the checkpoint's {most}, not {wanted}.")
    return wanted


def _require_unquantised(checkpoint: Path) -> None:
    """CompileError for weights that are quantised already."""
    with suppress(OSError, ValueError, AttributeError):  # of what is no configuration the loader says more
        quantised = json.loads((checkpoint / "config.json").read_text()).get("quantization_config")
        if quantised:
            raise CompileError(
                f"{checkpoint} is quantised already ({quantised.get('quant_method')}); compile the original checkpoint."
            )


def _require_finite(model: transformers.PreTrainedModel, checkpoint: Path) -> None:
    """CompileError for weights that are no numbers."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise CompileError(f"{name} of {checkpoint} holds values that are not finite; copy the checkpoint again.")


def quantised_layers(
    model: transformers.PreTrainedModel, text: CalibrationText, kind: Kind, finer: Kind, progress: tqdm
) -> dict[int, Quantised]:
    """The model's layers in `kind`, calibrated on `text`, those where that costs most in `finer`; see `calibrate`."""
    some = text.ids[: sensitivity.SEQUENCES]
    sensitive: set[torch.nn.Module] = set()
    progress.reset(total=calibrate.weights_of(model) * sensitivity.passes(some))
    try:
        sensitive = sensitivity.most_sensitive(model, some, BITS[kind], done=progress.update)
    except CannotCalibrateError as error:
        tqdm.write(f"No matrix of the layers gets more bits than the others: {error}.")
    progress.reset(total=calibrate.weights_of(model))
    return calibrate.calibrate(
        model, text.ids, lambda module: BITS[finer if module in sensitive else kind], progress.update
    )


def build(
    checkpoint: Path,
    target: Path,
    quantize: str,
    context_length: int | None = None,
    levels: Sequence[str] | None = None,
    prompts: Sequence[Path] = (),
    calibrated: bool = True,
) -> Built:
    """Compile `checkpoint` into the artifact `target` and read the `prompts` into it.

    Four-bit weights are `calibrated` on text that the model writes; where that cannot be, a sentence says why.

    Raises LoadError for a checkpoint that cannot be served at all, UnsupportedModelError for one whose architecture
    cannot be compiled, and CompileError for what this machine lacks or what is wrong with a prompt. `target` is then as
    it was.
    """
    started = time.perf_counter()
    levels = levels or levels_here()
    if not levels:
        raise UnsupportedModelError("There are no kernels for this machine's architecture")
    codegen.require_compilers(levels)
    linear, table, element_bytes = QUANTIZATIONS[quantize]
    calibrated = calibrated and linear == Kind.INT4
    with (
        package.staging(target) as staged,
        tempfile.TemporaryDirectory() as work,
        warnings.catch_warnings(),
        tqdm(total=6 + 2 * len(levels) + bool(prompts) + 2 * calibrated, desc="load", unit="step") as steps,
        tqdm(desc="pack", unit=" weights", unit_scale=True, mininterval=0.5, leave=False) as packed,
    ):
        warnings.simplefilter("ignore")  # torch's about its own internals

        def step(description: str) -> None:
            steps.set_description(description)
            steps.update()

        resources.require(checkpoint, target, quantize, calibrated=calibrated)
        _require_unquantised(checkpoint)
        templates.require_parsed(checkpoint)
        model = export.load(checkpoint)
        _require_finite(model, checkpoint)
        context = _context_length(model, context_length)
        tokenizer.require_ids_below(model.config.get_text_config().vocab_size, checkpoint)
        to_read = prompt_files.read(prompts, checkpoint, context)
        ready: dict[int, Quantised] = {}
        text = None
        if calibrated:
            try:
                step("write text to calibrate on")
                text = calibration_text.write(model, checkpoint, context)
                step("calibrate")
                ready = quantised_layers(model, text, linear, table, packed)
            except CannotCalibrateError as error:
                tqdm.write(f"The weights are rounded without calibration: {error}.")
                model = export.load(checkpoint)  # some of its layers may have been quantised
        step("export")
        exported = export.export(model, element_bytes)
        packed.reset(total=sum(p.numel() for p in model.parameters() if p.dim() == 2))
        weights = PackedWeights(lambda matrices, kind: pack_stacked(matrices, kind, ready, packed.update))
        step("rewrite")
        with refusing(f"The graph of {type(model).__name__} cannot be rewritten"):
            rewritten = export.again(exported.program, lambda module: rewrite(module, weights, linear, table))
        step("generate")
        with refusing(f"Inductor cannot generate code for {type(model).__name__}"):
            source = codegen.generate(rewritten, Path(work))
        step("write weights")
        values = {**rewritten.state_dict, **rewritten.constants}
        constants = package.write_weights(
            staged / WEIGHTS, {code: values[original] for code, original in source.constants.items()}
        )
        numbers = {
            "vocab_size": exported.vocab_size,
            "context_length": context,
            "max_rows": export.MAX_ROWS,
            "cache": {
                "elements_per_token": sum(layer.elements_per_token for layer in exported.layers),
                "element_bytes": element_bytes,
            },
            "constants": constants,
        }
        codegen.stamp(source, stamp(numbers))
        for level in levels:
            (staged / level).mkdir()
        with ThreadPoolExecutor() as pool:
            for level, _ in zip(
                levels, pool.map(lambda name: codegen.build_runtime(name, staged / name), levels), strict=True
            ):
                step(f"compiled the kernels for {level}")
            for level, _ in zip(
                levels, pool.map(lambda name: codegen.build_graph(source, name, staged / name), levels), strict=True
            ):
                step(f"compiled the model for {level}")
        package.copy_checkpoint_files(checkpoint, staged)
        step("tokenizer")
        if said := tokenizer.store(checkpoint, staged, levels[0], exported.vocab_size):
            tqdm.write(said)
        digest = package.checkpoint_digest(checkpoint)
        package.write_manifest(
            staged,
            {
                "format": FORMAT,
                "model": {"architecture": type(model).__name__, "sha256": digest},
                "revision": package.revision(checkpoint, digest),
                "dtype": DTYPES[quantize],
                "quantization": quantize,
                "levels": list(levels),
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
                **numbers,
                "prompts": prompt_pages.NO_PROMPTS,
            },
        )
        if to_read:
            step("read the prompts")
            prompt_pages.store(staged, to_read)
        step("done")
    return Built(time.perf_counter() - started, text)
