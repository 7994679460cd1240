"""A checkpoint directory as the model that transformers makes of it: what the reference engine and the compiler load.

No code that a checkpoint brings along is run: its own Python modules are refused, and so are pickled weights.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from engines.errors import LoadError

logger = logging.getLogger(__name__)


def load_pretrained(
    directory: Path, dtype: str, device_map: str = "cpu", attention: str | None = None
) -> PreTrainedModel:
    """The causal LM in `directory`, in evaluation mode, with every weight read from its files. Raises LoadError.

    `dtype` is a torch dtype's name; `attention` one of transformers' implementations, None for its own choice.
    """
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            device_map=device_map,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except MemoryError:
        raise LoadError(f"{directory} does not fit in memory; raise the memory size or use a smaller model.") from None
    except Exception as error:  # whatever a foreign or broken checkpoint makes the library raise
        logger.debug("from_pretrained failed", exc_info=True)
        raise LoadError(_sentence(directory, error)) from None
    model: PreTrainedModel
    model, report = loaded
    wrong = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if wrong:
        raise LoadError(
            f"{directory} has no weights for {wrong[0]} ({len(wrong)} like it); config.json does not fit them."
        )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _sentence(directory: Path, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"{directory} needs Python code of its own, which is never run; use a model whose architecture is part of "
            f"transformers."
        )
    first = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    return f"{directory} cannot be loaded as a causal language model ({first}); check config.json against the weights."
