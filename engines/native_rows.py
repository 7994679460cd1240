"""Logits that stay in native memory, and what native code makes of them: native/sampling.h.

The C functions are those of the engine.so that made the logits. Nothing is checked on the other side: ids must lie
below the vocabulary's size.
"""

import ctypes
from collections.abc import Iterator
from typing import Any, overload


class NativeChoice(ctypes.Structure):
    """sampling.h's Choice."""

    _fields_ = (
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("top_k", ctypes.c_int64),
        ("repetition", ctypes.c_float),
        ("presence", ctypes.c_float),
        ("frequency", ctypes.c_float),
        ("seen", ctypes.c_void_p),
        ("seen_count", ctypes.c_int64),
        ("made", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("made_count", ctypes.c_int64),
        ("biased", ctypes.c_void_p),
        ("biases", ctypes.c_void_p),
        ("biased_count", ctypes.c_int64),
        ("allowed", ctypes.c_char_p),
        ("barred", ctypes.c_void_p),
        ("barred_count", ctypes.c_int64),
    )


class Sampler:
    """The functions of sampling.h in one engine.so."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.pick = library.engine_pick
        self.pick.restype = ctypes.c_int64
        self.pick.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(NativeChoice), ctypes.c_double)
        self.describe = library.engine_describe
        self.describe.restype = ctypes.c_float
        self.describe.argtypes = (
            ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p,
        )  # fmt: skip
        self.finite = library.engine_finite
        self.finite.argtypes = (ctypes.c_void_p, ctypes.c_int64)


class NativeRow:
    """Logits `[V]`: one row of NativeRows."""

    def __init__(self, rows: "NativeRows", address: int) -> None:
        self._rows = rows  # keeps the memory
        self.address = address

    def choose(self, choice: NativeChoice, allowed: bytearray | None, uniform: float) -> int:
        """The token that `choice` and a `uniform` number in [0, 1) choose. Raises MemoryError.

        `allowed` has a bit for each token that may be chosen, the lowest first.
        """
        if allowed is not None:
            choice.allowed = bytes(allowed)
        token: int = self._rows.sampler.pick(self.address, self._rows.width, choice, uniform)
        if token < 0:
            raise MemoryError("no memory to choose a token")
        return token

    def describe(self, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
        """The log-probability of `token`, and the `count` likeliest tokens with theirs, best first."""
        ids, logprobs = (ctypes.c_int64 * count)(), (ctypes.c_float * count)()
        own: float = self._rows.sampler.describe(self.address, self._rows.width, token, count, ids, logprobs)
        if own != own:
            raise MemoryError("no memory to describe a token")
        return own, tuple(zip(ids, logprobs, strict=True))


class NativeRows:
    """Logits `[rows, V]`."""

    def __init__(self, sampler: Sampler, memory: bytearray, first: int, count: int, width: int) -> None:
        """Rows `first` to `first + count` of `memory`, which holds rows of `width` float32 each."""
        self.sampler = sampler
        self.width = width
        self._memory = memory
        self._first = first
        self._count = count
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + 4 * width * first
        """Of the first number."""

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, key: int) -> NativeRow: ...
    @overload
    def __getitem__(self, key: slice) -> "NativeRows": ...
    def __getitem__(self, key: int | slice) -> "NativeRow | NativeRows":
        chosen = range(self._count)[key]
        if isinstance(chosen, range):  # of step 1
            return NativeRows(self.sampler, self._memory, self._first + chosen.start, len(chosen), self.width)
        return NativeRow(self, self.address + 4 * self.width * chosen)

    def __iter__(self) -> Iterator[NativeRow]:
        return (self[row] for row in range(self._count))

    def copy(self) -> "NativeRows":
        """The same rows in memory of their own."""
        begin = 4 * self.width * self._first
        memory = self._memory[begin : begin + 4 * self.width * self._count]
        return NativeRows(self.sampler, memory, 0, self._count, self.width)

    @property
    def are_finite(self) -> bool:
        """Whether all of them are numbers."""
        return bool(self.sampler.finite(self.address, self._count * self.width))

    def array(self) -> Any:
        """A numpy array of them in the same memory."""
        import numpy as np  # for those who want to calculate

        begin = 4 * self.width * self._first
        return np.frombuffer(self._memory, np.float32, self._count * self.width, begin).reshape(-1, self.width)
