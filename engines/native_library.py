"""The native boundary: the C functions of a compiled artifact's engine.so, and nothing else.

Ownership, which is what keeps this safe:
- Python owns every array. Weights, cache and state stay alive and at the same address for as long as a call, or an
  open `NativeEngine`, can use them: `NativeEngine` keeps the mapping, `forward` is given arrays its caller holds.
- The library owns its graphs and scratch memory, from `engine_open` to `engine_close`, and keeps no pointer that was
  passed to `forward` once it has returned.
- Nothing is checked on the other side: ids, lengths and shapes must have been checked before `forward` is called.
ctypes releases the interpreter lock during a call, and calls from several threads may overlap.
"""

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.artifact import RECOMPILE, Constant
from engines.base import Logits, TokenIds
from engines.errors import LoadError

ABI = 1
_ERROR_BYTES = 1024
_OUT_OF_MEMORY = 2


class _Constant(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("graphs", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
    )


class NativeEngine:
    """The graphs of one level's libraries, bound to mapped weights."""

    def __init__(self, libraries: Path, weights: mmap.mmap, constants: Sequence[Constant], threads: int) -> None:
        try:
            library = ctypes.CDLL(str(libraries / "engine.so"))
            found = library.engine_abi()
        except (OSError, AttributeError) as error:
            raise LoadError(f"{libraries / 'engine.so'} cannot be loaded ({error}); {RECOMPILE}.") from error
        if found != ABI:
            raise LoadError(f"{libraries / 'engine.so'} has interface {found} instead of {ABI}; {RECOMPILE}.")
        library.engine_open.restype = ctypes.c_void_p
        self._weights = np.frombuffer(weights, np.uint8)
        entries = (_Constant * len(constants))(
            *(_Constant(c.name.encode(), c.graphs, c.offset, c.size) for c in constants)
        )
        error_text = ctypes.create_string_buffer(_ERROR_BYTES)
        self._handle = library.engine_open(
            str(libraries).encode(), ctypes.c_void_p(self._weights.ctypes.data), entries,
            ctypes.c_int64(len(constants)), ctypes.c_int32(threads), error_text, ctypes.c_int64(_ERROR_BYTES),
        )  # fmt: skip
        if not self._handle:
            raise LoadError(f"{libraries} cannot be loaded ({error_text.value.decode()}); {RECOMPILE}.")
        self._close = library.engine_close
        self._forward = library.engine_forward
        self._forward.argtypes = (
            ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_int64, ctypes.c_char_p, ctypes.c_int64,
        )  # fmt: skip

    def forward(self, ids: TokenIds, state: npt.NDArray[np.int64], logits: Logits) -> None:
        """Run `ids [S]` over the cache that `state [4]` describes and fill `logits [last, V]`."""
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        code = self._forward(
            self._handle, ids.ctypes.data, len(ids), len(logits), state.ctypes.data, logits.ctypes.data,
            logits.shape[1], error, _ERROR_BYTES,
        )  # fmt: skip
        if code == _OUT_OF_MEMORY:
            raise MemoryError("the compiled model ran out of memory")
        if code:
            raise RuntimeError(f"the compiled model failed: {error.value.decode(errors='replace')}")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._close(ctypes.c_void_p(self._handle))
            self._handle = None
