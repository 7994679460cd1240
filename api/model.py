"""A loaded model: everything a request needs, immutable, shared by all threads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from api.chat import ChatTemplate
from api.errors import InvalidRequestError
from api.schema import CompletionRequest
from api.validation import validate
from engines.base import Engine
from engines.errors import LoadError
from engines.sha256 import sha256
from generation.constraint import Grammars
from generation.tokenizer import Tokenizer, read_json

SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


class Model(Struct, frozen=True):
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
    grammars: Grammars
    sampling_defaults: Mapping[str, Any]
    """What the checkpoint's generation config asks for where a request is silent."""
    load_ms: Mapping[str, float]
    """How long each phase of the load took, milliseconds."""

    @property
    def fingerprint(self) -> str:
        """The same wherever the same checkpoint runs on the same engine: with one seed, the same text."""
        engine = self.engine
        what = (self.name, self.revision, engine.name, engine.dtype, engine.device)
        return f"fp_{sha256(repr(what).encode()).hexdigest()[:12]}"


def generation_defaults(
    directory: Path, tokenizer: Tokenizer, vocab_size: int
) -> tuple[frozenset[int], dict[str, Any]]:
    """End-of-sequence ids and sampling defaults from `generation_config.json`, `config.json` and the tokenizer.

    LoadError for ids that are none of the model's, and for defaults that a request could not ask for.
    """
    files = [path for path in (directory / "generation_config.json", directory / "config.json") if path.is_file()]
    configs = {path: read_json(path) for path in files}
    path, eos = next(
        ((path, config["eos_token_id"]) for path, config in configs.items() if config.get("eos_token_id") is not None),
        (directory / "tokenizer_config.json", tokenizer.token_id(tokenizer.special_tokens.get("eos_token", ""))),
    )
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if wrong := [token for token in ids if type(token) is not int or not 0 <= token < vocab_size]:
        raise LoadError(
            f"{path} says that {wrong[0]!r} ends a text, and the model's tokens go from 0 to {vocab_size - 1}; "
            f"correct its eos_token_id."
        )
    generation = configs.get(directory / "generation_config.json", {})
    defaults = {name: generation[name] for name in SAMPLING_DEFAULTS if generation.get(name) is not None}
    if not generation.get("do_sample"):
        return frozenset(ids), {}
    try:
        validate(CompletionRequest, {"prompt": "", **defaults})
    except InvalidRequestError as error:
        raise LoadError(f"{directory / 'generation_config.json'} cannot be followed: {error.message}") from None
    return frozenset(ids), defaults
