"""The kernels of engines/native as Python calls, through their C interface."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.export import Layer
from compiler.ops import Kind
from engines import cpu_levels
from engines.base import PAGE_TOKENS
from engines.native_library import NativeStep

Floats = npt.NDArray[np.float32]
Pages = npt.NDArray[np.uint8]
RUNNABLE = [level for level in cpu_levels.levels_here() if cpu_levels.LEVEL_FLAGS[level] <= cpu_levels.cpu_flags()]
BEST = RUNNABLE[0]


class Kernels:
    """engine.so of one level, called with numpy arrays."""

    def __init__(self, directory: Path) -> None:
        self.native = ctypes.CDLL(str(directory / "engine.so"))

    def tensor(self, array: npt.NDArray[Any], dtype: int) -> ctypes.c_void_p:
        strides = (ctypes.c_int64 * array.ndim)(*(s // array.itemsize for s in array.strides))
        sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
        handle = ctypes.c_void_p()
        self.native.aoti_torch_create_tensor_from_blob(
            ctypes.c_void_p(array.ctypes.data), ctypes.c_int64(array.ndim), sizes, strides, ctypes.c_int64(0),
            dtype, 0, 0, ctypes.byref(handle),
        )  # fmt: skip
        return handle

    def array(self, handle: ctypes.c_void_p, shape: tuple[int, ...]) -> Floats:
        data = ctypes.POINTER(ctypes.c_float)()
        self.native.aoti_torch_get_data_ptr(handle, ctypes.byref(data))
        copy = np.ctypeslib.as_array(data, shape).copy()
        self.native.aoti_torch_delete_tensor_object(handle)
        return copy

    def linear(self, x: Floats, packed: npt.NDArray[np.uint8], bias: Floats | None, n: int, kind: Kind) -> Floats:
        result, b = ctypes.c_void_p(), self.tensor(bias, 6) if bias is not None else None
        code = self.native.aoti_torch_cpu_packed_linear(
            self.tensor(x, 6), self.tensor(packed, 0), ctypes.byref(b) if b else None, ctypes.c_int64(n),
            ctypes.c_int64(kind), ctypes.byref(result),
        )  # fmt: skip
        assert code == 0
        return self.array(result, (*x.shape[:-1], n))

    def embedding(self, ids: npt.NDArray[np.int64], packed: npt.NDArray[np.uint8], k: int, kind: Kind) -> Floats:
        result = ctypes.c_void_p()
        code = self.native.aoti_torch_cpu_packed_embedding(
            self.tensor(ids, 4), self.tensor(packed, 0), ctypes.c_int64(k), ctypes.c_int64(kind), ctypes.byref(result)
        )
        assert code == 0
        return self.array(result, (*ids.shape, k))

    def attention(
        self, q: Floats, k: Floats, v: Floats, pages: Pages, past: int, element: int, softcap: float, window: int
    ) -> Floats:
        """One step of one sequence. `pages [*, bytes]` are its cache in order, numbers of `element` bytes."""
        result, tokens = ctypes.c_void_p(), q.shape[2]
        table = np.array([page.ctypes.data for page in pages])
        step = NativeStep(tokens, past, tokens, table.ctypes.data)
        positions, owners = np.arange(past, past + tokens), np.zeros(tokens, np.int64)
        # engine.h's Batch, which is all words
        batch = np.array([ctypes.addressof(step), 1, positions.ctypes.data, owners.ctypes.data, element])
        address = np.array([batch.ctypes.data])
        code = self.native.aoti_torch_cpu_cached_attention(
            self.tensor(q, 6), self.tensor(k, 6), self.tensor(v, 6), self.tensor(address, 4), ctypes.c_int64(0),
            ctypes.c_double(q.shape[-1] ** -0.5), ctypes.c_double(softcap), ctypes.c_int64(window),
            ctypes.byref(result),
        )  # fmt: skip
        assert code == 0
        return self.array(result, (1, q.shape[2], q.shape[1], v.shape[3]))


def empty_pages(tokens: int, kv_heads: int, d: int, dv: int, element: int) -> Pages:
    """Pages for `tokens` of a model of one layer, NaNs wherever nothing was written, in no order of memory."""
    per_token = Layer(kv_heads, d, dv, element).elements_per_token * element
    count = -(-tokens // PAGE_TOKENS)
    return np.full((2 * count, PAGE_TOKENS * per_token), 255, np.uint8)[::-2]
