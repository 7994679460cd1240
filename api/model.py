"""A loaded model: everything a request needs, immutable, shared by all threads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.chat import ChatTemplate
from engines.base import Engine
from generation.tokenizer import Tokenizer, read_json

SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True)
class Model:
    """What `model_loader` makes once per process."""

    name: str
    """The id clients ask for."""
    revision: str
    """Which version of the checkpoint this is, as far as the directory tells."""
    created: int
    """When the checkpoint was written, Unix seconds."""
    engine: Engine
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    eos_ids: frozenset[int]
    sampling_defaults: Mapping[str, Any]
    """What the checkpoint's generation config asks for where a request is silent."""
    load_ms: Mapping[str, float]
    """How long each phase of the load took, milliseconds; the phases may overlap."""


def generation_defaults(directory: Path, tokenizer: Tokenizer) -> tuple[frozenset[int], dict[str, Any]]:
    """End-of-sequence ids and sampling defaults from `generation_config.json`, `config.json` and the tokenizer."""
    files = [directory / "generation_config.json", directory / "config.json"]
    configs = [read_json(path) for path in files if path.is_file()]
    eos = next((config["eos_token_id"] for config in configs if config.get("eos_token_id") is not None), None)
    if eos is None:
        eos = tokenizer.token_id(tokenizer.special_tokens.get("eos_token", ""))
    ids = frozenset(eos) if isinstance(eos, list) else frozenset(() if eos is None else (eos,))
    generation = configs[0] if configs and files[0].is_file() else {}
    if not generation.get("do_sample"):
        return ids, {}
    return ids, {name: generation[name] for name in SAMPLING_DEFAULTS if generation.get(name) is not None}
