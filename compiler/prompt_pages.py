"""Prompts -> the pages of their KV caches, read by the compiled model itself, in the artifact.

Each level whose code this CPU can run reads the prompts and gets a file of its own, since levels round differently. A
CPU that reaches a higher level then runs one of these, so that a page is only ever used by the code that made it.
"""

import ctypes
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from api.baked import baked_prompt
from compiler import package, prompt_files
from compiler.errors import CompileError
from compiler.prompt_files import Prompt
from engines import artifact, compiled_engine, cpu_levels
from engines.base import PAGE_TOKENS, KVCache, Logits, Step, TokenIds
from engines.compiled_engine import CompiledEngine
from engines.machine import usable_vcpus
from engines.prompts import file_name, header, page_numbers
from generation.tokenizer import Tokenizer

NO_PROMPTS: Mapping[str, Any] = {"levels": [], "tokens": []}
"""The manifest's entry for an artifact without prompts."""


def store(directory: Path, prompts: Sequence[Prompt]) -> None:
    """Read `prompts` with the artifact in `directory`, which has none, and write their pages into it."""
    manifest = json.loads((directory / artifact.MANIFEST).read_bytes())
    del manifest["sha256"]
    levels = [level for level in manifest["levels"] if cpu_levels.LEVEL_FLAGS[level] <= cpu_levels.cpu_flags()]
    if not levels:
        raise CompileError(f"Prompts are read by the compiled model, and this CPU runs none of {manifest['levels']}.")
    tokens = list(dict.fromkeys(tuple(prompt.ids.tolist()) for prompt in prompts))
    manifest["prompts"] = {"levels": levels, "tokens": [list(ids) for ids in tokens]}
    stamp = artifact.prompt_stamp(manifest)
    for level in levels:
        engine = compiled_engine.load(directory, threads=usable_vcpus(), level=level)
        page_bytes = artifact.read(directory).page_bytes
        written = 0
        with (directory / file_name(level)).open("wb") as file:
            file.write(header(stamp))
            for ids, numbers in zip(tokens, page_numbers(tokens), strict=True):
                cache = engine.new_cache()
                _read(engine, np.array(ids), cache)
                for number, page in zip(numbers, cache.pages, strict=True):
                    if number == written:  # else a prompt before this one has the same beginning
                        file.write(ctypes.string_at(page, page_bytes))
                        written += 1
    package.add_files(directory, manifest, [directory / file_name(level) for level in levels])


def check(directory: Path, paths: Sequence[Path]) -> list[str]:
    """Answer a sample request with the pages of each prompt in `paths` and without. What to say of each prompt.

    Raises CompileError where the pages are not found in the artifact or change the answer.
    """
    if not paths:
        return []
    engine = compiled_engine.load(directory, threads=usable_vcpus())
    tokenizer = Tokenizer(directory)
    lines = []
    for prompt in prompt_files.read(paths, directory, engine.context_length):
        cache = next((cache for ids, cache in engine.prefixes if ids.tolist() == prompt.ids.tolist()), None)
        if cache is None:
            raise CompileError(f"The pages of {prompt.path} are not found in the compiled model.")
        found = _read(engine, prompt.sample, cache.fork())
        expected = _read(engine, prompt.sample, engine.new_cache())
        # In int4 a token may be rounded otherwise in a pass of other size; see docs/compiled-engine.md.
        if engine.dtype != "int4" and not np.array_equal(found, expected):
            raise CompileError(f"The pages of {prompt.path} change the answer to a request.")
        baked = baked_prompt(prompt.ids, tokenizer)
        lines.append(
            f"{prompt.path}: {baked['tokens']} of its {len(prompt.common)} tokens are stored, in pages of "
            f"{PAGE_TOKENS}, for requests that begin with these {baked['characters']} characters, from "
            f"{baked['begins']!r} to {baked['ends']!r}. A sample request of {len(prompt.sample)} tokens found them."
        )
    return lines


def _read(engine: CompiledEngine, ids: TokenIds, cache: KVCache) -> Logits:
    """Have `cache` hold `ids`, as far as it does not, and return the logits after the last: `[1, V]`."""
    logits = np.empty((0, engine.vocab_size), np.float32)
    for begin in range(cache.length, len(ids), engine.max_rows):
        (logits,) = engine.forward([Step(ids[begin : begin + engine.max_rows], cache)])
    return logits
