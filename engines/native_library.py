"""The native boundary: the C functions of a compiled artifact's engine.so, and nothing else.

Ownership, which is what keeps this safe:
- Python owns every array. Weights and pages stay alive and at the same address for as long as a call, or an open
  `NativeLibrary`, can use them: `NativeLibrary` keeps the mapping, `forward` is given memory its caller holds.
- The library owns its graph and scratch memory, from `engine_open` to `engine_close`, and keeps no pointer that was
  passed to `forward` once it has returned.
- Nothing is checked on the other side: ids, lengths and shapes must have been checked before `forward` is called.
ctypes releases the interpreter lock during a call, and calls from several threads may overlap.
"""

import ctypes
import logging
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.artifact import RECOMPILE, Constant
from engines.errors import LoadError
from engines.memory import address_of
from engines.native_rows import NativeRows, Sampler

ABI = 4
"""Version of engines/native/engine.h and sampling.h; the compiler passes it on."""
_ERROR_BYTES = 1024
_OUT_OF_MEMORY = 2
_MATRIX_FORBIDDEN = 2

logger = logging.getLogger(__name__)


class NativeConstant(ctypes.Structure):
    """engine.h's Constant."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("offset", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
    )


class NativeStep(ctypes.Structure):
    """engine.h's Step. `pages` is the address of an array of page addresses, which the caller keeps alive."""

    _fields_ = (
        ("count", ctypes.c_int64),
        ("past", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("pages", ctypes.c_void_p),
    )


class NativeLibrary:
    """One level's libraries, bound to mapped weights."""

    def __init__(
        self, libraries: Path, weights: mmap.mmap, constants: Sequence[Constant], element_bytes: int, threads: int
    ) -> None:
        """`element_bytes` is the size of a number in the KV cache, 4 or 2. Raises LoadError."""
        try:
            library = ctypes.CDLL(str(libraries / "engine.so"))
            found = library.engine_abi()
        except (OSError, AttributeError) as error:
            raise LoadError(f"{libraries / 'engine.so'} cannot be loaded ({error}); {RECOMPILE}.") from error
        if found != ABI:
            raise LoadError(f"{libraries / 'engine.so'} has interface {found} instead of {ABI}; {RECOMPILE}.")
        library.engine_open.restype = ctypes.c_void_p
        self._weights = weights
        entries = (NativeConstant * len(constants))(
            *(NativeConstant(c.name.encode(), c.offset, c.size) for c in constants)
        )
        error_text = ctypes.create_string_buffer(_ERROR_BYTES)
        self._handle = library.engine_open(
            str(libraries).encode(), ctypes.c_void_p(address_of(weights)), entries,
            ctypes.c_int64(len(constants)), ctypes.c_int64(element_bytes), ctypes.c_int32(threads), error_text,
            ctypes.c_int64(_ERROR_BYTES),
        )  # fmt: skip
        if not self._handle:
            raise LoadError(f"{libraries} cannot be loaded ({error_text.value.decode(errors='replace')}); {RECOMPILE}.")
        self._close = library.engine_close
        self._forward = library.engine_forward
        self._forward.argtypes = (
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64,
            ctypes.c_char_p, ctypes.c_int64,
        )  # fmt: skip
        self._sampler = Sampler(library)
        if library.engine_use_matrix(1) == _MATRIX_FORBIDDEN:
            logger.warning("the system does not let this process use the CPU's matrix unit (AMX); prompts take longer")

    def forward(self, ids: bytes, steps: "ctypes.Array[NativeStep]", rows: int, vocab_size: int) -> NativeRows:
        """Run `steps`, whose tokens are `ids`, 64-bit integers. Logits `[rows of all steps, V]`.

        Raises MemoryError or RuntimeError; the steps' new tokens then hold anything.
        """
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        memory = bytearray(max(4 * rows * vocab_size, 1))
        logits = NativeRows(self._sampler, memory, 0, rows, vocab_size)
        code = self._forward(self._handle, ids, steps, len(steps), logits.address, vocab_size, error, _ERROR_BYTES)
        if code == _OUT_OF_MEMORY:
            raise MemoryError("the compiled model ran out of memory")
        if code:
            raise RuntimeError(f"the compiled model failed: {error.value.decode(errors='replace')}")
        return logits

    def __del__(self) -> None:
        handle: Any = getattr(self, "_handle", None)
        if handle:
            self._close(ctypes.c_void_p(handle))
            self._handle = None
