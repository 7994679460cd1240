"""tokenizer.json -> what an artifact has of it: tables that a cold start only maps, if they give the library's ids.

Else the same tokenizer.json in a form that is read in half the time: no indentation, and merges as "a b" strings
instead of pairs, so that a vocabulary of 49,152 takes 32 ms to read instead of 52.
"""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RustTokenizer

from compiler import codegen
from compiler.tokenizer_proof import difference
from compiler.tokenizer_shape import NotMappedError, shape_of
from compiler.tokenizer_tables import tables
from engines.cpu_levels import levels_here
from generation import tokenizer_file
from generation import vocabulary as vocabulary_of
from generation.mapped_codec import LIBRARY, MappedCodec, open_library
from generation.tokenizer import Tokenizer

FILE = "tokenizer.json"


def require_ids_below(size: int, checkpoint: Path) -> None:
    """LoadError where the checkpoint's tokenizer has ids that the model has no embedding for."""
    if (checkpoint / FILE).exists():
        Tokenizer(checkpoint).require_ids_below(size)


def store(checkpoint: Path, directory: Path, level: str, size: int) -> str | None:
    """Write the checkpoint's tokenizer, for a network of `size` tokens and CPUs of `level`'s kind, into `directory`.

    Returns a sentence that says why a cold start needs the tokenizers library, None where it does not.
    """
    source = checkpoint / FILE
    if not source.exists():
        return None
    try:
        found = _proved_tables(source.read_bytes())
    except NotMappedError as error:
        compact(source, directory / FILE)
        save_vocabulary(directory, size)
        return f"Cold starts read this tokenizer with the tokenizers library, which takes longer: {error}."
    (directory / tokenizer_file.FILE).write_bytes(found)
    (directory / LIBRARY).write_bytes(codegen.build_tokenizer(level))
    return None


@functools.lru_cache(maxsize=8)
def _proved_tables(content: bytes) -> bytes:
    """The tables of a tokenizer.json, which encode and decode as the tokenizers library does. Raises NotMappedError."""
    tokenizer = RustTokenizer.from_buffer(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with tempfile.TemporaryDirectory() as work:
        directory = Path(work)
        (directory / LIBRARY).write_bytes(codegen.build_tokenizer(levels_here()[0]))
        found = tables(shape_of(tokenizer), open_library(directory / LIBRARY))
        (directory / tokenizer_file.FILE).write_bytes(found)
        if differs := difference(tokenizer, MappedCodec(directory)):
            raise NotMappedError(differs)
    return found


def save_vocabulary(directory: Path, size: int) -> None:
    """Save the tokens that the tokenizer in `directory` has for a network of `size`, where their pieces say them."""
    if (directory / FILE).exists() and (vocabulary := Tokenizer(directory).vocabulary(size)) is not None:
        vocabulary.save(directory / vocabulary_of.FILE)


def compact(source: Path, target: Path) -> None:
    """Write `source` more compactly to `target`; unchanged where the library would read anything else from it."""
    content: dict[str, Any] = json.loads(source.read_bytes())
    model = content["model"]
    pairs = [pair for pair in model.get("merges") or () if not isinstance(pair, str)]
    if pairs and not any(" " in part for pair in pairs for part in pair):
        model["merges"] = [" ".join(pair) for pair in pairs]
    target.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    if RustTokenizer.from_file(str(target)).to_str() != RustTokenizer.from_file(str(source)).to_str():
        shutil.copyfile(source, target)
